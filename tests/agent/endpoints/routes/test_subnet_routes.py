"""The routes of a container to the further subnets of a network."""

from __future__ import annotations

from dataclasses import replace

from overlay.agent.endpoints.routes.subnet_routes import routes_of
from overlay.agent.networks.subnets import SubnetSpec, subnet_of
from overlay.model import Endpoint, Mac, Network, NodeId, Vni, ip_text, parse_ip

SUBNETS = tuple(
    subnet_of(SubnetSpec(text))
    for text in ("10.41.0.0/24", "fd41::/64", "10.42.0.0/24", "10.43.0.0/24", "fd42::/64")
)
NETWORK = Network(Vni(7), "many", SUBNETS, NodeId(bytes(16)))
MACVLAN = (("overlayd.driver", "macvlan"), ("overlayd.parent", "eth1"))


def routes(network: Network, *ips: str) -> list[tuple[str, str]]:
    """Return the destinations and gateways of a container's routes."""
    endpoint = Endpoint(bytes(8), Vni(7), "c", Mac(bytes(6)), tuple(map(parse_ip, ips)))
    return [
        (f"{ip_text(each.base)}/{each.prefix_length}", ip_text(each.gateway))
        for each in routes_of(network, endpoint, "eth0")
    ]


def test_each_other_subnet_of_a_family_has_a_route() -> None:
    """Through the gateway of the container's own subnet of that family."""
    assert routes(NETWORK, "10.42.0.9", "fd42::9") == [
        ("10.41.0.0/24", "10.42.0.1"),
        ("fd41::/64", "fd42::1"),
        ("10.43.0.0/24", "10.42.0.1"),
    ]


def test_a_family_without_an_address_has_no_route() -> None:
    """The container could not send."""
    assert routes(NETWORK, "10.41.0.9") == [
        ("10.42.0.0/24", "10.41.0.1"),
        ("10.43.0.0/24", "10.41.0.1"),
    ]


def test_no_route_leads_where_nothing_forwards() -> None:
    """Isolated subnets, and an internal network whose router is the segment's."""
    assert routes(replace(NETWORK, isolate_subnets=True), "10.41.0.9") == []
    assert routes(replace(NETWORK, labels=MACVLAN, internal=True), "10.41.0.9") == []
    assert routes(replace(NETWORK, internal=True), "10.41.0.9") != []
    assert routes(replace(NETWORK, labels=MACVLAN), "10.41.0.9") != []
