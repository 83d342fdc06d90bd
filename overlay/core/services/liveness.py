"""Which hosts of backends answer echo requests, sooner known than by gossip.

In the spirit of BFD (RFC 5880): a host sends each of the others a request every
`limits.LIVENESS_INTERVAL_S`, and some in a row without an answer tell that the other is silent. A
kernel answers, so this is about hosts and not about their agents.

Owns: what answers mean, and how they count beside membership. Both ways this is a judgement of the
host that asks, and only about new connections. Does not: send anything, or know services.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from overlay import limits
from overlay.core.protocol.messages import MemberState
from overlay.model import NodeId


class LivenessChange(NamedTuple):
    """A host for which another state counts now, by what it answers or how long."""

    node_id: NodeId
    is_silent: bool


class _Request(NamedTuple):
    number: int
    sent_at: float


class _Verdict(Enum):
    UNPROVEN = "unproven"  # too few answers yet: left to membership alone
    ANSWERS = "answers"
    SILENT = "silent"


class _Host:
    """One host's answers."""

    def __init__(self, state: MemberState) -> None:
        self.state = state
        self.verdict = _Verdict.UNPROVEN
        self.kept_until = -math.inf  # it counts as alive although its agent does not answer
        self._silent_at = -math.inf
        self._number = 0
        self._open: deque[_Request] = deque(maxlen=limits.LIVENESS_OPEN_MAX)
        self._missed_through = 0  # the number of the newest request that is missed
        self._answered_through = 0
        self._in_time = 0  # answers in a row

    def judge(self, now: float) -> bool | None:
        """Judge the requests whose time is up; return whether it is silent if that has changed."""
        for each in self._open:
            is_due = now - each.sent_at >= limits.LIVENESS_ANSWER_S
            if is_due and each.number > max(self._missed_through, self._answered_through):
                self._missed_through, self._in_time = each.number, 0
        misses = self._missed_through - self._answered_through
        if self.verdict is _Verdict.ANSWERS and misses >= limits.LIVENESS_MISSES:
            self.verdict, self.kept_until, self._silent_at = _Verdict.SILENT, -math.inf, now
            return True
        is_contradicted = self.verdict is _Verdict.SILENT and self.state is MemberState.ALIVE
        if is_contradicted and now - self._silent_at >= limits.LIVENESS_SILENCE_MAX_S:
            self.verdict = _Verdict.UNPROVEN  # somebody drops the requests: they tell nothing
            return False
        return None

    def request(self, now: float) -> int:
        """Return the number of the next request, sent now."""
        self._number += 1
        self._open.append(_Request(self._number, now))
        return self._number

    def answer(self, number: int, now: float) -> bool:
        """Take the answer to a request; return whether the host was silent until now."""
        found = next((each for each in self._open if each.number == number), None)
        if found is None:
            return False  # too old, or a repetition
        self._open.remove(found)
        self._answered_through = max(self._answered_through, number)
        is_in_time = now - found.sent_at < limits.LIVENESS_ANSWER_S
        self._in_time = self._in_time + 1 if is_in_time else 0
        was_silent = self.verdict is _Verdict.SILENT
        if was_silent:
            self.verdict = _Verdict.UNPROVEN
        if self._in_time >= limits.LIVENESS_PROOF:
            self.verdict = _Verdict.ANSWERS
        return was_silent


class HostLiveness:
    """The state of the hosts that this host watches.

    A host is judged only after `limits.LIVENESS_PROOF` answers in a row that came in time, so one
    behind a firewall that drops requests, or far away, is left to membership. The first answer of
    a silent host ends its silence; then it must prove itself again, so that this cannot flap.
    Membership is right about a host that it finds alive for `limits.LIVENESS_SILENCE_MAX_S`.
    """

    def __init__(self) -> None:
        self._hosts: dict[NodeId, _Host] = {}

    def watch(self, states: Mapping[NodeId, MemberState]) -> None:
        """Watch these hosts, which membership holds for so; as many as the limit allows.

        Those that are dead, or have left, are watched no further unless they are kept.
        """
        living = (MemberState.ALIVE, MemberState.SUSPECT)
        wanted = sorted(
            node_id
            for node_id, state in states.items()
            if state in living or self._is_kept(node_id)
        )[: limits.LIVENESS_HOSTS_MAX]
        self._hosts = {
            node_id: self._hosts.get(node_id) or _Host(states[node_id]) for node_id in wanted
        }

    @property
    def hosts(self) -> tuple[NodeId, ...]:
        """Return the hosts that are watched."""
        return tuple(self._hosts)

    def member_changed(self, node_id: NodeId, state: MemberState, now: float) -> bool:
        """Take a host's new state by membership; return whether it is dead there and kept here.

        One that answers here is kept for a while when its agent stops answering: an agent that
        restarts takes no backend away. A host that ever falls silent meanwhile is not.
        """
        host = self._hosts.get(node_id)
        if host is None:
            return False
        before, host.state = host.state, state
        if state in (MemberState.ALIVE, MemberState.LEFT):
            host.kept_until = -math.inf
        elif before is MemberState.ALIVE and host.verdict is _Verdict.ANSWERS:
            host.kept_until = now + limits.LIVENESS_AGENTLESS_MAX_S
        return state is MemberState.DEAD and self._is_kept(node_id)

    def tick(self, now: float) -> tuple[list[tuple[NodeId, int]], list[LivenessChange]]:
        """Return the requests to send now, each with its number, and what changed.

        Answers that have come must be taken before.
        """
        changes = []
        for node_id, host in self._hosts.items():
            if -math.inf < host.kept_until <= now:
                host.kept_until = -math.inf
                changes.append(LivenessChange(node_id, is_silent=False))
            is_silent = host.judge(now)
            if is_silent is not None:
                changes.append(LivenessChange(node_id, is_silent))
        return [(node_id, host.request(now)) for node_id, host in self._hosts.items()], changes

    def answer(self, node_id: NodeId, number: int, now: float) -> LivenessChange | None:
        """Take an answer; return the change if the host was silent until now."""
        host = self._hosts.get(node_id)
        if host is None or not host.answer(number, now):
            return None
        return LivenessChange(node_id, is_silent=False)

    def state_of(self, node_id: NodeId, state: MemberState) -> MemberState:
        """Return the state of a host that counts for new connections, given membership's."""
        host = self._hosts.get(node_id)
        if host is None:
            return state
        if state is MemberState.ALIVE and host.verdict is _Verdict.SILENT:
            return MemberState.SUSPECT
        if state in (MemberState.SUSPECT, MemberState.DEAD) and self._is_kept(node_id):
            return MemberState.ALIVE
        return state

    def _is_kept(self, node_id: NodeId) -> bool:
        host = self._hosts.get(node_id)
        return host is not None and host.kept_until > -math.inf
