"""The gateway of a network, which no endpoint may impersonate.

Every host is the gateway of its own containers, with the same MAC and addresses. A row that sends
frames for them to another host would give that host the default route and the DNS of every
container.

Owns: which MACs and addresses are a gateway's, and which endpoints claim one. Does not: plan
rows, or report anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from overlay.core.dataplane.conflicts import Claim
from overlay.model import Ip, Mac, Network, gateway_mac, ip_text, mac_text


class GatewayClaim(NamedTuple):
    """An endpoint that claims a gateway's MAC or address."""

    claim: Claim
    taken: str  # text for people: "MAC 06:..." or "address 10.32.0.1"


def gateway_macs(network: Network) -> frozenset[Mac]:
    """Return the gateways' MACs of a network: one per subnet, of which each segment uses one."""
    return frozenset(gateway_mac(network.vni, index) for index in range(len(network.subnets)))


def gateway_ips(network: Network) -> frozenset[Ip]:
    """Return the gateways' addresses of a network."""
    return frozenset(subnet.gateway for subnet in network.subnets)


def gateway_claims(network: Network, claims: Iterable[Claim]) -> list[GatewayClaim]:
    """Return the claims of endpoints to a gateway's MAC or address, by origin and endpoint."""
    macs = gateway_macs(network)
    ips = gateway_ips(network)
    found = []
    for claim in claims:
        endpoint = claim.endpoint
        if endpoint.mac in macs:
            found.append(GatewayClaim(claim, f"MAC {mac_text(endpoint.mac)}"))
        if not ips.isdisjoint(endpoint.ips):
            taken = [ip for ip in endpoint.ips if ip in ips]
            found += [GatewayClaim(claim, f"address {ip_text(ip)}") for ip in taken]
    return sorted(found, key=lambda each: (each.claim.origin, each.claim.endpoint.endpoint_id))
