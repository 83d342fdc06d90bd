"""Halves of a trace are asked of other agents, and answered to members, within bounds."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay import limits
from overlay.agent.trace.peers import TracePeers
from overlay.core.events import TraceMessage
from overlay.core.protocol.messages import Message
from overlay.core.protocol.trace import (
    Finding,
    Outcome,
    Phase,
    Step,
    TraceAnswer,
    TraceRequest,
)
from overlay.errors import OverlayError
from overlay.model import NodeId, parse_ip
from overlay.wire.codec.messages import MsgpackCodec
from tests.agent.conftest import until

ASKER, ANSWERER, OTHER = (NodeId(letter * 16) for letter in (b"a", b"b", b"c"))
CODEC = MsgpackCodec()


def request(number: int = 1) -> TraceRequest:
    """Return a request."""
    return TraceRequest(
        number.to_bytes(8, "big"), 7, bytes(8), bytes(8), parse_ip("10.1.0.3"), 0, 0
    )


class Half:
    """Findings that are given, or an error."""

    def __init__(self) -> None:
        self.found: list[Finding] = [Finding(Phase.SEND, Step.PORT, Outcome.OK, "up")]
        self.error: Exception | None = None
        self.count = 0

    async def findings(self, _request: TraceRequest) -> list[Finding]:
        """Return them."""
        self.count += 1
        if self.error is not None:
            raise self.error
        return self.found


class Node:
    """One agent's part; what it sends is encoded, as on the wire, and handed to its peers."""

    def __init__(self, node_id: NodeId) -> None:
        self.node_id = node_id
        self.half = Half()
        self.sent: list[tuple[NodeId, Message]] = []
        self.peers: dict[NodeId, Node] = {}
        gossip = SimpleNamespace(
            node=SimpleNamespace(send_to=self._send),
            transport=SimpleNamespace(flush_soon=lambda: None),
        )
        self.trace = TracePeers(cast("Any", SimpleNamespace(gossip=gossip)), self.half)

    def _send(self, to: NodeId, message: Message) -> None:
        (decoded,) = CODEC.decode(CODEC.encode(message))
        self.sent.append((to, decoded))
        if to in self.peers:
            self.peers[to].take(self.node_id, decoded)

    def take(self, sender: NodeId, message: Message) -> None:
        """Take a message of a member."""
        self.trace.handle_message(TraceMessage(sender, cast("Any", message)))


@contextlib.asynccontextmanager
async def answering(node: Node) -> Any:
    """Have a node answer during the block."""
    task = asyncio.create_task(node.trace.run())
    try:
        yield
    finally:
        task.cancel()


@pytest.fixture
async def pair() -> tuple[Node, Node]:
    """Return two nodes that reach each other."""
    asker, answerer = Node(ASKER), Node(ANSWERER)
    asker.peers[ANSWERER], answerer.peers[ASKER] = answerer, asker
    return asker, answerer


async def test_a_member_answers_with_its_findings(pair: tuple[Node, Node]) -> None:
    """As it has judged them."""
    asker, answerer = pair
    async with answering(answerer):
        found = await asker.trace.ask(ANSWERER, request())

    assert found == answerer.half.found


