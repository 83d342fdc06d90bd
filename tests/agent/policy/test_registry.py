"""Creating, changing and removing policies: what is refused, and what is said."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, cast

import pytest
from overlay import limits
from overlay.agent.networks.service import NetworkService
from overlay.agent.policy import definition
from overlay.agent.policy.old_members import old_member_faults
from overlay.agent.records.plug_catalog import PlugCatalog
from overlay.core.declared.kinds import POLICY_KIND
from overlay.core.policy.decision import TCP, Basis, Decision
from overlay.core.policy.policy import Peer, PeerKind, Policy, PortRange, parse_peer
from overlay.errors import ConflictError, NotFoundError, OverlayError, UsageError
from overlay.model import Network, Vni, parse_ip
from overlay.wire.codec.policies import encode_policy
from tests.agent.conftest import Sites, met, until
from tests.agent.policy.conftest import BLUE, LAN, RED, PolicyBench

DB = Policy(
    "db", BLUE, "allow", (parse_peer("label=app=web"),), (parse_peer("name=db1"),),
    (PortRange("tcp", 5432, 5432),),
)  # fmt: skip


async def test_a_repeated_create_changes_nothing(bench: PolicyBench) -> None:
    """The same definition is the same policy; another one of the name is refused."""
    blue = bench.network(BLUE)
    made, created = bench.registry.create(blue, DB)
    written = bench.written()

    assert (made, created) == (DB, True)
    assert bench.registry.create(blue, DB) == (DB, False)
    assert bench.written() == written
    with pytest.raises(ConflictError, match="different policy 'db'") as caught:
        bench.registry.create(blue, replace(DB, name="DB", action="deny"))
    assert "differs in: action" in caught.value.why


async def test_a_changed_policy_decides_anew(bench: PolicyBench) -> None:
    """And a removed one no longer; a wrong name is guessed."""
    blue = bench.network(BLUE)
    web, db = (bench.decider.at(blue, parse_ip(ip)) for ip in ("10.7.0.2", "10.7.0.3"))
    bench.registry.create(blue, DB)
    assert bench.decider.decide(blue, web, db, TCP, 5432) == Decision(True, Basis.POLICY, "db")
    before, after = bench.registry.change("DB", lambda policy: replace(policy, action="deny"))
    assert (before.action, after.action) == ("allow", "deny")
    assert not bench.decider.decide(blue, web, db, TCP, 5432).allowed
    with pytest.raises(NotFoundError) as caught:
        bench.registry.remove("dbs")
    assert caught.value.hint == "Did you mean db?"
    bench.registry.remove("db")
    assert bench.decider.decide(blue, web, db, TCP, 5432).basis is Basis.DEFAULT


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (replace(DB, vni=LAN), "network lan cannot have policies"),
        (replace(DB, sources=(parse_peer("network:rde"),)), "network:rde: there is no network"),
        (replace(DB, sources=DB.sources * (limits.POLICY_PEERS_MAX + 1)), "17 peers"),
        (replace(DB, ports=DB.ports * (limits.POLICY_PORTS_MAX + 1)), "17 ranges of ports"),
        (
            replace(DB, sources=tuple(Peer(PeerKind.NAME, f"{n:060}") for n in range(16))),
            "too large for a record",
        ),
    ],
)
async def test_what_cannot_be_is_refused(bench: PolicyBench, wanted: Policy, told: str) -> None:
    """Before anything is written."""
    written = bench.written()

    with pytest.raises(OverlayError, match=told):
        bench.registry.create(bench.network(wanted.vni), wanted)
    assert bench.written() == written


async def test_a_network_has_a_limit(bench: PolicyBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The policies of another one do not count."""
    monkeypatch.setattr("overlay.limits.POLICIES_PER_NETWORK_MAX", 1)
    bench.registry.create(bench.network(BLUE), DB)

    with pytest.raises(ConflictError, match="1 policies: the limit"):
        bench.registry.create(bench.network(BLUE), replace(DB, name="other"))
    bench.registry.create(bench.network(RED), replace(DB, name="other", vni=RED))


