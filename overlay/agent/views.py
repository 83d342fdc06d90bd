"""What the API shows: records, membership and kernel counters as JSON objects.

Owns: the shapes documented in docs/API.md. Changes nothing.
"""

from __future__ import annotations

import time

from overlay import __version__
from overlay.agent import answers, keyviews, networkanswers, outsideviews
from overlay.agent.agent import Agent
from overlay.agent.answers import STATES
from overlay.agent.attaching import Result
from overlay.agent.directory import Directory
from overlay.agent.guard import Guard
from overlay.agent.health import health
from overlay.agent.running import Running
from overlay.agent.stored import Attachment
from overlay.core.drivers import driver_of, has_sandbox, parent_of
from overlay.core.ipam import Share
from overlay.core.rates import rates_of
from overlay.model import (
    Card,
    Endpoint,
    Network,
    NodeId,
    gateway_mac,
    ip_text,
    mac_text,
    node_text,
)


def node(card: Card, interface: str) -> answers.Node:
    """Show this node."""
    return {
        "id": node_text(card.node_id),
        "name": card.name,
        "epoch": card.epoch,
        "address": ip_text(card.address),
        "interface": interface,
        "underlay_mtu": card.underlay_mtu,
    }


def network(item: Network, running: Running) -> networkanswers.Network:
    """Show a network as lists have it."""
    directory = running.directory
    return {
        "name": item.name,
        "vni": item.vni,
        "subnets": [_subnet(item, index) for index in range(len(item.subnets))],
        "internal": item.internal,
        "isolate_subnets": item.isolate_subnets,
        "labels": dict(item.labels),
        "creator": directory.node_name(item.creator),
        "endpoints": sum(1 for _ in directory.endpoints(item.vni)),
        "hosts": _names(directory, directory.participants(item.vni, forwarding=True)),
        "here": running.datapath.runtime(item.vni) is not None
        or (not has_sandbox(item) and any(a.vni == item.vni for a in running.attachments.values())),
        "mtu": running.datapath.mtu_of(item) if has_sandbox(item) else None,
        "mtu_why": running.resizing.why(item),
        "driver": driver_of(item),
        "parent": parent_of(item) or None,
        **outsideviews.here(item, running),
    }


def _subnet(item: Network, index: int) -> networkanswers.SubnetShown:
    subnet = item.subnets[index]
    start = subnet.ip_range
    return {
        "subnet": str(subnet),
        "gateway": ip_text(subnet.gateway),
        "gateway_mac": mac_text(gateway_mac(item.vni, index)),
        "ip_range": None if start is None else f"{ip_text(start[0])}/{start[1]}",
        "auxiliary": {name: ip_text(ip) for name, ip in subnet.auxiliary},
        "block_length": subnet.block_length or None,
    }


def network_detail(item: Network, running: Running) -> networkanswers.NetworkDetail:
    """Show all that is known of one network."""
    directory = running.directory
    return {
        **network(item, running),
        "endpoint_list": endpoints(running, [item]),
        "host_ends": outsideviews.host_ends(item, running),
        "participants": _names(directory, directory.participants(item.vni, forwarding=False)),
        "grants": [
            _grant(item, share, directory) for share in running.addresses.space.shares(item)
        ],
    }


def _grant(item: Network, share: Share, directory: Directory) -> networkanswers.Share:
    return {
        "node": directory.node_name(share.owner),
        "subnet": str(item.subnets[share.subnet_index]),
        "addresses": share.owned,
        "free": share.free,
    }


def endpoints(running: Running, networks: list[Network]) -> list[networkanswers.Endpoint]:
    """Show the endpoints of some networks, in order of network and address."""
    shown = []
    for item in networks:
        for placed in running.directory.endpoints(item.vni):
            local = running.attachments.get(placed.endpoint.endpoint_id)
            shown.append((item, placed.origin, placed.endpoint, local))
    shown.sort(key=lambda row: (row[0].name, row[2].ips))
    return [_endpoint(running, item, origin, found, local) for item, origin, found, local in shown]


def _endpoint(
    running: Running, item: Network, origin: NodeId, found: Endpoint, local: Attachment | None
) -> networkanswers.Endpoint:
    rates = rates_of(found.labels)
    return {
        "id": found.endpoint_id.hex(),
        "name": found.name,
        "network": item.name,
        "vni": item.vni,
        "ips": [ip_text(ip) for ip in found.ips],
        "mac": mac_text(found.mac),
        "node": running.directory.node_name(origin),
        "node_state": STATES[running.directory.node_state(origin)],
        "local": origin == running.member.node_id,
        "target": local.target if local is not None else None,
        "ifname": local.ifname if local is not None else None,
        "aliases": list(found.aliases),
        "labels": dict(found.labels),
        "rate_in": rates.in_bits or None,
        "rate_out": rates.out_bits or None,
        "gateway_priority": local.gateway_priority if local is not None and local.gateway else None,
    }


