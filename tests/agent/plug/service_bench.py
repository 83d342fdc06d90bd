"""A host that plugs and unplugs interfaces, over the stand-ins of `bench`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay.agent.plug import service as service_module
from overlay.agent.plug.service import PlugService
from overlay.core.declared.host_objects import DeclaredPlug, existing
from overlay.model import Network, Vni
from tests.agent.plug.bench import BLUE, PlugBench


class ServiceBench(PlugBench):
    """A host with interfaces eth1 to eth9; eth1 is the underlay's."""

    used: list[Vni]

    def serve(self, monkeypatch: pytest.MonkeyPatch, allowed: str = "eth*") -> None:
        """Make the service of this host."""
        self.used = []
        participation = SimpleNamespace(
            attach_in_progress=self._attaching, begin=self._begin, release=self._release
        )
        host = SimpleNamespace(release_vlans=self._release_vlans)
        self.service = PlugService(
            self.context,
            self.controller,
            cast("Any", participation),
            cast("Any", host),
            cast("Any", SimpleNamespace(interface="eth1")),
            allowed,
        )
        self.released = 0
        for name in ("ensure_parent", "require_pluggable"):
            monkeypatch.setattr(service_module, name, lambda *_, **__: None)
        monkeypatch.setattr(service_module, "is_on_underlay", lambda one, other: one == other)

    def network(self, vni: Vni = BLUE) -> Network:
        """Return a network."""
        found = self.directory.network_by_vni(vni)
        assert found is not None
        return found

    async def plug(self, interface: str, segment: str = "default", **more: bool) -> bool:
        """Plug an interface into blue."""
        return await self.service.plug(self.network(), interface, segment, **more)

    def declarations(self) -> list[str]:
        """Return the interfaces that the records declare."""
        return sorted(each.interface for each in existing(self.declared.objects, DeclaredPlug))

    def declare(self, interface: str, segment: str = "default", host: str = "vm1") -> DeclaredPlug:
        """Declare a plug on blue, as applying a file does."""
        made = DeclaredPlug(host, "blue", interface, segment)
        self.declared.put(made.kind, made.object_name, made.body())
        return made

    @contextlib.asynccontextmanager
    async def _attaching(self, vni: Vni) -> AsyncIterator[None]:
        try:
            yield
        except BaseException:
            await self._release(vni)
            raise

    async def _begin(self, network: Network) -> list[Any]:
        self.used = sorted({*self.used, network.vni})
        return []

    async def _release(self, vni: Vni) -> list[Any]:
        self.used = [each for each in self.used if each != vni or self.plugged.of(vni)]
        return []

    async def _release_vlans(self) -> None:
        self.released += 1
