"""Whether this host forwards between its networks and the world: its sysctls, and the rules' part.

Owns: that sysctls and rules change together, in the order in which the host is never an open
router. Must not know: which networks have an end, and why (`exposure`).
"""

from __future__ import annotations

from pathlib import Path

from overlay.agent.exposure.host_endpoints import HostEnds
from overlay.agent.exposure.rules import HostRules
from overlay.agent.process.event_log import Journal
from overlay.agent.process.kernel_thread import KernelThread
from overlay.kernel.host import ip_forwarding


class HostForwarding:
    """Follows the ends there are."""

    def __init__(
        self,
        ends: HostEnds,
        rules: HostRules,
        kernel: KernelThread,
        journal: Journal,
        run_dir: Path,
    ) -> None:
        self._ends = ends
        self._rules = rules
        self._kernel = kernel
        self._journal = journal
        self._run_dir = run_dir

    async def follow(self) -> None:
        """Bring the host's sysctls and rules up to the ends there are."""
        own, has_ipv6 = self._ends.names()
        if own:
            done = await self._kernel.call(ip_forwarding.enable, self._run_dir, own, ipv6=has_ipv6)
            self._rules.set_opened(done.opened)
            if done.changed:
                self._journal.record("exposure", f"this host forwards now: {_short(done.changed)}")
        else:
            await self._forward_no_more()
        await self._rules.apply()

    async def _forward_no_more(self) -> None:
        """Set the host's sysctls back, before the rules go that keep it from being a router."""
        restored = await self._kernel.call(ip_forwarding.restore, self._run_dir)
        self._rules.set_opened(())
        if restored:
            self._journal.record("exposure", f"this host forwards no more: {_short(restored)}")

    async def lacking(self) -> list[str]:
        """Return the sysctls that are not as they should be."""
        own, has_ipv6 = self._ends.names()
        if not own:
            return []
        return await self._kernel.call(ip_forwarding.lacking, self._run_dir, own, ipv6=has_ipv6)

    async def differences(self) -> list[str]:
        """Return the same in words."""
        return [_readable(f"net/{name} was altered") for name in await self.lacking()]

    async def withdraw(self) -> None:
        """Before leaving the cluster: take back the sysctls and rules of ours."""
        await self._forward_no_more()
        await self._rules.remove()


def _short(names: list[str]) -> str:
    shown = ", ".join(_readable(f"net/{name}") for name in names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def _readable(text: str) -> str:
    """Return a text that any file takes: interfaces of others may have names that are no text."""
    return text.encode("utf-8", "backslashreplace").decode()
