"""Which containers are a service's backends, in which state, and what hosts program."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest
from overlay.core.protocol.messages import MemberState
from overlay.core.services.derivation import (
    BackendIndex,
    BackendState,
    Candidate,
    PlacedService,
    ingress_ports,
    virtual_ports,
)
from overlay.core.services.service import HealthCheck, Service, ServiceIngress, ServicePort
from overlay.core.services.values import Backend, VirtualPort
from overlay.model import Endpoint, Ip, Mac, Network, NodeId, Subnet, Vni, parse_ip

VNI = Vni(7)
ONE, TWO = NodeId(b"1" * 16), NodeId(b"2" * 16)
VIP, VIP6 = parse_ip("10.0.0.100"), parse_ip("fd00::100")
NETWORK = Network(
    VNI,
    "blue",
    (
        Subnet(
            parse_ip("10.0.0.0"), 24, parse_ip("10.0.0.254"),
            auxiliary=(("printer", parse_ip("10.0.0.253")),),
        ),
        Subnet(parse_ip("fd00::"), 64, parse_ip("fd00::1:1")),
    ),
    ONE,
)  # fmt: skip
WEB = Service("web", VNI, (VIP,), (ServicePort(80, 8080),), selector=(("app", "web"),))
CHECKED = replace(WEB, check=HealthCheck("tcp", "", 2.0, 1.0, 3))


def candidate(
    number: int,
    node: NodeId = ONE,
    state: MemberState = MemberState.ALIVE,
    *,
    label: str = "web",
    aliases: tuple[str, ...] = (),
) -> Candidate:
    """Return container c`number` of an application, with an address of each family."""
    ips = (parse_ip(f"10.0.0.{number}"), parse_ip(f"fd00::{number}"))
    labels = (("app", label),) if label else ()
    endpoint = Endpoint(
        number.to_bytes(8, "big"), VNI, f"c{number}", Mac(b"\2" * 6), ips, aliases, labels
    )
    return Candidate(node, endpoint, state)


def index(*candidates: Candidate, health: dict[int, bool] | None = None) -> BackendIndex:
    """Return an index; `health` has what hosts say of containers by number."""
    known = {number.to_bytes(8, "big"): value for number, value in (health or {}).items()}
    return BackendIndex(
        NETWORK, candidates, lambda _node, endpoint_id, _service: known.get(endpoint_id)
    )


def ports(service: Service, found: BackendIndex) -> list[VirtualPort]:
    """Return the virtual ports of a service."""
    return list(virtual_ports(placed(service, found)))


def placed(service: Service, found: BackendIndex) -> PlacedService:
    """Return a service with its backends."""
    return PlacedService(service, tuple(found.backends(service)))


def names(service: Service, found: BackendIndex) -> list[str]:
    """Return the names of a service's backends."""
    return [each.endpoint.name for each in found.backends(service)]


def test_a_selector_needs_all_labels() -> None:
    """A container with one of two labels is no backend."""
    found = index(candidate(1), candidate(2, label="api"))

    assert names(WEB, found) == ["c1"]
    assert names(replace(WEB, selector=(("app", "web"), ("tier", "x"))), found) == []


def test_names_and_labels_add_up() -> None:
    """A container that has both is one backend."""
    found = index(candidate(1), candidate(2, label="api"), candidate(3, label=""))

    assert names(replace(WEB, backends=("C2", "c1")), found) == ["c1", "c2"]


def test_without_both_the_alias_counts() -> None:
    """Containers that share the service's name as an alias are its backends."""
    found = index(candidate(1), candidate(2, label="", aliases=("WEB",)))

    assert names(replace(WEB, selector=()), found) == ["c2"]


@pytest.mark.parametrize(
    "false",
    ["127.0.0.1", "172.17.0.1", "169.254.169.254", "10.0.0.254", "10.0.0.253", "fd00::1:1", "::1"],
)
def test_a_false_address_leads_nowhere(false: str) -> None:
    """Not even where a member's record says so: to hosts' own services, gateways or devices."""
    whole = candidate(1)
    liar = whole._replace(endpoint=replace(whole.endpoint, ips=(parse_ip(false),)))
    assert ports(WEB, index(liar))[0].backends == ()
    assert found_ips(index(liar)) == []

    half = replace(whole.endpoint, ips=(parse_ip(false), *whole.endpoint.ips))
    assert found_ips(index(whole._replace(endpoint=half))) == [whole.endpoint.ips]