async def test_many_findings_come_in_parts(pair: tuple[Node, Node]) -> None:
    """Each fits a datagram; long and unprintable texts are cut to what the wire allows."""
    asker, answerer = pair
    long = Finding(Phase.RECEIVE, Step.FDB, Outcome.DROP, "é\n" + "x" * 500, "y" * 500)
    answerer.half.found = [long] * (limits.TRACE_FINDINGS_MAX // 2)
    async with answering(answerer):
        found = await asker.trace.ask(ANSWERER, request())

    assert found is not None
    assert len(found) == limits.TRACE_FINDINGS_MAX // 2
    assert found[0].text == ("??" + "x" * 500)[: limits.TRACE_TEXT_LENGTH_MAX]
    parts = [message for _, message in answerer.sent]
    assert 1 < len(parts) <= limits.TRACE_PARTS_MAX
    assert all(len(CODEC.encode(each)) <= limits.PAYLOAD_SIZE_MAX for each in parts)


async def test_what_a_host_cannot_read_is_said(pair: tuple[Node, Node]) -> None:
    """Its answer is that nobody knows, not silence."""
    asker, answerer = pair
    answerer.half.error = OverlayError("cannot open the namespace")
    async with answering(answerer):
        found = await asker.trace.ask(ANSWERER, request())

    assert found is not None
    assert {(each.step, each.outcome) for each in found} == {(Step.AGENT, Outcome.UNKNOWN)}
    assert "cannot open the namespace" in found[0].text


async def test_a_defect_does_not_end_the_agent(pair: tuple[Node, Node]) -> None:
    """Whatever a member asks for, the next request is answered."""
    asker, answerer = pair
    answerer.half.error = IndexError("no such subnet")
    async with answering(answerer):
        found = await asker.trace.ask(ANSWERER, request())
        answerer.half.error = None
        assert await asker.trace.ask(ANSWERER, request(2)) == answerer.half.found

    assert found is not None
    assert "a defect in overlayd: IndexError" in found[0].text


async def test_a_silent_agent_is_asked_again_then_given_up(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be of an older version, which drops the request."""
    monkeypatch.setattr(limits, "TRACE_WAIT_S", 60.0)
    monkeypatch.setattr(limits, "TRACE_RETRY_S", 0.02)
    asker, _ = pair
    asker.peers.clear()
    asking = asyncio.create_task(asker.trace.ask(ANSWERER, request()))
    await until(lambda: len(asker.sent) >= 2)
    asking.cancel()

    monkeypatch.setattr(limits, "TRACE_WAIT_S", 0.05)
    assert await asker.trace.ask(ANSWERER, request(2)) is None


async def test_only_the_asked_node_answers(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer of another member to the same request does not count."""
    monkeypatch.setattr(limits, "TRACE_WAIT_S", 0.1)
    asker, _ = pair
    asker.peers.clear()
    asking = asyncio.create_task(asker.trace.ask(ANSWERER, request()))
    await asyncio.sleep(0)
    asker.take(OTHER, TraceAnswer(request().request_id, 0, 1, ()))

    assert await asking is None


async def test_a_flood_of_requests_is_answered_in_part(pair: tuple[Node, Node]) -> None:
    """The queue is short and the rate is low; nothing is kept about the rest."""
    _, answerer = pair
    answerer.trace._rate.rate_per_s = 0.0  # no time passes
    for number in range(200):
        answerer.take(OTHER, request(number))
    assert answerer.trace._queue.qsize() == limits.TRACE_ANSWERS_WAITING_MAX
    async with answering(answerer):
        for number in range(200, 400):
            await asyncio.sleep(0)
            answerer.take(OTHER, request(number))

    assert answerer.half.count == limits.TRACE_ANSWERS_BURST


async def test_a_repeated_request_is_answered_once(pair: tuple[Node, Node]) -> None:
    """While the first still waits; later it is a new one."""
    asker, answerer = pair
    for _ in range(3):
        answerer.take(ASKER, request())
    async with answering(answerer):
        assert await asker.trace.ask(ANSWERER, request(2)) is not None
        assert answerer.half.count == 2
        assert await asker.trace.ask(ANSWERER, request()) is not None

    assert answerer.half.count == 3


async def test_own_requests_are_bounded(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More at once are given up at once."""
    monkeypatch.setattr(limits, "TRACE_WAIT_S", 0.1)
    asker, _ = pair
    asker.peers.clear()
    asking = [
        asyncio.create_task(asker.trace.ask(ANSWERER, request(number)))
        for number in range(limits.TRACE_PENDING_MAX)
    ]
    await asyncio.sleep(0)
    sent = len(asker.sent)

    assert await asker.trace.ask(ANSWERER, request(999)) is None
    assert len(asker.sent) == sent
    await asyncio.gather(*asking)
