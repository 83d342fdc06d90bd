"""Published ports of a declared state."""

from __future__ import annotations

from collections.abc import Iterator

from overlay.agent.apply.host.items import local_port, port_item, port_of
from overlay.agent.declared.service import DeclaredService
from overlay.agent.exposure.service import ExposureService
from overlay.agent.records.directory import Directory
from overlay.core.apply.items import DeclaredItem
from overlay.core.apply.plan import PlannedStep
from overlay.core.dataplane.published_port import PublishedPort
from overlay.core.declared.host_objects import DeclaredPort, existing
from overlay.model import Vni


class PortObjects:
    """Published ports: declared for all hosts, and by command on this one."""

    def __init__(
        self, directory: Directory, declared: DeclaredService, exposure: ExposureService
    ) -> None:
        self._directory = directory
        self._declared = declared
        self._exposure = exposure

    def present(self) -> Iterator[DeclaredItem]:
        """Yield what is declared, and what was published by command on this host."""
        found = {each.object_name: each for each in existing(self._declared.objects, DeclaredPort)}
        host = self._directory.node_name(self._directory.own)
        for port in self._exposure.published_ports.by_command():
            network = self._directory.network_by_vni(port.vni)
            if network is not None:
                by_command = local_port(host, network.name, port)
                found.setdefault(by_command.object_name, by_command)
        yield from map(port_item, found.values())

    async def check(self, step: PlannedStep) -> None:
        """Raise ConflictError for a port of this host that is taken; other hosts report it."""
        wanted = port_of(step.item)
        wanted.body()
        if step.action == "create" and self._is_here(wanted):
            network = self._directory.find_network(wanted.network)
            port = PublishedPort(
                wanted.protocol,
                wanted.host_ip,
                wanted.host_port,
                Vni(0) if network is None else network.vni,
                wanted.name,
                wanted.port,
            )
            await self._exposure.published_ports.require_free(port, network)

    async def carry_out(self, step: PlannedStep) -> None:
        """Declare a port in place of a command's on this host, or unpublish it."""
        wanted = port_of(step.item)
        if step.action == "remove":
            self._declared.remove(wanted.kind, wanted.object_name)
        else:
            self._declared.put(wanted.kind, wanted.object_name, wanted.body())
        if self._is_here(wanted):
            await self._exposure.declared.attempt()

    def _is_here(self, port: DeclaredPort) -> bool:
        return port.host == self._directory.node_name(self._directory.own)
