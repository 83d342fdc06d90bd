"""The routers of the cluster, from the declared objects in force."""

from __future__ import annotations

from collections.abc import Mapping

from overlay import limits
from overlay.agent.records.declared_catalog import DeclaredCatalog
from overlay.core.declared.kinds import ROUTER_KIND
from overlay.core.declared.objects import DeclaredObjects
from overlay.core.router.router import Router
from overlay.core.router.routing import routed_with
from overlay.model import Network, Vni
from overlay.wire.codec.routers import decode_router


class RouterCatalog(DeclaredCatalog[Router]):
    """The routers that exist, by network."""

    def __init__(self, objects: DeclaredObjects) -> None:
        super().__init__(
            objects,
            ROUTER_KIND,
            decode_router,
            lambda router: router.vnis,
            limits.ROUTERS_PER_NETWORK_MAX,
        )

    def routed_with(self, networks: Mapping[Vni, Network], vni: Vni) -> list[Network]:
        """Return the networks that containers of a network reach through routers, by VNI."""
        return routed_with(self.on(vni), networks, vni)
