"""A member with two networks and containers, and its policies."""

from __future__ import annotations

from typing import Any, cast

import pytest
from overlay.agent.declared.service import DeclaredService
from overlay.agent.gossip.context import NodeContext
from overlay.agent.policy.decider import PolicyDecider
from overlay.agent.policy.registry import PolicyRegistry
from overlay.agent.records.directory import Directory
from overlay.agent.records.policy_catalog import PolicyCatalog
from overlay.agent.resolvers.container_resolvers import ContainerResolvers
from overlay.agent.state.attachments import Attachments
from overlay.core.declared.objects import DeclaredObjects
from overlay.core.protocol.records import CLUSTER_SCOPE, Participation, Scope
from overlay.model import (
    DEFAULT_DENY_LABEL,
    HOST_LABEL,
    Endpoint,
    Network,
    Vni,
    mac_for,
    parse_ip,
)
from tests.agent.conftest import Site, Sites, subnet

BLUE, RED, LAN = Vni(7), Vni(9), Vni(11)


class PolicyBench:
    """One member, and its registry."""

    def __init__(self, site: Site) -> None:
        self.site = site
        gossip = site.gossip
        objects = DeclaredObjects(gossip.node.store, gossip.signer)
        self.directory = Directory(gossip.node, gossip.node_id, declared=objects)
        self.context = NodeContext(gossip, self.directory, cast("Any", None), site.event_log)
        self.declared = DeclaredService(self.context, objects)
        catalog = PolicyCatalog(objects)
        self.registry = PolicyRegistry(self.context, self.declared, catalog)
        self.decider = PolicyDecider(self.directory, catalog, ContainerResolvers(Attachments()))
        lan = (("overlayd.driver", "macvlan"), ("overlayd.parent", "eth1"))
        for vni, name, base, labels in (
            (BLUE, "blue", "10.7.0.0", (DEFAULT_DENY_LABEL,)),
            (RED, "red", "10.9.0.0", ()),
            (LAN, "lan", "10.11.0.0", lan),
        ):
            network = Network(vni, name, (subnet(base),), gossip.node_id, labels=labels)
            site.write(network, Participation(vni, forwards=False))
        self.attach(BLUE, "web1", "10.7.0.2", ("app", "web"))
        self.attach(BLUE, "db1", "10.7.0.3", ("app", "db"))
        self.attach(BLUE, "vm1", "10.7.0.9", HOST_LABEL)
        self.attach(RED, "r1", "10.9.0.2", ("app", "web"))

    def network(self, vni: Vni) -> Network:
        """Return a network as it is in effect."""
        found = self.directory.network_by_vni(vni)
        assert found is not None
        return found

    def attach(self, vni: Vni, name: str, text: str, label: tuple[str, str]) -> None:
        """Write an endpoint."""
        ip = parse_ip(text)
        endpoint = Endpoint(
            name.encode().ljust(8), vni, name, mac_for(vni, ip), (ip,), labels=(label,)
        )
        self.site.gossip.commit(Scope(vni), [endpoint])

    def written(self) -> int:
        """Return how far this member's log goes."""
        return self.site.gossip.node.store.version(self.site.gossip.node_id, CLUSTER_SCOPE)


@pytest.fixture
async def bench(sites: Sites) -> PolicyBench:
    """Return a member that may write."""
    site = sites.first()
    await site.gossip.wait_may_write(10.0)
    return PolicyBench(site)
