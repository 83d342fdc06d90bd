"""Connects overlay networks to the host and beyond: endpoints, rules and published ports.

Owns: when each of them is started, checked and withdrawn.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from functools import partial

from overlay.agent.exposure.controller import ExposureController
from overlay.agent.exposure.published_ports import PublishedPorts
from overlay.agent.exposure.rules import HostRules
from overlay.model import Vni
from overlay.signals import AsyncSignal


class ExposureService:
    """This host's side of its networks."""

    def __init__(
        self,
        controller: ExposureController,
        published_ports: PublishedPorts,
        rules: HostRules,
        interval_s: float,
        endpoint_attached: AsyncSignal[[Vni]],
    ) -> None:
        self.controller = controller
        self.published_ports = published_ports
        self.rules = rules
        self._interval_s = interval_s
        endpoint_attached.connect(self._on_endpoint_attached)

    async def _on_endpoint_attached(self, vni: Vni) -> None:
        """Let what leads in and out work before the attach of a container returns."""
        await self.controller.endpoint_attached(vni)
        if self.published_ports.has_port_on(vni):
            await self.published_ports.refresh()

    async def start(self) -> None:
        """Adopt what is there; before any pass may prune."""
        await self.published_ports.start()
        await self.controller.start()

    def tasks(self) -> Iterator[tuple[Callable[[], Awaitable[None]], str]]:
        """Yield what runs in the background, and its name."""
        yield self.rules.run, "host rules"
        yield partial(self.controller.run, self._interval_s), "exposure"
        yield partial(self.published_ports.run, self._interval_s), "publishing"

    async def reconcile_all(self) -> None:
        """Look at all of it now, and put it right."""
        await self.controller.reconcile_all()
        await self.rules.apply(doubted=True)

    async def differences(self) -> list[str]:
        """Return how the host's namespace differs from what it should be."""
        return [*await self.controller.differences(), *await self.rules.differences()]

    async def withdraw(self) -> None:
        """Before leaving the cluster: undo all of it."""
        await self.controller.withdraw_all()

    def close(self) -> None:
        """Let go; all of it stays in force."""
        self.rules.close()