async def test_notes_say_what_has_no_effect(bench: PolicyBench) -> None:
    """An allow where all is allowed, and a label that nobody has; neither is an error."""
    lonely = replace(DB, sources=(parse_peer("label=app=wbe"), parse_peer("world")))

    assert definition.notes(bench.directory, bench.network(BLUE), DB) == []
    assert definition.notes(bench.directory, bench.network(BLUE), lonely) == [
        "label=app=wbe matches no container on network blue now"
    ]
    (note, *_) = definition.notes(bench.directory, bench.network(RED), replace(DB, vni=RED))
    assert "changes nothing" in note
    assert "--default-deny on" in note


@pytest.mark.parametrize(
    ("text", "name", "networks", "is_host"),
    [
        ("10.7.0.2", "web1", {"blue"}, False),
        ("10.7.0.9", "vm1", {"blue"}, True),
        ("10.7.0.1", "", {"blue"}, True),
        ("10.7.0.77", "", {"blue"}, False),
        ("10.9.0.2", "", {"red"}, False),  # what another network has is no endpoint here
        ("1.1.1.1", "", set(), False),
        ("224.0.0.1", "", {"blue"}, False),
        ("fe80::1", "", {"blue"}, False),
        ("ff02::1", "", {"blue"}, False),
    ],
)
async def test_an_address_is_what_the_records_say(
    bench: PolicyBench, text: str, name: str, networks: set[str], is_host: bool
) -> None:
    """Groups and link-local addresses are on the segment, and so not of the world."""
    found = bench.decider.at(bench.network(BLUE), parse_ip(text))

    assert (found.name, set(found.networks), found.is_host) == (name, networks, is_host)
    assert found.is_gateway == (text == "10.7.0.1")


async def test_an_older_member_is_named(
    bench: PolicyBench, sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as there is something that it does not enforce, here a network's default."""
    one = bench.site
    node, catalog = one.gossip.node, bench.registry.catalog
    monkeypatch.setattr("overlay.agent.gossip.service.__version__", "0.2.0")
    two = await sites.join(2, one, one.admission.default_token())
    await until(lambda: met(one, two))
    (fault,) = old_member_faults(node, bench.directory, catalog)

    assert fault.text == "vm2 (overlayd 0.2.0) does not enforce policies"
    with pytest.raises(ConflictError, match="would not enforce it"):
        bench.registry.create(bench.network(BLUE), DB)


async def test_a_valid_policy_has_few_peers() -> None:
    """The error names the option."""
    with pytest.raises(UsageError) as caught:
        definition.require_valid(replace(DB, destinations=DB.sources * 17))
    assert caught.value.field == "to"


async def test_a_policy_that_hosts_could_not_hold_is_refused(
    bench: PolicyBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that grows to it; those that there are stay."""
    blue = bench.network(BLUE)
    bench.registry.create(blue, DB)
    monkeypatch.setattr(limits, "POLICY_VERDICTS_MAX", 12)
    many = tuple(PortRange("tcp", port, port) for port in range(1, 32, 2))

    with pytest.raises(ConflictError, match="network blue has more than hosts can hold") as caught:
        bench.registry.create(blue, replace(DB, name="many", ports=many))
    assert "more than 12 rules" in caught.value.why
    with pytest.raises(ConflictError, match="with policy db, network blue has more"):
        bench.registry.change("db", lambda policy: replace(policy, ports=many))
    assert bench.registry.catalog.all() == [DB]


class NoOthers:
    """A host that holds all records of its networks."""

    @contextlib.asynccontextmanager
    async def holding_records(self, _network: Network) -> AsyncIterator[None]:
        """Hold a network's records."""
        yield

    async def wait_seen(self, _vni: Vni) -> None:
        """All of them have shown what is attached."""


async def test_a_networks_policies_end_with_it(bench: PolicyBench) -> None:
    """The next network with its VNI has none of them; those of others stay."""
    bench.registry.create(bench.network(BLUE), DB)
    bench.declared.put(POLICY_KIND, "old", encode_policy(replace(DB, vni=LAN)))
    unused: Any = None
    plugs = PlugCatalog(bench.declared.objects, unused, unused)
    networks = NetworkService(
        bench.context, cast("Any", NoOthers()), unused, unused, bench.declared, plugs
    )
    await networks.remove("lan")

    assert [policy.name for policy in bench.registry.catalog.all()] == ["db"]
