"""Which segments have a shortcut past the VXLAN device."""

from __future__ import annotations

from dataclasses import replace

import pytest
from overlay.core.dataplane.controls.port_controls import ControlChanges, with_controls
from overlay.core.dataplane.link_state import Shortcut
from overlay.core.dataplane.network_drivers import BRIDGE, labels_of
from overlay.core.dataplane.planning.inputs import (
    PlanInput,
    PolicyRows,
    RemoteChanges,
    RemoteEndpoint,
)
from overlay.core.dataplane.planning.links import shortcut_name
from overlay.core.dataplane.planning.planner import plan_sandbox
from overlay.core.dataplane.planning.remote_table import RowChanges, table_of, updated
from overlay.core.dataplane.state import FdbRow, HookRow, RemoteRow, SandboxState
from overlay.model import Endpoint, Network, NodeId, Subnet, Vni, mac_for, parse_ip

SUBNETS = tuple(
    Subnet(parse_ip(base), length, parse_ip(gateway))
    for base, length, gateway in (
        ("10.1.0.0", 24, "10.1.0.1"),
        ("10.2.0.0", 24, "10.2.0.1"),
        ("fd00:1::", 64, "fd00:1::1"),
    )
)
NETWORK = Network(Vni(0x900000), "blue", SUBNETS, NodeId(b"o" * 16))
GIVEN = PlanInput(NETWORK, 4789, parse_ip("192.0.2.1"), 1450)


def planned(given: PlanInput, without: str = "") -> SandboxState:
    """Return the plan of a host whose kernel has all programs, but for one kind."""
    return plan_sandbox(
        given,
        fast_path=without != "fast_path",
        native=without != "native",
        policing=without != "policing",
    )


def shortcuts(given: PlanInput, without: str = "") -> dict[str, set[HookRow]]:
    """Return the names of the planned shortcuts, with the hooks of what comes by them."""
    state = planned(given, without)
    names = [name for name, link in state.links.items() if isinstance(link, Shortcut)]
    hooks = [row for row in state.rows if isinstance(row, HookRow) and not row.is_leaving]
    return {name: {row for row in hooks if row.link == name} for name in names}


def test_each_segment_has_a_shortcut_with_a_program() -> None:
    """Subnets of two families share one; policies apply there as at the VXLAN device."""
    first, second = shortcut_name(0), shortcut_name(1)
    assert shortcuts(GIVEN) == {first: {HookRow(0, first)}, second: {HookRow(1, second)}}
    policed = shortcuts(replace(GIVEN, policy=PolicyRows()))
    assert policed == {
        first: {HookRow(0, first, is_policed=True)},
        second: {HookRow(1, second, is_policed=True)},
    }


def test_frames_that_must_come_by_a_tunnel_have_none() -> None:
    """Nor those of a network that is being switched."""
    assert shortcuts(replace(GIVEN, is_clear=False)) == {}
    assert shortcuts(replace(GIVEN, receiving=parse_ip("fd00::1"))) == {}


@pytest.mark.parametrize("option", ["fast_path", "native"])
def test_it_needs_the_programs(option: str) -> None:
    """Without the fast path nothing would take the frames from the shortcut."""
    assert shortcuts(GIVEN, option) == {}


def test_a_network_that_is_shut_has_none() -> None:
    """Its policies cannot be applied, so that nothing may pass."""
    assert shortcuts(replace(GIVEN, policy=PolicyRows()), "policing") == {}


def test_a_network_of_one_host_has_none() -> None:
    """No frame of another host comes there."""
    network = replace(NETWORK, labels=labels_of(BRIDGE, ""))
    assert shortcuts(replace(GIVEN, network=network)) == {}


def remote(last: int, vtep: str) -> RemoteEndpoint:
    """Return an endpoint of another host, on both segments."""
    ips = (parse_ip(f"10.1.0.{last}"), parse_ip(f"10.2.0.{last}"))
    endpoint = Endpoint(bytes([last] * 8), NETWORK.vni, "c", mac_for(NETWORK.vni, ips[0]), ips)
    return RemoteEndpoint(NodeId(b"r" * 16), parse_ip(vtep), endpoint)


