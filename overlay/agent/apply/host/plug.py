"""Plugs of a declared state."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from overlay import limits
from overlay.agent.apply.host.items import plug_item, plug_of
from overlay.agent.declared.service import DeclaredService
from overlay.agent.plug.service import PlugService
from overlay.agent.records.directory import Directory
from overlay.core.apply.items import DeclaredItem
from overlay.core.apply.plan import PlannedStep
from overlay.core.declared.host_objects import DeclaredPlug, existing
from overlay.errors import ConflictError

_POLL_S = 0.1


class PlugObjects:
    """Which interface of a host is in which network: declared for all, by command on this one."""

    def __init__(self, directory: Directory, declared: DeclaredService, plugs: PlugService) -> None:
        self._directory = directory
        self._declared = declared
        self._plugs = plugs

    def present(self) -> Iterator[DeclaredItem]:
        """Yield what is declared, and what was plugged by command on this host."""
        found = {each.object_name: each for each in existing(self._declared.objects, DeclaredPlug)}
        host = self._directory.node_name(self._directory.own)
        for plug in self._plugs.controller.plugged:
            network = self._directory.network_by_vni(plug.vni)
            if network is not None and not plug.is_declared:
                here = DeclaredPlug(host, network.name, plug.interface, plug.segment)
                found.setdefault(here.object_name, here)
        yield from map(plug_item, found.values())

    async def check(self, step: PlannedStep) -> None:
        """Raise the error with which this host would not plug an interface; others report it."""
        wanted = plug_of(step.item)
        wanted.body()
        network = self._directory.find_network(wanted.network)
        if step.action == "create" and self._is_here(wanted) and network is not None:
            await self._plugs.require_declarable(network, wanted.interface, wanted.segment)

    async def carry_out(self, step: PlannedStep) -> None:
        """Declare a plug, or end it and wait until its host has given the interface back."""
        wanted = plug_of(step.item)
        if step.action != "remove":
            self._declared.put(wanted.kind, wanted.object_name, wanted.body())
        else:
            self._declared.remove(wanted.kind, wanted.object_name)
        if self._is_here(wanted):
            await self._plugs.declared.attempt()
            network = self._directory.find_network(wanted.network)
            if step.action == "remove" and network is not None:  # also one that a command made
                await self._plugs.unplug(network, wanted.interface)
        elif step.action == "remove":
            await self._wait_until_unplugged(wanted)

    async def _wait_until_unplugged(self, wanted: DeclaredPlug) -> None:
        """Wait for a live host's record to go, since its network may be removed next."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limits.PLUG_REMOVAL_WAIT_S
        while self._is_plugged(wanted):
            if loop.time() >= deadline:
                raise ConflictError(
                    f"{wanted.interface} is plugged into {wanted.network} on {wanted.host}",
                    why="that host has not given it back yet, and does so when it is up again",
                    hint="Apply the file again then; 'overlayd members' shows its state",
                )
            await asyncio.sleep(_POLL_S)

    def _is_plugged(self, wanted: DeclaredPlug) -> bool:
        network, name_of = self._directory.find_network(wanted.network), self._directory.node_name
        return network is not None and any(
            (name_of(each.origin), each.plug.interface) == (wanted.host, wanted.interface)
            for each in self._plugs.controller.catalog.plugs(network.vni)
        )

    def _is_here(self, plug: DeclaredPlug) -> bool:
        return plug.host == self._directory.node_name(self._directory.own)
