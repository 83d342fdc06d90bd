"""Whether this host forwards between its networks and the world: its sysctls, and the rules' part.

Owns: that sysctls and rules change together, in the order in which the host is never an open
router. Must not know: which networks have an end, and why (`exposure`).
"""

from __future__ import annotations

from pathlib import Path

from overlay.agent.exposure.host_endpoints import HostEndpoints
from overlay.agent.exposure.rules import HostRules
from overlay.agent.process.event_log import EventLog
from overlay.agent.process.kernel_thread import KernelThread
from overlay.kernel.host import ip_forwarding


class HostForwarding:
    """Follows the ends there are."""

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

    async def apply(self) -> None:
        """Bring the host's sysctls and rules up to the ends there are."""
        own, has_ipv6 = self._host_endpoints.names()
        if own:
            done = await self._kernel.call(
                ip_forwarding.enable_forwarding, self._run_dir, own, ipv6=has_ipv6
            )
            self._rules.set_opened(done.opened)
            if done.changed:
                self._event_log.record(
                    "exposure", f"this host forwards now: {_short(done.changed)}"
                )
        else:
            await self._stop_forwarding()
        await self._rules.apply()

    async def _stop_forwarding(self) -> None:
        """Set the host's sysctls back, before the rules go that keep it from being a router."""
        restored = await self._kernel.call(ip_forwarding.restore_sysctls, self._run_dir)
        self._rules.set_opened(())
        if restored:
            self._event_log.record("exposure", f"this host forwards no more: {_short(restored)}")

    async def missing_sysctls(self) -> list[str]:
        """Return the sysctls that are not as they should be."""
        own, has_ipv6 = self._host_endpoints.names()
        if not own:
            return []
        return await self._kernel.call(
            ip_forwarding.missing_sysctls, self._run_dir, own, ipv6=has_ipv6
        )

    async def differences(self) -> list[str]:
        """Return the same in words."""
        return [_readable(f"net/{name} was altered") for name in await self.missing_sysctls()]

    async def withdraw(self) -> None:
        """Before leaving the cluster: take back the sysctls and rules of ours."""
        await self._stop_forwarding()
        await self._rules.remove()


def _short(names: list[str]) -> str:
    shown = ", ".join(_readable(f"net/{name}") for name in names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def _readable(text: str) -> str:
    """Return a text that any file takes: interfaces of others may have names that are no text."""
    return text.encode("utf-8", "backslashreplace").decode()
