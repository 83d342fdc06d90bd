"""The tables of a host with a gate: its own, and that of the gate's namespace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.host_rules import IngressForward, PortForward
from overlay.core.gate.inside import LOOPBACK_NAME
from overlay.core.gate.translation import MasqueradeSource, TranslationState
from overlay.core.services.values import Backend
from overlay.kernel import netns
from overlay.kernel.nft.host.host_table import Gated, HostTable
from overlay.kernel.nft.host.translation_table import TranslationTable
from overlay.model import NodeId, parse_ip
from tests.kernel.nft.test_host_table import LINK, NODE, STATE

if TYPE_CHECKING:
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns
RETIRING = Gated(frozenset({7}), is_retiring=True)
LAST = Gated(frozenset({7}), is_retiring=False)
ANY = parse_ip("0.0.0.0")  # noqa: S104  a range, no socket
TRANSLATION = TranslationState(
    replace(STATE, ports=frozenset(each for each in STATE.ports if not each.borrowed)),
    frozenset(map(parse_ip, ("192.0.2.1", "fd00::1"))),
    frozenset({(LINK, parse_ip("10.32.0.1"))}),
    (MasqueradeSource("eth0", ANY, 0, parse_ip("192.0.2.1")),),
)


@pytest.fixture
def host(world: World) -> Iterator[tuple[str, HostTable]]:
    """Return a host's name, and its table."""
    name = world.namespace("host")
    with netns.inside(world.fd(name)):
        table = HostTable(NODE)
    yield name, table
    table.close()


def test_each_form_of_the_hosts_table_is_told_apart(
    host: tuple[str, HostTable], world: World
) -> None:
    """With the hooks of translation, with them but without rules, and with none at all."""
    name, table = host
    forms = (None, RETIRING, LAST, Gated(frozenset(), is_retiring=False))
    for form in forms:
        table.write(STATE, form)
        assert [each for each in forms if table.holds(STATE, each)] == [form]
        rules = world.run(name, "nft", "list", "ruleset")
        assert ("dnat" in rules, "masquerade" in rules) == (form is None, form is None)
        assert ("type nat" in rules, "ct " in rules) == (
            (True, True) if form in (None, RETIRING) else (False, False)
        )


def test_nothing_leaves_past_the_gate(host: tuple[str, HostTable], world: World) -> None:
    """Packets are forwarded by interfaces with one alone, whatever the names of others."""
    name, table = host
    table.write(STATE, LAST)
    rules = world.run(name, "nft", "list", "ruleset")
    assert "elements = { 7 }" in rules
    assert "iifname @links oif @gates accept" in rules


def test_the_gates_table_matches_only_its_state(world: World) -> None:
    """Each part of the state matters."""
    table = TranslationTable(netns.path_of(world.namespace("gate")))
    table.write(TRANSLATION)
    others = [
        replace(TRANSLATION, **{part: type(getattr(TRANSLATION, part))()})
        for part in ("own", "gateways", "sources")
    ]
    others.append(replace(TRANSLATION, host=STATE))
    assert table.holds(TRANSLATION)
    assert not any(map(table.holds, others))
    table.close()


def test_nothing_leaves_with_a_containers_address(world: World) -> None:
    """Nor what tracking cannot assign, nor what the interface has no address for: IPv6 here."""
    name = world.namespace("gate")
    table = TranslationTable(netns.path_of(name))
    table.write(TRANSLATION)
    rules = world.run(name, "nft", "-s", "list", "ruleset")
    for source in ("ip saddr 10.32.0.0/16", "ip6 saddr fd32::/64"):
        assert f"{source} ct state invalid counter drop" in rules
        assert f'oifname "eth0" {source} counter drop' in rules
    table.close()


def test_ports_of_services_are_for_their_clients_and_the_host(world: World) -> None:
    """The host's own connections come by the loopback, whatever their address."""
    name = world.namespace("gate")
    table = TranslationTable(netns.path_of(name))
    backend = Backend(parse_ip("10.32.0.9"), 80, NodeId(bytes(16)))
    clients = ((parse_ip("198.51.100.0"), 24),)
    port = IngressForward("tcp", 8000, (backend,), sources=clients)
    state = replace(TRANSLATION, host=replace(TRANSLATION.host, ingress=frozenset({port})))
    table.write(state)
    assert table.holds(state)
    rules = [
        line for line in world.run(name, "nft", "list", "ruleset").splitlines() if "jhash" in line
    ]
    assert [LOOPBACK_NAME in line for line in rules] == [True, True, False]
    assert ["198.51.100.0/24" in line for line in rules] == [False, False, True]
    table.close()


def test_only_addresses_of_the_host_are_translated(world: World) -> None:
    """What containers send to another host passes the table, too; loopback has its own way in."""
    name = world.namespace("gate")
    table = TranslationTable(netns.path_of(name))
    port = PortForward("tcp", parse_ip("192.0.2.1"), 80, parse_ip("10.32.0.2"), 80, borrowed=False)
    elsewhere = port._replace(host_ip=parse_ip("192.0.2.99"), host_port=81)
    local = port._replace(host_ip=parse_ip("127.0.0.1"), host_port=82)
    host = replace(TRANSLATION.host, ports=frozenset({port, elsewhere, local}))
    table.write(replace(TRANSLATION, host=host))
    rules = [
        line.strip() for line in world.run(name, "nft", "list", "ruleset").splitlines()
        if "dnat ip to" in line
    ]  # fmt: skip
    assert rules == [
        f'iifname "{LOOPBACK_NAME}" ip daddr 198.18.184.238 tcp dport 82 dnat ip to 10.32.0.2:80',
        "ip daddr 192.0.2.1 tcp dport 80 dnat ip to 10.32.0.2:80",
    ]
    table.close()
