"""How networks and the host meet, as JSON: who has an end on a network, and what is in the way.

Owns: these shapes. Changes nothing.
"""

from __future__ import annotations

from typing import Any

from overlay.agent.api.schema.network_responses import HostEnd, NodeAddresses, PublishedPort
from overlay.agent.api.schema.responses import Concern
from overlay.agent.components import Running
from overlay.agent.exposure.published_ports import Shown
from overlay.model import Network, Vni, ip_text

Json = dict[str, Any]


def here(network: Network, running: Running) -> HostEnd:
    """Show this host's own end on a network, or why there is none."""
    exposure = running.outside.exposure
    ends = exposure.ends.of(network.vni)
    return {
        "exposed": bool(ends),
        "exposed_why": None if ends else exposure.why_not(network),
        "host_ips": [ip_text(ip) for end in ends for ip in end.ips],
        "host_interfaces": [link.name for link in exposure.ends.links(network)],
    }


def host_ends(network: Network, running: Running) -> list[NodeAddresses]:
    """Show every host's own end on a network, by node."""
    directory = running.directory
    shown: list[NodeAddresses] = [
        {
            "node": directory.node_name(placed.origin),
            "ips": [ip_text(ip) for ip in placed.endpoint.ips],
        }
        for placed in directory.host_ends(network.vni)
    ]
    return sorted(shown, key=lambda row: (row["node"], row["ips"]))


def published(running: Running, shown: list[Shown]) -> list[PublishedPort]:
    """Show published ports, and what each leads to now."""
    return [
        {
            "protocol": each.publication.protocol,
            "host_ip": ip_text(each.publication.host_ip) if each.publication.host_ip else None,
            "host_port": each.publication.host_port,
            "name": each.publication.name,
            "network": _name(running, each.publication.vni),
            "port": each.publication.port,
            "ips": [ip_text(target.ip) for target in each.targets],
            "source_kept": bool(each.targets) and not any(t.borrowed for t in each.targets),
            "fault": each.fault or None,
        }
        for each in shown
    ]


def _name(running: Running, vni: Vni) -> str:
    network = running.directory.network_by_vni(vni)
    return f"vni {vni}" if network is None else network.name


def health(running: Running) -> list[Concern]:
    """Return what deserves attention where networks meet the host."""
    outside = running.outside
    names = {network.vni: network.name for network in running.directory.networks()}
    found: list[Concern] = [
        {
            "level": "error",
            "text": f"network {names.get(vni, vni)} is not exposed to this host: {why}",
            "hint": "The agent tries again by itself; or give it up: overlayd unexpose "
            f"{names.get(vni, 'NETWORK')}",
        }
        for vni, why in sorted(outside.exposure.failures.items())
    ]
    found += [
        {
            "level": "error",
            "text": f"this host's {each.chain} drops what leaves networks and what enters them",
            "hint": each.remedy,
        }
        for each in outside.rules.obstacles
    ]
    if outside.rules.fault:
        found.append(
            {
                "level": "error",
                "text": "containers cannot leave their networks, and no port is published: "
                f"{outside.rules.fault}",
                "hint": "Load the modules (modprobe nft_chain_nat nft_masq nft_fib_inet nft_ct), "
                "or install the kernel's package that has them; the agent tries again",
            }
        )
    return found
