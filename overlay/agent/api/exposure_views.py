"""How networks and the host meet, as JSON: who has an end on a network, and what is in the way.

Owns: these shapes. Changes nothing.
"""

from __future__ import annotations

from typing import Any

from overlay.agent.api.schema.network_responses import (
    HostEndpointResponse,
    NodeAddressesResponse,
    PublishedPortResponse,
)
from overlay.agent.api.schema.responses import HealthIssue
from overlay.agent.components import Components
from overlay.agent.exposure.published_ports import PublishedPortStatus
from overlay.model import Network, Vni, ip_text

Json = dict[str, Any]


def host_endpoint(network: Network, components: Components) -> HostEndpointResponse:
    """Show this host's own end on a network, or why there is none."""
    exposure = components.exposure.controller
    ends = exposure.host_endpoints.of(network.vni)
    return {
        "exposed": bool(ends),
        "exposed_why": None if ends else exposure.refusal_reason(network),
        "host_ips": [ip_text(ip) for end in ends for ip in end.ips],
        "host_interfaces": [link.name for link in exposure.host_endpoints.links(network)],
    }


def host_endpoints(network: Network, components: Components) -> list[NodeAddressesResponse]:
    """Show every host's own end on a network, by node."""
    directory = components.directory
    shown: list[NodeAddressesResponse] = [
        {
            "node": directory.node_name(placed.origin),
            "ips": [ip_text(ip) for ip in placed.endpoint.ips],
        }
        for placed in directory.host_endpoints(network.vni)
    ]
    return sorted(shown, key=lambda row: (row["node"], row["ips"]))


def published(
    components: Components, shown: list[PublishedPortStatus]
) -> list[PublishedPortResponse]:
    """Show published ports, and what each leads to now."""
    return [
        {
            "protocol": each.publication.protocol,
            "host_ip": ip_text(each.publication.host_ip) if each.publication.host_ip else None,
            "host_port": each.publication.host_port,
            "name": each.publication.name,
            "network": _name(components, each.publication.vni),
            "port": each.publication.port,
            "ips": [ip_text(target.ip) for target in each.targets],
            "source_kept": bool(each.targets) and not any(t.borrowed for t in each.targets),
            "fault": each.fault or None,
        }
        for each in shown
    ]


def _name(components: Components, vni: Vni) -> str:
    network = components.directory.network_by_vni(vni)
    return f"vni {vni}" if network is None else network.name


def exposure_health(components: Components) -> list[HealthIssue]:
    """Return what deserves attention where networks meet the host."""
    exposure = components.exposure
    names = {network.vni: network.name for network in components.directory.networks()}
    found: list[HealthIssue] = [
        {
            "level": "error",
            "text": f"network {names.get(vni, vni)} is not exposed to this host: {why}",
            "hint": "The agent tries again by itself; or give it up: overlayd unexpose "
            f"{names.get(vni, 'NETWORK')}",
        }
        for vni, why in sorted(exposure.controller.failures.items())
    ]
    found += [
        {
            "level": "error",
            "text": f"this host's {each.chain} drops what leaves networks and what enters them",
            "hint": each.remedy,
        }
        for each in exposure.rules.obstacles
    ]
    if exposure.rules.fault:
        found.append(
            {
                "level": "error",
                "text": "containers cannot leave their networks, and no port is published: "
                f"{exposure.rules.fault}",
                "hint": "Load the modules (modprobe nft_chain_nat nft_masq nft_fib_inet nft_ct), "
                "or install the kernel's package that has them; the agent tries again",
            }
        )
    return found
