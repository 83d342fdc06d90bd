"""Names of services: their virtual addresses, their backends, and SRV records."""

from __future__ import annotations

from dataclasses import replace

import pytest
from dnslib import DNSRecord
from overlay.core.services.derivation import BackendState, PlacedService, ServiceBackend
from overlay.core.services.service import Service, ServicePort
from overlay.model import Vni, parse_ip
from tests.agent.dns.conftest import ALIVE, BLUE, CLIENT, Records, endpoint, resolver, server

VIP = parse_ip("10.1.0.100")
SHOP = Service(
    "Shop", Vni(1), (VIP,), (ServicePort(80, 8080, "tcp", "http"), ServicePort(53, 53, "udp"))
)
READY = ServiceBackend(ALIVE, endpoint(1, "c1", "10.1.0.7"), 3, BackendState.READY)
DRAINED = ServiceBackend(ALIVE, endpoint(1, "c2", "10.1.0.8"), 1, BackendState.DRAINING)
NAMED = replace(SHOP, name="named", ips=(), dns_rr=True)


class ServiceRecords(Records):
    """Two services on blue: one with a virtual address, one of its backends' names."""

    def services(self, vni: int) -> list[PlacedService]:
        """Return them with their backends."""
        found = [PlacedService(each, (READY, DRAINED)) for each in (SHOP, NAMED)]
        return found if vni == BLUE.vni else []


@pytest.mark.parametrize("name", ["shop", "shop.blue.overlay", "SHOP.overlay."])
def test_a_service_is_its_virtual_address(name: str) -> None:
    """In each form of the name."""
    answer = resolver(records=ServiceRecords()).forward(BLUE, CLIENT, name)

    assert answer is not None
    assert answer.ips == (VIP,)


def test_without_an_address_it_is_those_of_its_backends() -> None:
    """Of the ones that get new connections."""
    records = ServiceRecords()
    answer = resolver(records=records).forward(BLUE, CLIENT, "named")

    assert answer is not None
    assert answer.ips == (parse_ip("10.1.0.7"),)
    assert resolver(records=records).all_names(BLUE)["named"] == answer.ips


def test_a_service_comes_before_an_alias() -> None:
    """Containers that share the service's name as an alias are behind its address."""

    class Aliased(ServiceRecords):
        def endpoints(self, vni: int) -> list[object]:  # type: ignore[override]
            return [(ALIVE, endpoint(1, "c1", "10.1.0.7", "shop"))] if vni == BLUE.vni else []

    answer = resolver(records=Aliased()).forward(BLUE, CLIENT, "shop")

    assert answer is not None
    assert answer.ips == (VIP,)


def test_a_virtual_address_has_the_services_name() -> None:
    """A reverse query of it."""
    answer = resolver(records=ServiceRecords()).reverse(BLUE, CLIENT, "100.0.1.10.in-addr.arpa.")

    assert answer is not None
    assert answer.names == ("Shop.blue.overlay",)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("_http._tcp.shop.blue.overlay", ["0 1 80 Shop.blue.overlay."]),
        ("_http._tcp.shop", ["0 1 80 Shop.blue.overlay."]),
        ("_53._udp.shop.overlay", ["0 1 53 Shop.blue.overlay."]),
        ("_http._tcp.named.blue.overlay", ["0 3 8080 c1.blue.overlay."]),
        ("_http._udp.shop.blue.overlay", []),
        ("_https._tcp.shop.blue.overlay", []),
    ],
)
async def test_srv_records_name_port_and_target(name: str, found: list[str]) -> None:
    """A port is known by its name or its number."""
    query = DNSRecord.question(name, "SRV")
    raw = await server(records=ServiceRecords()).answer(query.pack(), CLIENT, by_tcp=False)
    answer = DNSRecord.parse(raw)

    assert [str(each.rdata) for each in answer.rr] == found
    assert answer.header.rcode == 0


async def test_srv_records_of_no_service_do_not_exist() -> None:
    """Within the domain; outside, the host's resolvers are asked."""
    query = DNSRecord.question("_http._tcp.nobody.blue.overlay", "SRV")
    raw = await server(records=ServiceRecords()).answer(query.pack(), CLIENT, by_tcp=False)

    assert DNSRecord.parse(raw).header.rcode == 3
    assert resolver().service_records(BLUE, CLIENT, "_sip._tcp.example.org") is None