def found_ips(found: BackendIndex) -> list[tuple[Ip, ...]]:
    """Return the addresses of each backend."""
    return [each.endpoint.ips for each in found.backends(WEB)]


@pytest.mark.parametrize(
    ("state", "expected", "resting"),
    [
        (MemberState.ALIVE, BackendState.READY, [False, False]),
        (MemberState.SUSPECT, BackendState.SUSPECT, [True, False]),
        (MemberState.DEAD, BackendState.LOST, [False]),
    ],
)
def test_the_state_of_a_host_is_that_of_its_backends(
    state: MemberState, expected: BackendState, resting: list[bool]
) -> None:
    """A suspect one gets no new connection, a dead one's are given up."""
    found = index(candidate(1, TWO, state), candidate(2))
    (port,) = ports(WEB, found)

    assert found.backends(WEB)[0].state is expected
    assert [each.is_resting for each in port.backends] == resting


def test_backends_of_suspect_hosts_are_better_than_none() -> None:
    """The fault may be the client's own; a drained or failing one gets nothing all the same."""
    suspect = [candidate(number, TWO, MemberState.SUSPECT) for number in (1, 2, 3)]
    service = replace(CHECKED, drained=("c2",))
    (port,) = ports(service, index(*suspect, health={1: True, 2: True, 3: False}))
    assert [each.is_resting for each in port.backends] == [False, True, True]

    (port,) = ports(WEB, index(*suspect, candidate(4)))
    assert [each.is_resting for each in port.backends] == [True, True, True, False]


def test_a_check_decides_who_is_ready() -> None:
    """A backend counts once it has passed; until then, and after a failure, it gets nothing new."""
    found = index(candidate(1), candidate(2), candidate(3), health={1: True, 2: False})
    states = [each.state for each in found.backends(CHECKED)]

    assert states == [BackendState.READY, BackendState.UNHEALTHY, BackendState.UNCHECKED]
    (port,) = ports(CHECKED, found)
    assert [each.is_resting for each in port.backends] == [False, True, True]


def test_weights_and_draining_are_by_name() -> None:
    """A drained backend keeps its connections and its weight: it stays, and rests."""
    service = replace(WEB, weights=(("C1", 5), ("c2", 3)), drained=("c2",))
    (port,) = ports(service, index(candidate(1), candidate(2)))

    assert port.backends == (
        Backend(parse_ip("10.0.0.1"), 8080, ONE, 5, is_resting=False),
        Backend(parse_ip("10.0.0.2"), 8080, ONE, 3, is_resting=True),
    )


def test_a_backend_of_weight_0_is_draining() -> None:
    """It gets no new connection, so it is not ready, and no name leads to it (`dns_rr`).

    Among the others' slots it has the place of one of weight 1.
    """
    found = placed(replace(WEB, weights=(("C1", 0),)), index(candidate(1), candidate(2)))
    (port,) = virtual_ports(found)
    known = [(each.weight, each.is_resting) for each in port.backends]

    assert [each.state for each in found.backends] == [BackendState.DRAINING, BackendState.READY]
    assert [each.endpoint.name for each in found.ready()] == ["c2"]
    assert known == [(1, True), (1, False)]


def test_each_family_has_backends_of_its_own() -> None:
    """A connection to an IPv6 address goes to an IPv6 address."""
    found = ports(replace(WEB, ips=(VIP, VIP6)), index(candidate(1)))

    assert [(port.ip, port.backends[0].ip) for port in found] == [
        (VIP, parse_ip("10.0.0.1")),
        (VIP6, parse_ip("fd00::1")),
    ]


def test_the_order_of_records_does_not_matter() -> None:
    """All hosts derive equal values."""
    one, two = candidate(1), candidate(2, TWO)

    assert ports(WEB, index(one, two)) == ports(WEB, index(two, one))


def test_a_published_port_leads_to_the_services_port() -> None:
    """It has the backends of the virtual address, and who may ask."""
    sources = (ipaddress.ip_network("10.0.0.0/16"),)
    service = replace(WEB, ingress=(ServiceIngress(8080, 80, sources=sources),))
    (port,) = ingress_ports([placed(service, index(candidate(1)))])

    assert (port.port, port.mode, port.sources) == (8080, "ingress", sources)
    assert port.target == ports(service, index(candidate(1)))[0]
