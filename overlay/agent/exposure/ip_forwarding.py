"""Let this host forward between its networks and the outside: sysctls and rules.

Owns: that sysctls and rules change together, in the order in which the host is never an open
router.
Does not: know which networks are exposed, and why (`controller`).
"""

from __future__ import annotations

from pathlib import Path

from overlay.agent.exposure.host_endpoints import HostEndpoints
from overlay.agent.exposure.rules import HostRules
from overlay.agent.process.event_log import EventLog
from overlay.agent.process.kernel_thread import KernelThread
from overlay.core.dataplane.host_rules import ForwardingInterface
from overlay.kernel.host import ip_forwarding
from overlay.kernel.host.sysctl_record import SysctlRecord
from overlay.kernel.nft.host.opened_interfaces import read_opened


class HostForwarding:
    """Enables forwarding as long as this host has an endpoint on a network."""

    def __init__(
        self,
        host_endpoints: HostEndpoints,
        rules: HostRules,
        kernel: KernelThread,
        event_log: EventLog,
        run_dir: Path,
    ) -> None:
        self._host_endpoints = host_endpoints
        self._rules = rules
        self._kernel = kernel
        self._event_log = event_log
        self._run_dir = run_dir
        self._recorded = SysctlRecord()  # the sysctls' values before, as on disk
        # By the table of the process before, until it is recorded; None: not read yet.
        self._guarded: frozenset[ForwardingInterface] | None = None

    async def apply(self) -> None:
        """Set the host's sysctls and rules for the endpoints that it has."""
        own, has_ipv6 = self._host_endpoints.names()
        guarded = await self._read_guarded()
        if own:
            done = await self._kernel.call(
                ip_forwarding.enable_forwarding,
                self._run_dir,
                own,
                ipv6=has_ipv6,
                known=self._recorded,
                guarded=guarded,
            )
            self._recorded, self._guarded = done.recorded, frozenset()
            self._rules.set_opened(done.opened)
            if done.changed:
                text = f"enabled forwarding: {_short(done.changed)}"
                self._event_log.record("exposure", text)
        else:
            await self._stop_forwarding()
        await self._rules.apply()

    async def _read_guarded(self) -> frozenset[ForwardingInterface]:
        """Return what the table of the process before guards; this one's guards it, too."""
        if self._guarded is None:
            tables = await self._kernel.call(read_opened)
            self._guarded = tables.get(self._rules.table_name, frozenset())
            self._rules.set_opened(self._guarded)
        return self._guarded

    async def remove_leftovers(self) -> None:
        """Remove the rules of a previous process where no network is exposed now."""
        await self._rules.remove_leftovers()

    async def _stop_forwarding(self) -> None:
        """Restore the sysctls before removing the rules that keep this host from routing."""
        guarded = await self._read_guarded()
        restored = await self._kernel.call(
            ip_forwarding.restore_sysctls, self._run_dir, known=self._recorded, guarded=guarded
        )
        self._recorded, self._guarded = SysctlRecord(), frozenset()
        self._rules.set_opened(())
        if restored:
            self._event_log.record("exposure", f"disabled forwarding: {_short(restored)}")

    async def missing_sysctls(self) -> list[str]:
        """Return the names of the sysctls that differ from what they should be."""
        own, has_ipv6 = self._host_endpoints.names()
        if not own:
            return []
        return await self._kernel.call(
            ip_forwarding.missing_sysctls,
            self._run_dir,
            own,
            ipv6=has_ipv6,
            routes_localnet=self._rules.routes_localnet,
        )

    async def differences(self) -> list[str]:
        """Describe the sysctls that differ from what they should be."""
        return [_readable(f"net/{name} was altered") for name in await self.missing_sysctls()]

    async def withdraw(self) -> None:
        """Restore the sysctls and remove the rules; called before leaving the cluster."""
        await self._stop_forwarding()
        await self._rules.remove()


def _short(names: list[str]) -> str:
    shown = ", ".join(_readable(f"net/{name}") for name in names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def _readable(text: str) -> str:
    """Return a valid UTF-8 text: other interfaces may have names that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()