def attached(result: Result) -> networkanswers.AttachedEndpoint:
    """Show what an attach gave."""
    return {
        "network": result.network.name,
        "ip": ip_text(result.endpoint.ips[0]),
        "ips": [ip_text(ip) for ip in result.endpoint.ips],
        "mac": mac_text(result.endpoint.mac),
        "ifname": result.ifname,
        "name": result.endpoint.name,
        "created": result.created,
        "changed": [
            {"field": change.field, "before": change.before, "after": change.after}
            for change in result.changes
        ],
    }


def status(agent: Agent) -> answers.Status:
    """Show how this node and its cluster are."""
    running = agent.running
    alone: answers.Status = {
        "version": __version__,
        "uptime_s": round(time.monotonic() - agent.started, 1),
        "state_dir": str(agent.config.state_dir),
        "config": str(agent.config.path) if agent.config.path else None,
        "node": None,
        "cluster": None,
        "networks": [],
        "drops": {},
        "health": [
            {
                "level": "warn",
                "text": "this host is not member of a cluster",
                "hint": "sudo overlayd join   (a new cluster)   or   "
                "sudo overlayd join PEER --token-file FILE",
            }
        ],
    }
    if running is None:
        return alone
    networks = [_network_status(item, running) for item in running.directory.networks()]
    return {
        **alone,
        "node": node(running.member.card, running.underlay.interface),
        "cluster": _cluster(running),
        "vxlan_port": running.member.cluster.vxlan_port,
        "gossip_port": running.member.cluster.gossip_port,
        "overlay_mtu": running.datapath.overlay_mtu,
        "fast_path": {
            "mode": running.datapath.fast_mode.mode,
            "active": running.datapath.fast_mode.is_active,
            "why": running.datapath.fast_mode.why or None,
        },
        "underlay_filter": _underlay_filter(running.guard),
        "networks": networks,
        "drops": dict(sorted(running.member.drops().items())),
        "gossip": {
            "received": running.member.pump.received,
            "sent": running.member.pump.sent,
            "lag_max_ms": round(running.member.pump.lag.max_s(running.member.pump.now()) * 1000, 1),
        },
        "key": keyviews.summary(running),
        "health": health(running, networks),
    }


def _underlay_filter(guard: Guard) -> answers.UnderlayFilter:
    return {
        "active": not guard.fault,
        "why": guard.fault or None,
        "members": guard.members,
        "refused": guard.refused,
        "refused_astray": guard.refused_astray,
    }


def _cluster(running: Running) -> answers.Cluster:
    counts: answers.StateCounts = {"alive": 1, "suspect": 0, "dead": 0, "left": 0}
    for item in running.member.node.membership.members():
        if item.node_id != running.member.node_id:
            counts[STATES[item.state]] += 1
    parted = running.member.node.membership.partitioned
    return {
        "id": running.member.cluster.cluster_id[:8],
        "members": counts,
        "partitioned": None if parted is None else {"seen": parted[0], "total": parted[1]},
    }


def _network_status(item: Network, running: Running) -> answers.NetworkStatus:
    runtime = running.datapath.runtime(item.vni)
    local = sum(1 for a in running.attachments.values() if a.vni == item.vni)
    state: answers.Sandbox = "absent"
    if runtime is not None:
        state = "degraded" if runtime.failures else "ok"
    faults = [] if runtime is None else runtime.failures[:5]
    if not has_sandbox(item):
        faults = running.plugging.parented.faults_of(item.vni)[:5]
        state = "degraded" if faults else "none"
    return {
        "name": item.name,
        "vni": item.vni,
        "subnets": [str(subnet) for subnet in item.subnets],
        "driver": driver_of(item),
        "parent": parent_of(item) or None,
        "endpoints_local": local,
        "endpoints_total": sum(1 for _ in running.directory.endpoints(item.vni)),
        "sandbox": state,
        "rows": {
            "desired": 0 if runtime is None else runtime.rows_desired,
            "actual": 0 if runtime is None else runtime.rows_actual,
        },
        "passes": 0 if runtime is None else runtime.passes,
        "reads": 0 if runtime is None else runtime.reads,
        "operations": 0 if runtime is None else runtime.operations,
        "failures": faults,
    }


def _names(directory: Directory, nodes: list[NodeId]) -> list[str]:
    return sorted(directory.node_name(item) for item in nodes)
