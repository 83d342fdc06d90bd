"""The agent's part of netcheck: questions, answers, and how little they can cause."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

from overlay import limits
from overlay.agent.netcheck.service import NetcheckService
from overlay.core.events import CheckMessage
from overlay.core.protocol.messages import CheckAnswer, CheckCondition, CheckRequest
from overlay.model import NodeId

PEER, OTHER = NodeId(b"p" * 16), NodeId(b"x" * 16)


class Host:
    """A service whose messages and probes are only noted."""

    def __init__(self) -> None:
        self.sent: list[tuple[NodeId, Any]] = []
        self.probed: list[NodeId] = []
        loop = asyncio.get_running_loop()
        gossip = SimpleNamespace(
            node=SimpleNamespace(send_to=self._send, membership=self),
            transport=SimpleNamespace(flush_soon=lambda: None, now=loop.time),
        )
        self.paths = SimpleNamespace(
            check=self.probed.extend,
            path=lambda _node: None,
            is_known_since=lambda _node, _start: True,
            is_heard_since=lambda _node, _start: False,
        )
        self.filter = SimpleNamespace(fault=None, rewritten_at=None)
        self.errors = SimpleNamespace(trigger=lambda: None, is_failing=lambda: False)
        directory = SimpleNamespace(node_name=lambda _node: "vm2")
        event_log = SimpleNamespace(record=lambda *_args, **_more: None)
        context = SimpleNamespace(gossip=gossip, event_log=event_log, directory=directory)
        self.service = NetcheckService(
            *cast("Any", (context, self.paths, self.filter, self.errors))
        )
        self.heard: dict[NodeId, float] = {}
        self.answering: dict[NodeId, int] = {}  # nodes that answer, and how far their clock is

    def ping(self, node_id: NodeId, _now: float) -> None:
        """Have a member of any version answer."""
        if node_id == OTHER:
            self.heard[node_id] = asyncio.get_running_loop().time()

    def member(self, node_id: NodeId) -> Any:
        """Return when a member was heard."""
        return SimpleNamespace(heard_at=self.heard.get(node_id))

    def _send(self, to: NodeId, message: Any) -> None:
        self.sent.append((to, message))
        if to in self.answering and isinstance(message, CheckRequest):
            time_ms = int(time.time() * 1000) + self.answering[to]
            answer = CheckAnswer(message.number, time_ms, CheckCondition.FILTER_REWRITTEN | 1 << 40)
            loop = asyncio.get_running_loop()
            loop.call_soon(self.service.handle_message, CheckMessage(to, answer))


async def test_a_question_is_answered_with_what_is_wrong() -> None:
    """The clock, and the conditions of this host."""
    host = Host()
    host.filter.rewritten_at = asyncio.get_running_loop().time()
    host.filter.fault = object()
    host.service.handle_message(CheckMessage(PEER, CheckRequest(9)))

    [(to, answer)] = host.sent
    assert (to, answer.number) == (PEER, 9)
    assert abs(answer.time_ms / 1000 - time.time()) < 60
    assert answer.conditions == CheckCondition.FILTER_REWRITTEN | CheckCondition.FILTER_BROKEN


async def test_many_questions_cause_one_round_of_probes() -> None:
    """Each is answered, but a member cannot have this host send more than that a second."""
    host = Host()
    for number in range(50):
        host.service.handle_message(CheckMessage(PEER, CheckRequest(number)))

    assert len(host.sent) == 50
    assert host.probed == [PEER]


async def test_a_check_ends_as_soon_as_all_is_known() -> None:
    """It reports the clock and what the member says of itself; unknown conditions are ignored."""
    host = Host()
    host.answering = {PEER: 90_000}
    async with asyncio.timeout(limits.NETCHECK_WAIT_S * 10):
        [check] = await host.service.check([PEER], seconds=3600.0)

    assert check.rtt_s is not None
    assert check.clock_ahead_s is not None
    assert 30 < check.clock_ahead_s < 150
    assert check.conditions == CheckCondition.FILTER_REWRITTEN
    assert host.probed == [PEER]


async def test_silence_ends_with_the_time() -> None:
    """The member did not answer; a later answer means nothing."""
    host = Host()
    [check] = await host.service.check([PEER], seconds=0.05)
    [number, *_] = [message.number for _, message in host.sent]
    host.service.handle_message(CheckMessage(PEER, CheckAnswer(number, 0, 0)))

    assert check.rtt_s is None
    assert not host.service.is_unheard(check)


async def test_only_the_member_that_was_asked_can_answer() -> None:
    """Another's answer to the same number is ignored."""
    host = Host()
    checking = asyncio.create_task(host.service.check([PEER], seconds=0.05))
    await asyncio.sleep(0)
    [(_, request)] = host.sent
    host.service.handle_message(CheckMessage(OTHER, CheckAnswer(request.number, 0, 7)))
    [check] = await checking

    assert check.rtt_s is None
    assert not check.conditions


async def test_an_older_agent_is_not_taken_for_silent() -> None:
    """It knows pings only."""
    host = Host()
    async with asyncio.timeout(limits.NETCHECK_WAIT_S * 10):
        [check] = await host.service.check([OTHER], seconds=3600.0)

    assert check.is_heard
    assert check.rtt_s is None
