"""A host's gate is planned by its interfaces, addresses and routes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from overlay.core.dataplane.host_rules import ExposedLink, HostState, IngressForward, PortForward
from overlay.core.gate.host_view import HostAddress, HostInterface, HostView
from overlay.core.gate.state import GatedNetwork
from overlay.core.gate.translation import MasqueradeSource, missing_address, obstacle, plan_gate
from overlay.core.services.values import Backend
from overlay.model import Ip, Mac, NodeId, parse_ip


def address(text: str, *, is_preferred: bool = True) -> HostAddress:
    """Return the address of a text such as "192.0.2.1/24"."""
    ip, _, length = text.partition("/")
    return HostAddress(parse_ip(ip), int(length), is_preferred)


def interface(
    name: str, index: int, *addresses: str, is_own: bool = False, gateway: str = ""
) -> HostInterface:
    """Return an Ethernet interface."""
    return HostInterface(
        name,
        index,
        Mac(bytes(5) + bytes([index])),
        1500,
        is_ethernet=True,
        is_own=is_own,
        addresses=tuple(map(address, addresses)),
        gateways=(parse_ip(gateway),) if gateway else (),
    )


LOOPBACK = interface("lo", 1, "127.0.0.1/8", "::1/128")
CABLE = interface("eth0", 2, "192.0.2.1/24", "2001:db8::1/64", "fe80::1/64")
ON_BLUE = interface("ovh1", 3, "10.32.0.1/16", is_own=True)
HOST = HostView((LOOPBACK, CABLE, ON_BLUE))
BLUE = ExposedLink("ovh1", ((parse_ip("10.32.0.0"), 16),))
WANTED = HostState(frozenset({BLUE}))
WEB = PortForward("tcp", Ip(b""), 8080, parse_ip("10.32.0.2"), 80, borrowed=False)
ANY, ANY6 = parse_ip("0.0.0.0"), parse_ip("::")  # noqa: S104  a range, no socket


def source(name: str, base: str, length: int, ip: str) -> MasqueradeSource:
    """Return a source by its texts."""
    return MasqueradeSource(name, parse_ip(base), length, parse_ip(ip))


def with_port(port: PortForward) -> HostState:
    """Return the exposed network with a published port."""
    return replace(WANTED, ports=frozenset({port}))


def test_each_interface_has_its_kind() -> None:
    """Those without an address, and overlayd's own for other ends, have no gate."""
    more = (interface("bare", 4), interface("ovg2", 5, is_own=True))
    gate = plan_gate(HostView((*HOST.interfaces, *more)), with_port(WEB)).gate
    kinds = {each.name: each.kind for each in gate.interfaces}
    assert kinds == {"lo": "loopback", "eth0": "outside", "ovh1": "network"}
    assert gate.networks == {GatedNetwork(parse_ip("10.32.0.0"), 16, 3)}
    assert gate.published == {("tcp", 8080)}
    assert gate.own == set(map(parse_ip, ("192.0.2.1", "2001:db8::1", "fe80::1", "10.32.0.1")))


def test_an_interface_with_a_link_local_address_leads_nowhere() -> None:
    """IPv6 gives one to each interface."""
    quiet = interface("eth1", 4, "fe80::4/64")
    plan = plan_gate(HostView((*HOST.interfaces, quiet)), WANTED)
    assert plan.outside == {2}


def test_a_network_without_its_interface_is_still_translated() -> None:
    """For a moment, while that is made anew: no packet of its containers leaves as it is."""
    gate = plan_gate(HostView((LOOPBACK, CABLE)), WANTED).gate
    assert gate.networks == {GatedNetwork(parse_ip("10.32.0.0"), 16, 0)}


def test_packets_leave_with_an_address_in_the_next_hops_prefix() -> None:
    """As `masquerade` chooses it: by the gateway, or by the destination on the link itself."""
    two = interface("eth0", 2, "192.0.2.1/24", "198.51.100.1/24", gateway="198.51.100.254")
    sources = plan_gate(HostView((LOOPBACK, two, ON_BLUE)), WANTED).translation.sources
    assert sources == (
        source("eth0", "192.0.2.0", 24, "192.0.2.1"),
        MasqueradeSource("eth0", ANY, 0, parse_ip("198.51.100.1")),
    )


def test_without_a_gateway_the_first_address_is_taken() -> None:
    """Of IPv6 a preferred one: temporary and deprecated addresses come last."""
    old = address("2001:db8::9/64", is_preferred=False)
    two = replace(CABLE, addresses=(old, *CABLE.addresses))
    sources = plan_gate(HostView((LOOPBACK, two, ON_BLUE)), WANTED).translation.sources
    assert sources == (
        MasqueradeSource("eth0", ANY, 0, parse_ip("192.0.2.1")),
        MasqueradeSource("eth0", ANY6, 0, parse_ip("2001:db8::1")),
    )


def test_the_hosts_addresses_on_networks_are_known() -> None:
    """Connections that would return directly are masqueraded with them."""
    plan = plan_gate(HOST, WANTED)
    assert plan.translation.gateways == {("ovh1", parse_ip("10.32.0.1"))}


def test_containers_with_another_way_out_are_borrowed() -> None:
    """Behind a published port, and behind that of a service."""
    ips = [parse_ip(f"10.32.0.{number}") for number in range(2, 6)]
    backends = tuple(Backend(ip, 80, NodeId(bytes(16))) for ip in ips)
    service = IngressForward("tcp", 80, backends, borrowed=frozenset(ips[2:3]))
    there = WEB._replace(ip=ips[3], borrowed=True)
    state = replace(WANTED, ports=frozenset({WEB, there}), ingress=frozenset({service}))
    assert obstacle(HOST, state) == ""
    assert plan_gate(HOST, state).translation.borrowed() == set(ips[2:])


def test_an_ordinary_host_has_no_obstacle() -> None:
    """Nor has one that publishes at 127.0.0.1."""
    local = WEB._replace(host_ip=parse_ip("127.0.0.1"))
    among_own = WEB._replace(protocol="udp", host_port=40_000)
    assert {obstacle(HOST, with_port(port)) for port in (WEB, local, among_own)} == {""}
    ways = ((4, 2), (16, 9))  # of IPv6, which no network here has
    assert missing_address(replace(HOST, default_routes=ways), WANTED) == ""


def test_a_default_route_needs_an_address() -> None:
    """What leaves by it could not be masqueraded."""
    found = missing_address(replace(HOST, default_routes=((4, 9),)), WANTED)
    assert "leads to all of IPv4, and has no address" in found


@pytest.mark.parametrize(
    ("host", "wanted", "part"),
    [
        (replace(HOST, has_ipsec=True), WANTED, "IPsec"),
        (
            HostView(
                (*HOST.interfaces, replace(interface("wg0", 7, "10.8.0.1/24"), is_ethernet=False))
            ),
            WANTED,
            "wg0 is no Ethernet interface",
        ),
        (HOST, with_port(WEB._replace(host_ip=parse_ip("127.0.0.5"))), "another loopback address"),
    ],
)
def test_an_obstacle_says_what_the_gate_would_not_keep(
    host: HostView, wanted: HostState, part: str
) -> None:
    """Then the host's own namespace translates."""
    assert part in obstacle(host, wanted)
