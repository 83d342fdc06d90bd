"""Create, change and remove routers of the cluster, on whichever host the command is given.

Owns: the order of validation and writing. Does not: know the rules for a valid router
(`definition`), or route.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from overlay.agent.declared.service import DeclaredService
from overlay.agent.gossip.context import NodeContext
from overlay.agent.records.router_catalog import RouterCatalog
from overlay.agent.router import definition
from overlay.agent.router.definition import ROUTERS
from overlay.core.router.router import Router
from overlay.model import Network, Vni
from overlay.wire.codec.routers import encode_router


@dataclass(frozen=True, slots=True)
class RouterSpec:
    """A router as it is asked for: networks by name."""

    name: str
    networks: tuple[str, ...]
    allow_clear: bool = False
    labels: tuple[tuple[str, str], ...] = ()


class RouterRegistry:
    """The routers of the cluster, as commands on this host change them."""

    def __init__(
        self, context: NodeContext, declared: DeclaredService, catalog: RouterCatalog
    ) -> None:
        self._context = context
        self._declared = declared
        self.catalog = catalog

    def require(self, name: str) -> Router:
        """Return the router with a name; raises NotFoundError."""
        found = self.catalog.find(name)
        if found is not None:
            return found
        raise ROUTERS.missing(name, [router.name for router in self.catalog.all()])

    def create(self, spec: RouterSpec) -> tuple[Router, bool]:
        """Return the router of this definition, and whether it is new; raises OverlayError."""
        existing = self.catalog.find(spec.name)
        networks = definition.networks_of(self._context.directory, spec.networks)
        wanted = _router(spec, networks)
        if existing is not None:
            definition.require_same(existing, replace(wanted, name=existing.name))
            return existing, False
        self._require_possible(wanted, networks)
        self._write(wanted)
        self._record(wanted, "created")
        return wanted, True

    def change(self, name: str, changed: Callable[[RouterSpec], RouterSpec]) -> tuple[Router, bool]:
        """Change a router; return it, and whether it is another one now; raises OverlayError."""
        before = self.require(name)
        spec = changed(self.spec_of(before))
        networks = definition.networks_of(self._context.directory, spec.networks)
        after = replace(_router(spec, networks), name=before.name)
        if after == before:
            return before, False
        self._require_possible(after, networks)
        self._write(after)
        self._record(after, "changed")
        return after, True

    def remove(self, name: str) -> Router:
        """Remove a router everywhere; raises OverlayError."""
        router = self.require(name)
        self._declared.remove(ROUTERS.number, router.name)
        self._record(router, "removed")
        return router

    def check(self, spec: RouterSpec) -> None:
        """Raise the error with which `create` would refuse a router whose networks exist."""
        definition.require_count(spec.name, len(set(spec.networks)))
        directory = self._context.directory
        if all(directory.find_network(each) is not None for each in spec.networks):
            networks = definition.networks_of(directory, spec.networks)
            self._require_possible(_router(spec, networks), networks)

    def spec_of(self, router: Router) -> RouterSpec:
        """Return a router with its networks by name; without those that were removed."""
        names = tuple(each.name for each in self.networks(router))
        return RouterSpec(router.name, names, router.allow_clear, router.labels)

    def networks(self, router: Router) -> list[Network]:
        """Return a router's networks that exist, by VNI."""
        found = map(self._context.directory.network_by_vni, router.vnis)
        return [network for network in found if network is not None]

    def reached_by(self, router: Router, network: Network) -> list[str]:
        """Return the names of the networks that one reaches by a router."""
        reached = {each.vni for each in self._context.directory.routed_with(network)}
        return sorted(each.name for each in self.networks(router) if each.vni in reached)

    def _require_possible(self, router: Router, networks: list[Network]) -> None:
        definition.require_valid(router.name, networks, allow_clear=router.allow_clear)
        definition.require_room(router.name, networks, self.catalog.all())
        directory = self._context.directory
        for network in networks:
            definition.require_disjoint(directory, network, _without(router.vnis, network.vni))

    def _write(self, router: Router) -> None:
        ROUTERS.write(self._declared, router.name, encode_router(router))

    def _record(self, router: Router, change: str) -> None:
        names = ", ".join(network.name for network in self.networks(router))
        text = f"router {router.name} was {change}: {names}"
        self._context.event_log.record("routers", text)


def _router(spec: RouterSpec, networks: Iterable[Network]) -> Router:
    vnis = tuple(network.vni for network in networks)
    return Router(spec.name, vnis, spec.allow_clear, spec.labels)


def _without(vnis: Iterable[Vni], vni: Vni) -> list[Vni]:
    return [each for each in vnis if each != vni]
