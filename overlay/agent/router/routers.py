"""Construct what this host does with routers."""

from __future__ import annotations

from overlay.agent.declared.service import DeclaredService
from overlay.agent.gossip.context import NodeContext
from overlay.agent.networks.participation import ParticipationService
from overlay.agent.router.controller import RouterController
from overlay.agent.router.registry import RouterRegistry
from overlay.agent.router.sandbox_needs import SandboxNeeds


class Routers:
    """The routers of the cluster: changing them, and being on their networks."""

    def __init__(
        self,
        context: NodeContext,
        declared: DeclaredService,
        needs: SandboxNeeds,
        participation: ParticipationService,
    ) -> None:
        assert context.directory.routers is not None, "it has declared objects"
        self.needs = needs
        self.registry = RouterRegistry(context, declared, context.directory.routers)
        self.controller = RouterController(context, needs, participation)
