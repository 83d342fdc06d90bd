"""A member with networks, and its routers."""

from __future__ import annotations

from typing import Any, cast

import pytest
from overlay.agent.declared.service import DeclaredService
from overlay.agent.gossip.context import NodeContext
from overlay.agent.records.directory import Directory
from overlay.agent.router.registry import RouterRegistry
from overlay.core.dataplane.network_drivers import labels_of
from overlay.core.declared.objects import DeclaredObjects
from overlay.core.protocol.records import Participation
from overlay.model import Network, Subnet, Vni, parse_ip
from tests.agent.conftest import Site, Sites, subnet

SIX = Subnet(parse_ip("fd00::"), 64, parse_ip("fd00::1"))


class RouterBench:
    """One member, and its registry."""

    def __init__(self, site: Site) -> None:
        self.site = site
        gossip = site.gossip
        objects = DeclaredObjects(gossip.node.store, gossip.signer)
        self.directory = Directory(gossip.node, gossip.node_id, declared=objects)
        self.context = NodeContext(gossip, self.directory, cast("Any", None), site.event_log)
        self.declared = DeclaredService(self.context, objects)
        assert self.directory.routers is not None
        self.registry = RouterRegistry(self.context, self.declared, self.directory.routers)
        self.create(7, "blue", subnet("10.7.0.0"))
        self.create(9, "red", subnet("10.9.0.0"))
        self.create(11, "green", subnet("10.11.0.0"))
        self.create(13, "near", subnet("10.7.0.0"))
        self.create(15, "six", SIX)
        self.create(17, "secret", subnet("10.17.0.0"), labels_of("overlay", "", encrypted=True))
        self.create(19, "lan", subnet("10.19.0.0"), labels_of("macvlan", "eth1"))

    def create(
        self, vni: int, name: str, found: Subnet, labels: tuple[tuple[str, str], ...] = ()
    ) -> None:
        """Write a network."""
        network = Network(Vni(vni), name, (found,), self.site.gossip.node_id, labels=labels)
        self.site.write(network, Participation(Vni(vni), forwards=False))

    def reached(self, vni: int) -> list[str]:
        """Return the names of the networks that a network reaches."""
        network = self.directory.network_by_vni(vni)
        assert network is not None
        return [each.name for each in self.directory.routed_with(network)]


@pytest.fixture
async def bench(sites: Sites) -> RouterBench:
    """Return a member that may write."""
    site = sites.first()
    await site.gossip.wait_may_write(10.0)
    return RouterBench(site)
