"""A host without a sandbox asks the others again before it decides for all."""

from __future__ import annotations

from unittest.mock import AsyncMock, MagicMock

import pytest
from overlay import limits
from overlay.agent.gossip.context import NodeContext
from overlay.agent.networks.participation import ParticipationService
from overlay.core.protocol.records import Scope
from overlay.errors import OverlayError
from overlay.model import Network, NodeId, Subnet, Vni, parse_ip

OWN, OTHER = NodeId(b"o" * 16), NodeId(b"x" * 16)
SUBNET = Subnet(parse_ip("10.1.0.0"), 24, parse_ip("10.1.0.1"))
BLUE = Network(Vni(7), "blue", (SUBNET,), OWN)


@pytest.mark.parametrize(("used_by", "asks"), [([OTHER], True), ([OWN, OTHER], False), ([], False)])
async def test_a_keeper_asks_the_users_of_a_network_again(
    used_by: list[NodeId], asks: bool
) -> None:
    """A host with a sandbox has confirmed each endpoint; nobody to ask is no wait."""
    gossip, directory = MagicMock(), MagicMock()
    gossip.node_id = OWN
    gossip.transport.now.return_value = 5.0
    gossip.wait_synced = AsyncMock()
    directory.participants.return_value = used_by
    directory.follows.return_value = True
    context = NodeContext(gossip, directory, MagicMock(), MagicMock())
    service = ParticipationService(context, *(MagicMock() for _ in range(4)))

    async with service.holding_records(BLUE):
        assert gossip.wait_synced.await_count == int(asks)
    gossip.commit.assert_not_called()
    if asks:
        gossip.node.scopes.begin.assert_called_once_with(Scope(7), limits.MEMBER_COUNT_MAX, 5.0)


async def test_a_network_that_cannot_be_left_yet_is_left_later() -> None:
    """The sandbox is gone, the disk is full: a fault until the record is deleted and sent."""
    gossip, directory, reconciler, needs = (MagicMock() for _ in range(4))
    full = OverlayError("cannot write the state file", why="disk full")
    gossip.commit = MagicMock(side_effect=[full, full, ["segment"]])
    reconciler.destroy = AsyncMock()
    needs.needs_no_container.return_value = False
    context = NodeContext(gossip, directory, MagicMock(), MagicMock())
    service = ParticipationService(context, reconciler, MagicMock(), needs, MagicMock())

    assert await service.release(BLUE.vni) == []
    await service.attempt()
    (fault,) = service.faults()
    assert fault.text.endswith("is not left yet: cannot write the state file: disk full")
    await service.attempt()

    assert [*service.faults()] == []
    gossip.publish.assert_called_once_with(["segment"])
    await service.attempt()
    assert gossip.commit.call_count == 3


async def test_a_network_that_cannot_be_left_holds_up_no_other() -> None:
    """The kernel may refuse to delete one sandbox for long."""
    gossip, directory, reconciler, needs = (MagicMock() for _ in range(4))
    gossip.commit.return_value = ["segment"]
    reconciler.destroy = AsyncMock(side_effect=lambda vni: refuse() if vni == BLUE.vni else None)
    needs.needs_no_container.return_value = False
    context = NodeContext(gossip, directory, MagicMock(), MagicMock())
    service = ParticipationService(context, reconciler, MagicMock(), needs, MagicMock())
    service._unreleased |= {BLUE.vni, Vni(BLUE.vni + 1)}

    await service.attempt()

    gossip.publish.assert_called_once_with(["segment"])
    assert service._unreleased == {BLUE.vni}
    assert len([*service.faults()]) == 1


def refuse() -> None:
    """Fail as a kernel that is busy."""
    raise OSError(16, "busy")


@pytest.mark.parametrize(("live", "reads"), [([OTHER], 3), ([OWN], 1)])
async def test_a_removal_waits_for_hosts_that_are_leaving(live: list[NodeId], reads: int) -> None:
    """It waits while one of them is on the network with nothing to show, but not for a dead one."""
    gossip, directory = MagicMock(), MagicMock()
    gossip.node.membership.live.return_value = live
    directory.unseen.side_effect = [[OTHER], [OTHER], []]
    context = NodeContext(gossip, directory, MagicMock(), MagicMock())
    service = ParticipationService(context, *(MagicMock() for _ in range(4)))

    await service.wait_seen(BLUE.vni)

    assert directory.unseen.call_count == reads
