"""Which groups a host's containers want, from the IGMP and MLD frames that they send.

A host that cannot be sure wants all: in its first seconds, with a router among its containers,
with a port that may send from any MAC, or when its groups change all the time, are more than it
remembers, or are reported faster than they are read.

Owns: how long a membership lasts, and when to ask. Does not: send, or read frames.
"""

from __future__ import annotations

from collections import deque

from overlay import limits
from overlay.core.multicast.groups import is_prunable
from overlay.core.multicast.interest import Interest, interest_of
from overlay.core.multicast.reports import Report
from overlay.model import Ip


class Memberships:
    """The memberships of one network on one host. Times are those of one clock, in seconds."""

    def __init__(self, vni: int, now: float) -> None:
        self._vni = vni
        self._learned = now + limits.MULTICAST_LEARNING_S
        self._until: dict[Ip, float] = {}
        self._router_until = 0.0
        self._changes: deque[float] = deque(maxlen=limits.MULTICAST_CHANGES_MAX)
        self._restless_until = 0.0
        self._query_at = now
        self._asked: dict[Ip, float] = {}  # groups that somebody left, and when to ask for them

    def heard(self, report: Report, now: float, *, is_local: bool) -> None:
        """Take what a frame says; one of another host's container only keeps what is here.

        Such a frame may keep a member here from answering (RFC 2236 section 3).
        """
        if is_local and report.is_router:
            self._router_until = now + limits.MULTICAST_ROUTER_S
        for group in filter(is_prunable, report.joined):
            is_known = group in self._until
            if is_local and not is_known:
                self._changes.append(now)
                if len(self._until) >= limits.MULTICAST_GROUPS_MAX:
                    self.missed(now)
                    continue
            if is_local or is_known:
                self._until[group] = now + limits.MULTICAST_MEMBERSHIP_S
                self._asked.pop(group, None)
        for group in report.left if is_local else ():
            if group in self._until and group not in self._asked:
                self._changes.append(now)
                if len(self._asked) >= limits.MULTICAST_ASKED_MAX:
                    self.missed(now)  # the group stays until nobody answers a general query
                    continue
                self._until[group] = now + limits.MULTICAST_LEAVE_S
                self._asked[group] = now

    def missed(self, now: float) -> None:
        """Note that reports were not heard: by the end of the unrest, members have answered."""
        self._restless_until = now + limits.MULTICAST_UNREST_S

    def queries(self, now: float) -> list[Ip | None]:
        """Return the groups to ask for now; None stands for all of them."""
        due: list[Ip | None] = [group for group, at in self._asked.items() if at <= now]
        for group in due:
            assert group is not None, "None is added below"
            self._asked[group] = now + limits.MULTICAST_LEAVE_S / 2
        if self._query_at <= now:
            is_learning = now < self._learned
            interval_s = limits.MULTICAST_QUERY_INTERVAL_S
            self._query_at = now + (limits.MULTICAST_LEARNING_S / 4 if is_learning else interval_s)
            due.append(None)
        return due

    def interest(self, now: float, *, is_open: bool = False) -> Interest:
        """Return what this host wants; `is_open`: a port of it may send from any MAC."""
        for group in [group for group, until in self._until.items() if until <= now]:
            del self._until[group]
            self._asked.pop(group, None)
        if len(self._changes) == self._changes.maxlen:
            if self._changes[0] > now - limits.MULTICAST_CHANGES_PERIOD_S:
                self._restless_until = now + limits.MULTICAST_UNREST_S
            self._changes.clear()
        wants_all = is_open or now < max(self._learned, self._router_until, self._restless_until)
        found = interest_of(self._vni, set(self._until), wants_all=wants_all)
        if now < self._restless_until:
            return Interest(self._vni, wants_all=True)
        return found

    def next_at(self, now: float) -> float:
        """Return when the interest may change next without a frame, or a query is due.

        That may be `now` or before: a query became due since `queries` was asked.
        """
        ends = (*self._until.values(), self._learned, self._router_until, self._restless_until)
        changes = [at for at in ends if at > now]
        return min([self._query_at, *self._asked.values(), *changes])
