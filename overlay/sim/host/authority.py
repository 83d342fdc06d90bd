"""The authority of a simulated agent: holding it, giving it to others, receiving it.

Owns: disk and messages for `core.keys.holder_choice`, which decides who is given it. As the
simulator does not sign, the authority's key is a constant.
"""

from __future__ import annotations

from typing import Final

from overlay import limits
from overlay.core.events import (
    AuthorityMessage,
    Event,
    InitialSyncDone,
    MemberChanged,
    NodeForgotten,
    StoreChanged,
)
from overlay.core.keys.holder_choice import HolderChoice
from overlay.core.node import Node
from overlay.core.protocol.messages import AuthorityHandover, MemberState
from overlay.core.protocol.records import CLUSTER_SCOPE, AuthorityHolderRecord, Key
from overlay.model import NodeId
from overlay.sim.host.key_rotation import HOLDER, NextCheck, RotatingHost

WANTED: Final = limits.AUTHORITY_HOLDERS_DEFAULT
_HOLDER_KEY: Final[Key] = ("holder", b"")
_KEY: Final = bytes(32)
_GATHER_S: Final = 0.2  # as in the agent: of hosts that join together, the first become holders


class AuthoritySharing:
    """The part of one agent in keeping several holders, from its start to its end."""

    def __init__(self, host: RotatingHost, node: Node) -> None:
        self._host = host
        self._node = node
        self._choice = HolderChoice(node, WANTED)
        self._check = NextCheck(host, self._work)

    def note(self, event: Event) -> None:
        """Check soon if an event concerns members or holders; accept the authority."""
        match event:
            case AuthorityMessage(message=AuthorityHandover()):
                self._host.later(0.0, self._accept)
            case StoreChanged(keys=keys) if _HOLDER_KEY in keys:
                self._check.after(_GATHER_S)
            case MemberChanged() | InitialSyncDone() | NodeForgotten():
                self._check.after(_GATHER_S)
            case _:
                pass

    def _work(self) -> float:
        """Publish what this host holds, and share it; return the seconds until the next check."""
        self._declare()
        return self._share()

    def _accept(self, _: None = None) -> None:
        host = self._host
        if not host.is_holder:
            host.crash_point()
            host.disk.holds_authority = True
            host.environment.tell(f"{host.name}: holds the authority")
            host.crash_point()
        self._declare()
        host.flush()

    def _declare(self) -> None:
        """Publish whether this host holds the authority."""
        host = self._host
        if self._node.may_write(host.schedule.now):
            puts, deletes = ([HOLDER], []) if host.is_holder else ([], [_HOLDER_KEY])
            host.publish(host.commit(CLUSTER_SCOPE, puts, deletes))

    def _share(self) -> float:
        """Give the authority to members that lack it; return the seconds until the next check."""
        if not self._host.is_holder:
            return limits.HOLDER_CHECK_INTERVAL_S
        step = self._choice.next_handover(self._others(), self._host.schedule.now)
        for node_id in step.to:
            self._node.send_to(node_id, AuthorityHandover(_KEY))
        return step.again_s

    def _others(self) -> list[NodeId]:
        """Return the other holders, without those that have left or were forgotten."""
        state_of = self._node.membership.state_of
        return [
            origin
            for origin, value in self._node.store.values(CLUSTER_SCOPE, "holder")
            if isinstance(value, AuthorityHolderRecord)
            and origin != self._host.node_id
            and not self._node.is_forgotten(origin)
            and state_of(origin) is not MemberState.LEFT
        ]
