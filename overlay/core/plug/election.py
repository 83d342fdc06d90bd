"""Which of several plugs of one segment is active.

Two active ones would be a loop: VXLAN, segment, and back. So of all plugs of one network and
segment exactly one passes frames, and it keeps doing so as long as it can. A plug opens only if

- it has listened, and heard no other plug of the network on its interface;
- no other one of its segment is active, by the records, on a host whose agent lives;
- none was until lately on a host whose agent does not: that port is open until its lease ends;
- no other one that could open has a lower MAC.

Each activation has a number, the *term*, above all that its host knows. Of two active ones that
hear of each other, by records or probes, the one of the lower term closes, or of equal terms that
with the higher MAC: so a host that returns gives way to the one that took its place. Terms end at
`PLUG_TERM_MAX`, which only a member that lies has: then the MACs alone decide.

Owns: these rules. Does not: know clocks, records or the kernel.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import Enum
from typing import NamedTuple

from overlay import limits
from overlay.model import Mac


class PlugRole(Enum):
    """The role of a plug; the value is the word that people read."""

    LISTENING = "listening"
    ACTIVE = "active"
    STANDBY = "standby"


class Rival(NamedTuple):
    """Another plug of the network, also of this host."""

    host: str  # its name
    mac: Mac  # of its probes
    is_same_segment: bool  # as declared
    is_active: bool
    is_leased: bool
    is_ready: bool
    is_live: bool  # its agent
    term: int = 0  # of its last activation


class Standing(NamedTuple):
    """The role of a plug, and why it has not the other one."""

    role: PlugRole
    why: str = ""


class Election:
    """The role of one plug, decided again at every check."""

    def __init__(self, own: Mac, now: float, term: int = 0, *, was_active: bool = False) -> None:
        """Begin; `was_active`: the port is open, from an agent before this one."""
        self._own = own
        self._listening_since = now
        self._dead_since: dict[Mac, float] = {}
        self.term = term
        self.standing = Standing(PlugRole.ACTIVE if was_active else PlugRole.LISTENING)

    def decide(
        self, rivals: Sequence[Rival], heard: Collection[Mac], now: float, *, is_ready: bool
    ) -> Standing:
        """Return the role from now on.

        `heard` are the MACs of the probes on the interface. Call it every `PLUG_POLL_S`.
        """
        dead = [each for each in rivals if not each.is_live]
        self._dead_since = {each.mac: self._dead_since.get(each.mac, now) for each in dead}
        if not is_ready:
            self._listening_since = now
            why = "the interface is not there, or has no carrier"
            self.standing = Standing(PlugRole.STANDBY, why)
            return self.standing
        why = self._why_closed(rivals, heard, now)
        if why:
            self.standing = Standing(PlugRole.STANDBY, why)
        elif self.is_active:
            pass
        elif now - self._listening_since >= limits.PLUG_LISTEN_S:
            above = 1 + max([self.term, *(each.term for each in rivals)])
            self.term = min(above, limits.PLUG_TERM_MAX)
            self.standing = Standing(PlugRole.ACTIVE)
        else:
            self.standing = Standing(PlugRole.LISTENING)
        return self.standing

    def listen_again(self, now: float) -> None:
        """Listen anew before the port opens: another plug of this host has just opened."""
        self._listening_since = now

    @property
    def is_active(self) -> bool:
        """Return whether the port is open."""
        return self.standing.role is PlugRole.ACTIVE

    def _why_closed(self, rivals: Sequence[Rival], heard: Collection[Mac], now: float) -> str:
        known = {each.mac: each for each in rivals}
        for mac in sorted(heard):
            rival = known.get(mac)  # None: of another network or cluster, which is no loop
            if rival is not None and (not self.is_active or self._is_behind(rival)):
                return f"the plug of {rival.host} is active on the same wire"
        for each in rivals:
            if each.is_same_segment:
                why = self._why_behind(each, now)
                if why:
                    return why
        return ""

    def _is_behind(self, rival: Rival) -> bool:
        """Return whether another active plug stays open, and this one closes."""
        return (rival.term, self._own) > (self.term, rival.mac)

    def _why_behind(self, rival: Rival, now: float) -> str:
        """Return why this plug stays closed because of another one of its segment."""
        if rival.is_live:
            if rival.is_active and (not self.is_active or self._is_behind(rival)):
                return f"the plug of {rival.host} is active"
            is_next = not rival.is_active and rival.is_ready and rival.mac < self._own
            if is_next and not self.is_active:
                return f"the plug of {rival.host} takes precedence"
        elif rival.is_active and not self.is_active:
            if not rival.is_leased:
                return (
                    f"the plug of {rival.host} may be open: its agent died before it had to share"
                )
            if now - self._dead_since[rival.mac] < limits.PLUG_TAKEOVER_S:
                return f"the plug of {rival.host} may be open until its lease ends"
        return ""
