"""What must be tracked for the host's rules."""

from __future__ import annotations

from overlay.core.dataplane.host_rules import (
    ExposedLink,
    HostState,
    IngressForward,
    PortForward,
)
from overlay.core.services.values import Backend
from overlay.core.tracking.tracked_traffic import (
    MASQUERADE_PORTS,
    NetworkTraffic,
    TrackedPort,
    traffic_of,
)
from overlay.model import Ip, NodeId, parse_ip


def test_blocks_of_ports_are_found_by_one_comparison() -> None:
    """A block's members are those whose upper bits are the first port's."""
    for block in MASQUERADE_PORTS:
        inside = [port for port in range(65_536) if port in block]
        assert inside == list(range(block.first, block.last + 1))
    assert max(block.last for block in MASQUERADE_PORTS) < 32_768, "the host's own clients'"


def test_networks_and_all_published_ports_are_tracked() -> None:
    """Also those that lead to services."""
    ip = parse_ip("10.32.0.2")
    ranges = ((parse_ip("10.32.0.0"), 16), (parse_ip("fd32::"), 64))
    state = HostState(
        links=frozenset({ExposedLink("ovh1", ranges)}),
        ports=frozenset({PortForward("udp", Ip(b""), 53, ip, 53, borrowed=False)}),
        ingress=frozenset({IngressForward("tcp", 80, (Backend(ip, 8080, NodeId(bytes(16))),))}),
    )

    ports = frozenset({TrackedPort(17, 53), TrackedPort(6, 80)})
    assert traffic_of(state) == NetworkTraffic(frozenset(ranges), ports)
