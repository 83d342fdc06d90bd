"""This host on its networks: its endpoints, forwarding, rules and published ports.

Owns: the construction of these, their common start, check and withdrawal. Does not: decide which
network is exposed (`eligibility`).
"""

from __future__ import annotations

from overlay.agent.exposure.context import ExposureContext
from overlay.agent.exposure.controller import ExposureController
from overlay.agent.exposure.declared_host import DeclaredHost
from overlay.agent.exposure.eligibility import Eligibility
from overlay.agent.exposure.gate.translation_gate import TranslationGate
from overlay.agent.exposure.host_endpoints import HostEndpoints
from overlay.agent.exposure.ingress import Ingress
from overlay.agent.exposure.ip_forwarding import HostForwarding
from overlay.agent.exposure.published_ports import PublishedPorts
from overlay.agent.exposure.rules import HostRules
from overlay.agent.process.config import Config
from overlay.agent.process.controller import Controller
from overlay.agent.process.port_ranges import parse_port_ranges
from overlay.core.declared.objects import DeclaredObjects


class ExposureService:
    """The parts of exposure on this node."""

    def __init__(self, context: ExposureContext, objects: DeclaredObjects, config: Config) -> None:
        node, attachments = context.node, context.attachments
        reconciler, interval_s = context.forwarding.reconciler, config.reconcile_interval_s
        allowed = parse_port_ranges(config.cluster_ports)
        node_id = node.gossip.node_id
        self.gate = TranslationGate(node_id, node.kernel, config.gate, config.run_dir)
        self.rules = HostRules(node_id, node.kernel, node.event_log, self.gate, interval_s)
        self.host_endpoints = HostEndpoints(node, context.allocator, reconciler, self.rules)
        self.controller = ExposureController(
            context,
            self.host_endpoints,
            Eligibility(
                context.preferences, node.directory, self.host_endpoints, node.kernel, attachments
            ),
            HostForwarding(
                self.host_endpoints, self.rules, node.kernel, node.event_log, config.run_dir
            ),
        )
        self.published_ports = PublishedPorts(
            node,
            self.controller,
            self.rules,
            attachments,
            context.default_route_moved,
            interval_s,
        )
        self.ingress = Ingress(
            node, self.controller, self.rules, self.published_ports, attachments, allowed
        )
        self.published_ports.places_changed.connect(self.ingress.trigger)
        context.default_route_moved.connect(self.ingress.trigger)
        self.declared = DeclaredHost(node, objects, self.controller, self.published_ports, allowed)
        self.rules.gate_changed.connect(self.controller.trigger)
        context.endpoint_attached.connect(self.controller.endpoint_attached)
        context.endpoint_attached.connect(self.published_ports.endpoint_attached)
        context.endpoint_renamed.connect(self.published_ports.endpoint_renamed)

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
