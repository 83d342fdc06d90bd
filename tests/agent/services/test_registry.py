"""Creating, changing and removing services: what is refused, and that nothing is half applied."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, cast

import pytest
from overlay.agent.declared.service import DeclaredService
from overlay.agent.gossip.context import NodeContext
from overlay.agent.ipam.allocator import AddressAllocator
from overlay.agent.records.directory import Directory
from overlay.agent.records.service_catalog import ServiceCatalog
from overlay.agent.services.registry import ServiceRegistry
from overlay.core.declared.objects import DeclaredObjects
from overlay.core.ipam.address_space import AddressSpace
from overlay.core.protocol.records import CLUSTER_SCOPE, CustomRecord, Participation, Scope
from overlay.core.services.service import HealthCheck, Service, ServiceIngress, ServicePort
from overlay.errors import ConflictError, NotFoundError, OverlayError, UsageError
from overlay.model import Endpoint, Network, Vni, mac_for, parse_ip
from tests.agent.conftest import Site, Sites, subnet

BLUE, RED = Vni(7), Vni(9)


class Participations:
    """This host holds all records."""

    @contextlib.asynccontextmanager
    async def holding_records(self, _network: Network) -> AsyncIterator[None]:
        """Hold a network's records."""
        yield


class Bench:
    """One member with two networks, a container on each, and its registry."""

    def __init__(self, site: Site) -> None:
        self.site = site
        gossip = site.gossip
        objects = DeclaredObjects(gossip.node.store, gossip.signer)
        catalog = ServiceCatalog(objects)
        space = AddressSpace(gossip.node.store, gossip.node_id, virtual=catalog)
        directory = Directory(gossip.node, gossip.node_id, space, services=catalog)
        context = NodeContext(gossip, directory, cast("Any", None), site.event_log)
        self.registry = ServiceRegistry(
            context,
            DeclaredService(context, objects),
            catalog,
            AddressAllocator(gossip, directory, site.event_log, space),
            cast("Any", Participations()),
        )
        self.networks = {
            vni: Network(vni, name, (subnet(base),), gossip.node_id)
            for vni, name, base in ((BLUE, "blue", "10.7.0.0"), (RED, "red", "10.9.0.0"))
        }
        for vni, network in self.networks.items():
            site.write(network, Participation(vni, forwards=False))
        self.attach(BLUE, "c1", "10.7.0.2")
        self.attach(RED, "r1", "10.9.0.2")

    def attach(self, vni: Vni, name: str, text: str) -> None:
        """Write a container's endpoint."""
        ip = parse_ip(text)
        endpoint = Endpoint(name.encode().ljust(8), vni, name, mac_for(vni, ip), (ip,), ("web",))
        self.site.gossip.commit(Scope(vni), [endpoint])

    async def create(self, service: Service | None = None) -> Service:
        """Create a service on blue."""
        made, _ = await self.registry.create(self.networks[BLUE], service or WEB)
        return made

    def written(self) -> int:
        """Return how far this member's log goes."""
        return self.site.gossip.node.store.version(self.site.gossip.node_id, CLUSTER_SCOPE)


WEB = Service("web", BLUE, (), (ServicePort(80, 80),))


@pytest.fixture
async def bench(sites: Sites) -> Bench:
    """Return a member that may write."""
    site = sites.first()
    await site.gossip.wait_may_write(10.0)
    return Bench(site)


async def test_a_service_gets_a_free_address(bench: Bench) -> None:
    """Each another one, and none that a container has."""
    first = await bench.create()
    second = await bench.create(replace(WEB, name="api"))

    assert first.ips == (parse_ip("10.7.0.3"),)
    assert second.ips == (parse_ip("10.7.0.4"),)


async def test_a_repeated_create_changes_nothing(bench: Bench) -> None:
    """The same definition is the same service, with its address."""
    made = await bench.create()
    written = bench.written()
    again, is_new = await bench.registry.create(bench.networks[BLUE], WEB)

    assert (again, is_new) == (made, False)
    assert bench.written() == written


async def test_a_removed_service_is_gone(bench: Bench) -> None:
    """Its address rests, and a second removal says that there is none."""
    await bench.create()
    await bench.registry.remove("WEB")

    assert bench.registry.catalog.all() == []
    assert (await bench.create()).ips == (parse_ip("10.7.0.4"),)
    with pytest.raises(NotFoundError, match="there is no service 'nope'"):
        await bench.registry.remove("nope")


async def test_a_change_keeps_the_address(bench: Bench) -> None:
    """Everything else that was not named stays, too."""
    made = await bench.create()
    before, after = await bench.registry.change("web", lambda one: replace(one, affinity=True))

    assert (before, after) == (made, replace(made, affinity=True))
    assert bench.registry.catalog.find("web") == after


INGRESS = (ServiceIngress(8080, 80),)
SLOW = HealthCheck("tcp", "", 1.0, 2.0, 3)


@pytest.mark.parametrize(
    ("wanted", "kind", "said"),
    [
        (replace(WEB, ports=(ServicePort(80, 1), ServicePort(80, 2))), UsageError, "given twice"),
        (replace(WEB, name="c1"), ConflictError, "a container on vm1 has it"),
        (replace(WEB, name="printer"), ConflictError, "vm1 has added it as a DNS record"),
        (replace(WEB, backends=("r1",)), ConflictError, "it is on network red, on vm1"),
        (replace(WEB, ips=(parse_ip("10.7.0.2"),)), ConflictError, "c1 on vm1 has it"),
        (replace(WEB, ips=(parse_ip("10.9.0.7"),)), UsageError, "not an address of network blue"),
        (replace(WEB, ips=(parse_ip("10.7.0.3"),)), ConflictError, "virtual address of a service"),
        (replace(WEB, name="first", dns_rr=True), ConflictError, "differs in: DNS round"),
        (replace(WEB, ingress=INGRESS), ConflictError, "service first is published on it"),
        (replace(WEB, ingress=(ServiceIngress(8080, 81),)), UsageError, "no port 81/tcp"),
        (replace(WEB, check=SLOW), UsageError, "cannot begin every 1 s"),
        (replace(WEB, check=HealthCheck("http", "up", 2, 1, 3)), UsageError, "is not a path"),
        (replace(WEB, check=HealthCheck("exec", "../ls", 2, 1, 3)), UsageError, "not the name"),
        (replace(WEB, dns_rr=True, affinity=True), UsageError, "no effect with dns_rr"),
        (replace(WEB, dns_rr=True, ingress=INGRESS), UsageError, "exclude each other"),
        (replace(WEB, backends=tuple(f"{n:063}" for n in range(32))), UsageError, "too large"),
    ],
)  # fmt: skip
async def test_what_cannot_be_is_refused(
    bench: Bench, wanted: Service, kind: type[OverlayError], said: str
) -> None:
    """With one message, and nothing is written."""
    record = CustomRecord("printer", (parse_ip("192.0.2.1"),))
    bench.site.gossip.commit(Scope(BLUE), [record])
    await bench.create(replace(WEB, name="first", ingress=INGRESS))
    written = bench.written()

    with pytest.raises(kind) as refused:
        await bench.create(wanted)
    assert said in str(refused.value)
    assert refused.value.hint
    assert bench.written() == written
