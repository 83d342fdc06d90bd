"""Exposed networks of a declared state."""

from __future__ import annotations

from collections.abc import Iterator

from overlay.agent.apply.host.items import exposure_item, exposure_of
from overlay.agent.declared.service import DeclaredService
from overlay.agent.exposure.service import ExposureService
from overlay.agent.records.directory import Directory
from overlay.core.apply.items import DeclaredItem
from overlay.core.apply.plan import PlannedStep
from overlay.core.declared.host_objects import DeclaredExposure, existing


class ExposureObjects:
    """Which host is on which network: declared for all hosts, and by command on this one."""

    def __init__(
        self, directory: Directory, declared: DeclaredService, exposure: ExposureService
    ) -> None:
        self._directory = directory
        self._declared = declared
        self._exposure = exposure

    def present(self) -> Iterator[DeclaredItem]:
        """Yield what is declared, and what was decided by command on this host."""
        yield from map(exposure_item, existing(self._declared.objects, DeclaredExposure))
        preferences = self._exposure.controller.eligibility.preferences
        for vni, exposed in preferences.by_command().items():
            network = self._directory.network_by_vni(vni)
            if network is not None and vni not in preferences.declared():
                host = self._directory.node_name(self._directory.own)
                yield exposure_item(DeclaredExposure(host, network.name, exposed))

    async def check(self, step: PlannedStep) -> None:
        """Raise ConflictError where this host cannot be on a network; other hosts report it."""
        wanted = exposure_of(step.item)
        network = self._directory.find_network(wanted.network)
        is_here = wanted.host == self._directory.node_name(self._directory.own)
        if step.action != "remove" and wanted.exposed and is_here and network is not None:
            controller = self._exposure.controller
            if not controller.host_endpoints.of(network.vni):
                await controller.eligibility.require_exposable(network)

    async def carry_out(self, step: PlannedStep) -> None:
        """Declare an exposure in place of a command's on this host, or end it."""
        wanted = exposure_of(step.item)
        if step.action == "remove":
            self._declared.remove(wanted.kind, wanted.object_name)
        else:
            self._declared.put(wanted.kind, wanted.object_name, wanted.body())
        if wanted.host == self._directory.node_name(self._directory.own):
            await self._exposure.declared.attempt()
