"""Members that are not found are looked for at the seeds and at their names."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay import limits
from overlay.agent.dataplane.seed_contact import SeedContact
from overlay.agent.gossip import join_request
from overlay.agent.gossip.join_request import JoinSeed
from overlay.core.protocol.messages import MemberState
from overlay.errors import UsageError
from overlay.model import parse_ip

PLACES = {"vm1": "192.168.60.11", "vm2": "192.168.60.12", "vm3": "192.168.60.13"}


class Host:
    """A member vm1 with the seed vm9, and other members in given states."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **states: MemberState) -> None:
        self.greeted: list[str] = []
        self.states = states
        membership = SimpleNamespace(
            members=lambda: [
                SimpleNamespace(node_id=name, state=state) for name, state in self.states.items()
            ]
        )
        gossip = SimpleNamespace(
            card=SimpleNamespace(address=parse_ip(PLACES["vm1"])),
            cluster=SimpleNamespace(seeds=("vm9",), gossip_port=7948),
            node=SimpleNamespace(membership=membership),
            has_alive_peers=lambda: MemberState.ALIVE in self.states.values(),
            transport=SimpleNamespace(
                send_join_hello=lambda address, _port: self.greeted.append(_name_at(address))
            ),
        )
        directory = SimpleNamespace(
            card=lambda name: SimpleNamespace(name=name, gossip_port=7948, left=False)
        )
        context = SimpleNamespace(gossip=gossip, directory=directory, event_log=None)
        self.contact = SeedContact(cast("Any", context))

        async def resolve(peers: Sequence[str], port: int) -> list[JoinSeed]:
            if unknown := [peer for peer in peers if peer not in PLACES]:
                raise UsageError(f"no address for {unknown}")
            return [JoinSeed(peer, parse_ip(PLACES[peer]), port) for peer in peers]

        monkeypatch.setattr(join_request, "resolve", resolve)

    def turn(self) -> list[str]:
        """Return who is greeted in one pass."""
        self.greeted.clear()
        asyncio.run(self.contact.reconcile())
        return list(self.greeted)


def _name_at(address: bytes) -> str:
    return next(name for name, place in PLACES.items() if parse_ip(place) == address)


def test_only_lost_members_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those whose names do not resolve hold up no other; this host itself is never greeted."""
    host = Host(
        monkeypatch, vm2=MemberState.ALIVE, vm3=MemberState.DEAD, vm1=MemberState.DEAD,
        vm7=MemberState.DEAD, vm8=MemberState.LEFT,
    )  # fmt: skip
    assert host.turn() == ["vm3"]
    host.states["vm3"] = MemberState.ALIVE
    assert host.turn() == []


def test_without_any_peer_the_seeds_are_contacted(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has no address now is no error."""
    host = Host(monkeypatch, vm2=MemberState.DEAD)
    monkeypatch.setitem(PLACES, "vm9", "192.168.60.19")
    assert host.turn() == ["vm9", "vm2"]
    monkeypatch.delitem(PLACES, "vm9")
    assert host.turn() == ["vm2"]


def test_names_of_many_lost_members_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few at a time, because each name may take seconds; and seldom while that is in vain."""
    names = [f"vm{number}" for number in range(20, 40)]
    for number, name in enumerate(names):
        monkeypatch.setitem(PLACES, name, f"192.168.61.{number + 1}")
    host = Host(monkeypatch, vm2=MemberState.ALIVE, **dict.fromkeys(names, MemberState.DEAD))
    turns = [host.turn() for _ in range(3)]

    assert {len(turn) for turn in turns} == {limits.LOST_MEMBERS_RESOLVED_MAX}
    assert {name for turn in turns for name in turn} == set(names)
    for _ in range(6):
        host.turn()
    assert host.contact.next_interval_s() == limits.SEED_RETRY_MAX_S
    host.states = {"vm2": MemberState.ALIVE}
    host.turn()
    assert host.contact.next_interval_s() == limits.SEED_RETRY_FIRST_S
