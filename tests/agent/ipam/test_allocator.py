"""Requesting an address that another node owns, while owners change."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from unittest.mock import MagicMock

import pytest
from overlay.agent.ipam import allocator as agent_allocator
from overlay.agent.ipam.allocator import AddressAllocator
from overlay.core.ipam import grants
from overlay.core.ipam.ownership import Ownership, ownership
from overlay.core.protocol.messages import GrantRefusal, GrantRequest
from overlay.errors import ConflictError
from overlay.model import Grant, Ip, Network, NodeId, Subnet, Vni, parse_ip

OWN, TWO, THREE = (NodeId(letter * 16) for letter in (b"o", b"2", b"3"))
SUBNET = Subnet(parse_ip("10.1.0.0"), 24, parse_ip("10.1.0.1"))
BLUE = Network(Vni(7), "blue", (SUBNET,), TWO)
WANTED = parse_ip("10.1.0.99")


def grant_of(request: GrantRequest, grantee: NodeId, generation: int) -> Grant:
    """Return a grant of the requested address."""
    return Grant(Vni(7), WANTED, WANTED, grantee, generation, request.request_id)


class Bench:
    """An allocator of a node that sees two others, which `answers` speak for in turn."""

    def __init__(self) -> None:
        self.grants: list[tuple[NodeId, Grant]] = []
        self.asked: list[tuple[NodeId, GrantRequest]] = []
        self.answers: Iterator[str] = iter(())
        gossip, directory, space = MagicMock(), MagicMock(), MagicMock()
        gossip.node_id, gossip.may_write = OWN, True
        gossip.node.membership.live.return_value = [TWO, THREE]
        gossip.node.store.values.side_effect = lambda _scope, _kind: iter(self.grants)
        gossip.node.send_to.side_effect = self._answer
        directory.node_name.side_effect = {TWO: "vm2", THREE: "vm3"}.get
        directory.all_endpoints.return_value = []
        space.ownership.side_effect = self._ownership
        space.reserved.return_value = set()
        space.fault_of.side_effect = lambda network, ip, **_: grants.fault_of(
            self._ownership(network), ip, OWN, set()
        )
        self.allocator = AddressAllocator(gossip, directory, MagicMock(), space)

    def _ownership(self, network: Network) -> Ownership:
        return ownership(network, self.grants)

    def _answer(self, owner: NodeId, request: GrantRequest) -> None:
        self.asked.append((owner, request))
        generation = 1 + len(self.grants)
        match next(self.answers):
            case "grant":
                self.grants.append((owner, grant_of(request, OWN, generation)))
                self.allocator.requests.records_changed()
            case "moved":  # the grant to THREE arrives after the refusal
                self._refuse(request, grants.NOT_OWNER)
                moved = grant_of(GrantRequest(b"m" * 8, Vni(7), WANTED, 1, exact=True), THREE, 1)
                self.grants.append((owner, moved))
            case reason:
                self._refuse(request, reason)

    def _refuse(self, request: GrantRequest, reason: str) -> None:
        self.allocator.requests.handle_refusal(GrantRefusal(request.request_id, reason, 0))

    def allocate(self) -> tuple[Ip, ...]:
        """Request the address."""
        return asyncio.run(self.allocator.allocate(BLUE, (WANTED,)))[0]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Return a bench on which pauses are short."""
    monkeypatch.setattr(agent_allocator, "_NEXT_OWNER_S", 0.001)
    monkeypatch.setattr(agent_allocator, "_SETTLE_S", 60.0)  # however slow this machine is
    return Bench()


def test_the_next_owner_of_a_wanted_address_is_asked(bench: Bench) -> None:
    """Under an id of its own."""
    bench.answers = iter(["moved", "grant"])

    assert bench.allocate() == (WANTED,)

    assert [owner for owner, _ in bench.asked] == [TWO, THREE]
    assert len({request.request_id for _, request in bench.asked}) == 2


def test_an_owner_that_does_not_know_its_part_is_asked_again(bench: Bench) -> None:
    """Under the same id: if it has granted meanwhile, it repeats that grant."""
    bench.answers = iter([grants.NOT_OWNER, grants.NOT_OWNER, "grant"])

    assert bench.allocate() == (WANTED,)

    assert [owner for owner, _ in bench.asked] == [TWO] * 3
    assert len({request.request_id for _, request in bench.asked}) == 1


def test_asking_an_owner_that_is_none_ends(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the error names it."""
    monkeypatch.setattr(agent_allocator, "_SETTLE_S", 0.02)
    bench.answers = iter([grants.NOT_OWNER] * 1000)

    with pytest.raises(ConflictError, match="not available now") as caught:
        bench.allocate()

    assert "vm2, which has not granted it" in caught.value.why


def test_an_address_in_use_is_asked_for_once(bench: Bench) -> None:
    """Such a refusal is final."""
    bench.answers = iter([grants.IN_USE])

    with pytest.raises(ConflictError):
        bench.allocate()

    assert len(bench.asked) == 1