def test_members_containers_are_sent_to_by_the_shortcut() -> None:
    """Each row of the VXLAN devices for a member's container has an equal one of its segment."""
    given = replace(GIVEN, remotes=(remote(2, "192.0.2.2"), remote(3, "192.0.2.3")))
    rows = planned(given).rows
    by_device = {(row.mac, row.link[-1:], row.vtep) for row in rows if isinstance(row, FdbRow)}
    sent = {(row.mac, str(row.segment), row.vtep) for row in rows if isinstance(row, RemoteRow)}
    assert len(sent) == 4
    assert sent == by_device
    assert {HookRow(0, shortcut_name(0), is_leaving=True)} < rows


@pytest.mark.parametrize("option", ["fast_path", "native"])
def test_nothing_is_sent_without_the_programs(option: str) -> None:
    """The VXLAN devices alone send then."""
    given = replace(GIVEN, remotes=(remote(2, "192.0.2.2"),))
    rows = planned(given, option).rows
    assert not any(isinstance(row, RemoteRow) for row in rows)


def test_over_ipv6_it_sends_to_those_who_accept_it() -> None:
    """The other members' devices would drop packets without a UDP checksum."""
    local, *other = (parse_ip(f"2001:db8::{number}") for number in (1, 2, 3))
    old = replace(remote(3, "2001:db8::3").endpoint, name="old")
    remotes = (remote(2, "2001:db8::2"), RemoteEndpoint(NodeId(b"q" * 16), other[1], old))
    accepting = frozenset({remotes[0].origin})
    given = replace(GIVEN, local=local, remotes=remotes, zero_checksum=accepting)
    state = planned(given)
    sent = [row for row in state.rows if isinstance(row, RemoteRow)]
    assert sorted(sent) == [RemoteRow(remotes[0].endpoint.mac, each, other[0]) for each in (0, 1)]
    assert {HookRow(0, shortcut_name(0), is_leaving=True)} < state.rows


def test_rows_for_members_over_ipv6_follow_what_they_say() -> None:
    """The rows that are kept from plan to plan are those of a plan made anew, and counted."""
    local = parse_ip("2001:db8::1")
    second = RemoteEndpoint(NodeId(b"q" * 16), *remote(3, "2001:db8::3")[1:])
    given = replace(GIVEN, local=local, remotes=(remote(2, "2001:db8::2"), second), native=True)
    table = table_of(given)
    for accepting in ({second.origin}, {NodeId(b"r" * 16), second.origin}, set()):
        given = replace(given, zero_checksum=frozenset(accepting))
        table, changes = updated(table, given, RemoteChanges((), is_whole=False))
        assert changes is None  # a table made anew
        sent = {row for row in table.rows if isinstance(row, RemoteRow)}
        assert len(sent) == 2 * len(accepting)
        assert len(table.rows) == len(set(table.rows))
        assert all(row in table.rows for row in sent)
        assert RemoteRow(second.endpoint.mac, 0, local) not in table.rows


def test_without_the_native_path_their_word_changes_nothing() -> None:
    """The table of remote endpoints stays, however many members say it."""
    given = replace(GIVEN, local=parse_ip("2001:db8::1"), remotes=(remote(2, "2001:db8::2"),))
    table = table_of(given)
    given = replace(given, zero_checksum=frozenset({remote(2, "2001:db8::2").origin}))
    assert updated(table, given, RemoteChanges((), is_whole=False)) == (table, RowChanges())


def test_nothing_is_sent_so_where_all_need_checksums() -> None:
    """Nor does the program run that would send it."""
    local = parse_ip("2001:db8::1")
    given = replace(GIVEN, local=local, remotes=(remote(2, "2001:db8::2"),))
    rows = planned(given).rows
    assert any(isinstance(row, FdbRow) for row in rows)
    assert not any(isinstance(row, RemoteRow) for row in rows)
    assert not any(isinstance(row, HookRow) and row.is_leaving for row in rows)
    assert shortcuts(given).keys() == {shortcut_name(0), shortcut_name(1)}


def test_packets_with_a_priority_are_sent_by_the_device() -> None:
    """It copies their priority to the outer header; what comes still takes the shortcut."""
    labels = with_controls((), ControlChanges(priority="5"))
    network = replace(NETWORK, labels=labels)
    own = replace(remote(9, "192.0.2.9").endpoint, endpoint_id=bytes(8))
    given = replace(GIVEN, network=network, locals=(own,), remotes=(remote(2, "192.0.2.2"),))
    state = planned(given)
    assert not any(isinstance(row, RemoteRow) for row in state.rows)
    assert len(shortcuts(given)) == 2
