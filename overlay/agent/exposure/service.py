"""This host on its networks: starts, checks and withdraws endpoints, rules and published ports."""

from __future__ import annotations

from overlay.agent.exposure.controller import ExposureController
from overlay.agent.exposure.declared_host import DeclaredHost
from overlay.agent.exposure.ingress import Ingress
from overlay.agent.exposure.published_ports import PublishedPorts
from overlay.agent.exposure.rules import HostRules
from overlay.agent.process.controller import Controller
from overlay.model import Vni
from overlay.signals import AsyncSignal


class ExposureService:
    """This host on its networks: endpoints, forwarding and published ports."""

    def __init__(
        self,
        controller: ExposureController,
        published_ports: PublishedPorts,
        ingress: Ingress,
        declared: DeclaredHost,
        rules: HostRules,
        endpoint_attached: AsyncSignal[[Vni]],
        endpoint_renamed: AsyncSignal[[Vni, str, str]],
    ) -> None:
        self.controller = controller
        self.published_ports = published_ports
        self.ingress = ingress
        self.declared = declared
        self.rules = rules
        endpoint_attached.connect(controller.endpoint_attached)
        endpoint_attached.connect(published_ports.endpoint_attached)
        endpoint_renamed.connect(published_ports.endpoint_renamed)

    async def start(self) -> None:
        """Adopt what the host has; must run before any pass may prune."""
        await self.published_ports.start()
        await self.ingress.start()
        await self.controller.start()

    @property
    def controllers(self) -> tuple[Controller, ...]:
        """Return the controllers to run, in order of their start."""
        ports = (self.published_ports, self.ingress, self.declared)
        return self.rules, self.controller, *ports

    async def reconcile_all(self) -> None:
        """Reconcile all of it now."""
        await self.controller.reconcile_all()
        await self.rules.attempt()

    async def differences(self) -> list[str]:
        """Return how the host's namespace differs from what it should be."""
        return [*await self.controller.differences(), *await self.rules.differences()]

    async def withdraw(self) -> None:
        """Undo all of it; called before leaving the cluster."""
        await self.controller.withdraw_all()

    def close(self) -> None:
        """Close the sockets; all of it stays in force."""
        self.rules.close()
