"""Keep the native path off where it would pass by rules of this host's own firewall.

Owns: when the firewall is looked at: after changes, and at each interval; what could not be read
counts as judging. `native_path = "on"` is not asked about.
Does not: compare rules with packets (`kernel.nft.firewall`), or switch the path.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, NamedTuple

from overlay.agent.dataplane import watch
from overlay.agent.dataplane.arrival_paths import ArrivalPaths
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.controller import Controller
from overlay.errors import OverlayError
from overlay.kernel.nft.firewall.host_firewall import judging_rule
from overlay.model import Ip

_SETTLE_S: Final = 0.2  # Docker writes its rules one by one
# Between two looks, as many times as long as one takes: others wait for the kernel thread.
_REST, _REST_MAX_S = 20, 2.0
_JUDGES: Final = (
    'the host\'s firewall judges VXLAN packets ({}); native_path = "on" would bypass it'
)
_UNREADABLE: Final = "the host's firewall could not be read ({}), so it may judge VXLAN packets"


class _Question(NamedTuple):
    """Whose packets are asked about."""

    own: Ip
    members: frozenset[Ip]
    interfaces: frozenset[int]  # that lead to members
    interface: str  # with this host's address; rules have names, and it may have a new one


class HostFirewall(Controller):
    """Looks whether the firewall of this host judges the VXLAN packets of members."""

    name = "host firewall"
    settle_s = _SETTLE_S

    def __init__(
        self,
        context: NodeContext,
        paths: ArrivalPaths,
        interval_s: float,
        follow: Callable[[str], Awaitable[None]] | None,
    ) -> None:
        """Make a controller that calls `follow` with what judges, or nothing does.

        Without `follow` it is not asked.
        """
        super().__init__(context.event_log)
        self.interval_s = interval_s
        self._gossip = context.gossip
        self._directory = context.directory
        self._kernel = context.kernel
        self._follow = follow
        self._paths = paths
        self._asked: _Question | None = None  # by the last pass
        self._took_s = 0.0
        paths.determined.connect(self._follow_paths)

    def _question(self) -> _Question:
        indexes = frozenset(path.interface for path in self._paths.known or ())
        members = self._directory.view.vteps()
        return _Question(self._gossip.card.address, members, indexes, self._paths.interface)

    def _follow_paths(self) -> None:
        if self._question() != self._asked:
            self.trigger()

    @contextlib.asynccontextmanager
    async def prepare(self) -> AsyncIterator[None]:
        """Watch for changes of other programs' tables."""
        if self._follow is None:
            yield
            return
        with watch.watch_tables_of_others(self.trigger):
            yield

    def rest_s(self) -> float:
        """Rest long enough that thousands of rules that change all the time cost little."""
        return min(_REST * self._took_s, _REST_MAX_S)

    async def reconcile(self) -> None:
        """Look at the firewall, and switch the path by it."""
        if self._follow is None:
            return
        self._asked = self._question()
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            port = self._gossip.cluster.vxlan_port
            found = await self._kernel.call(judging_rule, *self._asked, port)
            why = _JUDGES.format(found) if found else ""
        except OverlayError as error:
            why = _UNREADABLE.format(error.why or error.what)
        except OSError as error:
            why = _UNREADABLE.format(error.strerror or error)
        self._took_s = loop.time() - started
        await self._follow(why)
