"""Keep the host's own traffic out of connection tracking, while nobody else needs that.

The host's rules translate, so the kernel would track every connection of the host. All that the
rules do not concern is exempt (`kernel.tracking.untracked_traffic`), unless another program's rules
depend on tracking (`kernel.tracking.tracking_users`).

Owns: when the exemption is in force. Does not: decide what must be tracked
(`core.tracking.tracked_traffic`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from overlay import limits
from overlay.agent.dataplane import watch
from overlay.agent.exposure.rules import HostRules
from overlay.agent.process.controller import Controller
from overlay.agent.process.event_log import EventLog
from overlay.agent.process.kernel_thread import KernelThread
from overlay.core.dataplane.host_rules import HostState
from overlay.core.tracking.tracked_traffic import NetworkTraffic, TrackedPort, traffic_of
from overlay.errors import OverlayError
from overlay.kernel.nft import host_table, underlay_filter
from overlay.kernel.services import client_table
from overlay.kernel.tracking import untracked_traffic
from overlay.kernel.tracking.tracking_users import TrackingUsers
from overlay.kernel.tracking.translated_ports import translated_ports
from overlay.kernel.tracking.untracked_traffic import UntrackedTraffic
from overlay.model import NodeId


class TrackingExemption(Controller):
    """Exempts the host's own traffic from tracking, or withdraws that.

    A port stays tracked when it is unpublished: its connections end by themselves.
    """

    name = "tracking of the host's own traffic"
    event_kind = "host rules"
    settle_s = watch.SETTLE_S
    runs_at_start = False  # the first rules trigger it
    interval_s = limits.TRACKING_CHECK_INTERVAL_S

    def __init__(
        self, node_id: NodeId, kernel: KernelThread, event_log: EventLog, rules: HostRules
    ) -> None:
        super().__init__(event_log)
        self.rules = rules
        self._node_id = node_id
        self._kernel = kernel
        self._own_tables = frozenset(
            module.table_name(node_id)
            for module in (client_table, host_table, underlay_filter, untracked_traffic)
        )
        self._state: HostState | None = None  # of the host's rules
        self._ports: frozenset[TrackedPort] = frozenset()  # tracked until the exemption ends
        self._table: UntrackedTraffic | None = None  # None: everything is tracked
        self._exempting: NetworkTraffic | None = None  # what the table leaves tracked
        self._reason = ""  # why everything is tracked
        self._lock = asyncio.Lock()
        rules.before_write.connect(self._prepare_write)
        rules.written.connect(self.trigger)

    @property
    def is_in_force(self) -> bool:
        """Return whether the host's own traffic is exempt."""
        return self._table is not None

    async def _prepare_write(self, state: HostState | None) -> None:
        """Have everything tracked that the rules will translate, before they do."""
        async with self._lock:
            self._state = state
            if self._table is None:
                return
            if state is None:
                self._withdraw("")
                return
            try:
                await self._write(self._table, state)
            except (OverlayError, OSError) as error:
                self._withdraw(str(error))

    async def reconcile(self) -> None:
        """Begin or end the exemption, by what other programs have."""
        async with self._lock:
            if self._state is None:
                return
            try:
                user = await self._kernel.call(_first_user, self._own_tables)
                if user is not None:
                    self._withdraw(user)
                elif self._table is None:
                    await self._begin(self._state)
            except (OverlayError, OSError) as error:
                self._withdraw(str(error))

    async def _begin(self, state: HostState) -> None:
        self._ports = await self._kernel.call(translated_ports)
        table = await self._kernel.call(UntrackedTraffic, self._node_id)
        try:
            await self._write(table, state)
        except BaseException:
            table.close()
            raise
        self._table, self._reason = table, ""
        self._event_log.record("host rules", "this host's own traffic is not tracked")

    async def _write(self, table: UntrackedTraffic, state: HostState) -> None:
        traffic = traffic_of(state)
        self._ports |= traffic.ports
        wanted = traffic.with_ports(self._ports)
        if table is not self._table or wanted != self._exempting:
            await self._kernel.call(table.write, wanted)
            self._exempting = wanted

    def _withdraw(self, reason: str) -> None:
        """Have everything tracked; say why, once."""
        if self._table is not None:
            self._table.close()
            self._table = self._exempting = None
            self._ports = frozenset()
        if reason and reason != self._reason:
            text = f"this host's own traffic is tracked: {reason}"
            self._event_log.record("host rules", text, level=logging.INFO)
        self._reason = reason

    @contextlib.asynccontextmanager
    async def prepare(self) -> AsyncIterator[None]:
        """Watch all tables, while the exemption is in force."""

        def wake() -> None:
            if self.is_in_force:
                self.trigger()

        with watch.watch_tables(None, self.rules.own_ports, wake):
            yield

    def close(self) -> None:
        """End the exemption: nobody would withdraw it."""
        self._withdraw("")


def _first_user(own_tables: frozenset[str]) -> str | None:
    users = TrackingUsers()
    try:
        return users.first(own_tables)
    finally:
        users.close()
