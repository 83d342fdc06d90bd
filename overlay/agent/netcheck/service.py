"""Ask members directly, and probe the data path to them: the agent's part of `netcheck`.

A member answers only members, one small message for each that it gets, as docs/PROTOCOL.md section
6.2 says.

Owns: the questions and answers, and how long they are waited for. Does not: judge what they mean
(`core.netcheck`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from overlay import limits
from overlay.agent.dataplane.underlay_filter import UnderlayFilter
from overlay.agent.gossip.context import NodeContext
from overlay.agent.netcheck.checksum_errors import ChecksumErrors
from overlay.agent.netcheck.host_conditions import NOTHING, HostConditions
from overlay.agent.paths.controller import PathController
from overlay.agent.process.controller import Controller
from overlay.core.events import CheckMessage
from overlay.core.protocol.messages import CheckAnswer, CheckCondition, CheckRequest
from overlay.model import NodeId

_QUESTIONS_MAX = 3  # an agent that answers pings, but none of these, is of an older version
_REPEAT_S = 0.4  # UDP may lose a question


@dataclass(slots=True)
class PeerCheck:
    """The answers of one member."""

    node_id: NodeId
    asked_at: float
    asked_count: int = 0
    is_heard: bool = False  # anything has come straight from it since it was asked
    rtt_s: float | None = None  # None: no answer
    clock_ahead_s: float | None = None  # of this host's, give or take half of `rtt_s`
    conditions: CheckCondition = NOTHING


class NetcheckService:
    """Checks of members, and the answers to theirs."""

    def __init__(
        self,
        context: NodeContext,
        paths: PathController,
        underlay_filter: UnderlayFilter,
        checksum_errors: ChecksumErrors,
    ) -> None:
        self.checksum_errors = checksum_errors
        self.conditions = HostConditions(context, paths, underlay_filter, checksum_errors)
        self._gossip = context.gossip
        self._event_log = context.event_log
        self._paths = paths
        self._numbers = itertools.count(1)
        self._open: dict[int, tuple[PeerCheck, float]] = {}  # by number: with the time of sending
        self._answered = asyncio.Event()
        self._prompted: dict[NodeId, float] = {}  # when a member's question last caused probes

    @property
    def controllers(self) -> tuple[Controller, ...]:
        """Return what runs in the background for it."""
        return (self.checksum_errors, self.conditions)

    # --- answers --------------------------------------------------------------------------

    def handle_message(self, event: CheckMessage) -> None:
        """Answer a member's question, or note its answer."""
        message = event.message
        if isinstance(message, CheckRequest):
            answer = CheckAnswer(message.number, int(time.time() * 1000), self.conditions.own())
            self._gossip.node.send_to(event.sender, answer)
            self._gossip.transport.flush_soon()
            self.checksum_errors.trigger()  # the next answer is up to date
            self._prompt(event.sender)
            return
        conditions = CheckCondition(message.conditions & sum(CheckCondition))
        self.conditions.note(event.sender, conditions)
        found = self._open.get(message.number)
        if found is None or found[0].node_id != event.sender:
            return
        check, sent_at = self._open.pop(message.number)
        rtt_s = self._gossip.transport.now() - sent_at
        check.conditions |= conditions
        if check.rtt_s is None or rtt_s < check.rtt_s:
            check.rtt_s = rtt_s
            check.clock_ahead_s = message.time_ms / 1000 - (time.time() - rtt_s / 2)
        self._answered.set()

    def _prompt(self, sender: NodeId) -> None:
        """Probe the path to a member that asks, so that it sees both directions at once."""
        now = self._gossip.transport.now()
        if now >= self._prompted.get(sender, -math.inf) + limits.NETCHECK_PROMPT_S:
            if len(self._prompted) >= limits.NETCHECK_PROMPTED_MAX:
                self._prompted.clear()
            self._prompted[sender] = now
            self._paths.check([sender])

    # --- questions ------------------------------------------------------------------------

    async def check(self, peers: Sequence[NodeId], seconds: float) -> list[PeerCheck]:
        """Ask members and probe the paths to them; returns when all is known or time is over."""
        now = self._gossip.transport.now()
        checks = [PeerCheck(node_id, now) for node_id in peers]
        self._paths.check(peers)
        numbers: list[int] = []
        try:
            async with asyncio.timeout(seconds):
                while checks:
                    numbers += self._ask([each for each in checks if not self._has_answered(each)])
                    await self._wait(_REPEAT_S)
                    known = [self._is_known(each) for each in checks]
                    if all(known):
                        break
        except TimeoutError:
            pass
        finally:
            for number in numbers:
                self._open.pop(number, None)
        return checks

    def _ask(self, checks: Sequence[PeerCheck]) -> list[int]:
        """Ask members, every other time by a ping, which an older agent answers, too."""
        numbers = []
        for check in checks:
            check.asked_count += 1
            if check.asked_count % 2 == 0:  # alone: an older agent drops what comes with a question
                self._gossip.node.membership.ping(check.node_id, self._gossip.transport.now())
                continue
            number = next(self._numbers)
            self._open[number] = (check, self._gossip.transport.now())
            self._gossip.node.send_to(check.node_id, CheckRequest(number))
            numbers.append(number)
        self._gossip.transport.flush_soon()
        return numbers

    def _has_answered(self, check: PeerCheck) -> bool:
        """Return whether a member has answered, and its probes arrive if there are any."""
        if check.rtt_s is None:
            return False
        has_path = self._paths.path(check.node_id) is not None
        return not has_path or self._paths.is_heard_since(check.node_id, check.asked_at)

    def _is_known(self, check: PeerCheck) -> bool:
        member = self._gossip.node.membership.member(check.node_id)
        heard_at = None if member is None else member.heard_at
        check.is_heard = heard_at is not None and heard_at >= check.asked_at
        is_old = check.is_heard and check.asked_count > _QUESTIONS_MAX
        return (check.rtt_s is not None or is_old) and self._paths.is_known_since(
            check.node_id, check.asked_at
        )

    async def _wait(self, seconds: float) -> None:
        self._answered.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._answered.wait()
                await asyncio.sleep(limits.PATH_REPORT_DELAY_S * 10)  # the others' answers

    def is_unreported(self, check: PeerCheck) -> bool:
        """Return whether a member has reported none of the probes sent since it was asked."""
        return not self._paths.is_proven_since(check.node_id, check.asked_at)

    def is_unheard(self, check: PeerCheck) -> bool:
        """Return whether a member that was asked to probe this host was not heard to do so."""
        return check.rtt_s is not None and not self._paths.is_heard_since(
            check.node_id, check.asked_at
        )
