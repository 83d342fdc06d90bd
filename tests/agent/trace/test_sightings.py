"""A marked packet is watched for at its target's host, for the host that sends it alone."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay import limits
from overlay.agent.records.directory import PlacedEndpoint
from overlay.agent.trace.sightings import Sightings
from overlay.core.events import SightingMessage
from overlay.core.protocol.capture import (
    CaptureState,
    Place,
    PlacedSighting,
    SightingAnswer,
    SightingRequest,
)
from overlay.core.protocol.messages import Message
from overlay.model import Endpoint, Mac, NodeId, Vni, parse_ip
from overlay.wire.codec.messages import MsgpackCodec

ASKER, ANSWERER, OTHER = (NodeId(letter * 16) for letter in (b"a", b"b", b"c"))
VNI = Vni(9)
SOURCE = Endpoint(b"sourceid", VNI, "web", Mac(b"\2" * 6), (parse_ip("10.1.0.2"),))
TARGET = Endpoint(b"targetid", VNI, "db", Mac(b"\4" * 6), (parse_ip("10.1.0.3"),))
MARK = b"mark5678"
SEEN = PlacedSighting(Place.CONTAINER, "eth0", is_outgoing=False)
CODEC = MsgpackCodec()


class FakeTaps:
    """Taps that see a packet once."""

    def __init__(self) -> None:
        self.waiting = [SEEN]
        self.is_closed = False

    def sightings(self) -> list[PlacedSighting]:
        """Return what is new."""
        found, self.waiting = self.waiting, []
        return found

    def close(self) -> None:
        """Close."""
        self.is_closed = True


class Node:
    """One agent's part; what it sends reaches its peers as on the wire."""

    def __init__(self, node_id: NodeId, *, is_allowed: bool = True) -> None:
        self.node_id = node_id
        self.peers: dict[NodeId, Node] = {}
        self.taps: list[FakeTaps] = []
        self.error: OSError | None = None
        directory = SimpleNamespace(
            own=node_id,
            network_by_vni=lambda vni: SimpleNamespace(vni=vni, labels=()),
            routed_with=lambda _: [],
            endpoints=lambda _: [PlacedEndpoint(ASKER, SOURCE), PlacedEndpoint(ANSWERER, TARGET)],
        )
        gossip = SimpleNamespace(
            node=SimpleNamespace(send_to=self._send),
            transport=SimpleNamespace(flush_soon=lambda: None),
            card=None,
        )
        attachment = SimpleNamespace(netns_path="/x", netns_identity=(1, 2), ifname="eth0")
        context = SimpleNamespace(
            node=SimpleNamespace(
                gossip=gossip, directory=directory, kernel=SimpleNamespace(call=self._open)
            ),
            attachments={TARGET.endpoint_id: attachment},
            reconciler=SimpleNamespace(vtep_of=lambda *_: parse_ip("192.0.2.1")),
        )
        self.sightings = Sightings(cast("Any", context), is_allowed=is_allowed)

    async def _open(self, *_: object) -> FakeTaps:
        if self.error is not None:
            raise self.error
        self.taps.append(FakeTaps())
        return self.taps[-1]

    def _send(self, to: NodeId, message: Message) -> None:
        (decoded,) = CODEC.decode(CODEC.encode(message))
        if to in self.peers:
            self.peers[to].take(self.node_id, decoded)

    def take(self, sender: NodeId, message: Message) -> None:
        """Take a message of a member."""
        self.sightings.handle_message(SightingMessage(sender, cast("Any", message)))

    async def look(self, target: NodeId = ANSWERER) -> SightingAnswer | None:
        """Ask for the sightings of the mark."""
        pair = SimpleNamespace(
            source=SimpleNamespace(endpoint=SOURCE),
            target=SimpleNamespace(
                endpoint=TARGET, node_id=target, vtep=None, network=SimpleNamespace(vni=VNI)
            ),
            target_ip=TARGET.ips[0],
            network=SimpleNamespace(vni=VNI),
        )
        return await self.sightings.look(cast("Any", pair), MARK)


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Node, Node]]:
    """Return two nodes that reach each other, the second one answering."""
    asker, answerer = Node(ASKER), Node(ANSWERER)
    asker.peers[ANSWERER], answerer.peers[ASKER] = answerer, asker
    task = asyncio.create_task(answerer.sightings.run())
    yield asker, answerer
    task.cancel()
    answerer.sightings.close()
    assert all(each.is_closed for each in answerer.taps)


async def test_the_first_question_begins_to_watch(pair: tuple[Node, Node]) -> None:
    """The next ones tell what was seen since, each time all of it."""
    asker, answerer = pair
    assert await asker.look() == SightingAnswer(MARK, CaptureState.CAPTURING)
    for _ in range(2):
        assert await asker.look() == SightingAnswer(MARK, CaptureState.CAPTURING, (SEEN,))
    assert len(answerer.taps) == 1


async def test_another_member_learns_nothing(pair: tuple[Node, Node]) -> None:
    """Neither of the mark nor of the containers."""
    asker, answerer = pair
    await asker.look()
    other = Node(OTHER)
    other.peers[ANSWERER], answerer.peers[OTHER] = answerer, other
    found = await other.look()
    assert found == SightingAnswer(MARK, CaptureState.BUSY)
    answerer.sightings.close()
    assert await other.look() == SightingAnswer(MARK, CaptureState.UNKNOWN_ENDS)


@pytest.mark.parametrize(
    ("number", "state"),
    [(errno.EPERM, CaptureState.NO_PACKET_SOCKETS), (errno.ENOMEM, CaptureState.FAILED)],
)
async def test_what_the_kernel_refuses_is_told(
    pair: tuple[Node, Node], number: int, state: CaptureState
) -> None:
    """By its cause."""
    asker, answerer = pair
    answerer.error = OSError(number, "no")
    assert await asker.look() == SightingAnswer(MARK, state)


async def test_the_configuration_forbids_to_watch() -> None:
    """Also for this host's own traces."""
    node = Node(ANSWERER, is_allowed=False)
    assert await node.look() == SightingAnswer(MARK, CaptureState.FORBIDDEN)


async def test_a_silent_host_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attempt is made without it."""
    monkeypatch.setattr(limits, "SIGHTING_WAIT_S", 0.05)
    assert await Node(ASKER).look() is None


async def test_only_so_many_marks_are_watched_for(pair: tuple[Node, Node]) -> None:
    """The host says that it is busy."""
    _, answerer = pair
    states = []
    for number in range(limits.TRACE_ANSWERS_WAITING_MAX + 1):
        request = SightingRequest(
            b"mark%04d" % number, VNI, (TARGET.endpoint_id, SOURCE.endpoint_id), TARGET.ips[0]
        )
        states.append((await answerer.sightings._answer(ASKER, request)).state)
    assert states[-2:] == [CaptureState.CAPTURING, CaptureState.BUSY]
