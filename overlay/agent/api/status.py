"""GET /v1/status: how this node, its networks and its cluster are."""

from __future__ import annotations

import time

from overlay import __version__
from overlay.agent.api import key_views
from overlay.agent.api.health import health
from overlay.agent.api.schema import responses
from overlay.agent.api.schema.responses import STATES
from overlay.agent.components import Running
from overlay.agent.dataplane.underlay_filter import Guard
from overlay.agent.lifecycle import Agent
from overlay.core.dataplane.network_drivers import driver_of, has_sandbox, parent_of
from overlay.model import (
    Card,
    Network,
    ip_text,
    node_text,
)


def node(card: Card, interface: str) -> responses.Node:
    """Show this node."""
    return {
        "id": node_text(card.node_id),
        "name": card.name,
        "epoch": card.epoch,
        "address": ip_text(card.address),
        "interface": interface,
        "underlay_mtu": card.underlay_mtu,
    }


def status(agent: Agent) -> responses.Status:
    """Show how this node and its cluster are."""
    running = agent.running
    alone: responses.Status = {
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
        "key": key_views.summary(running),
        "health": health(running, networks),
    }


def _underlay_filter(guard: Guard) -> responses.UnderlayFilter:
    return {
        "active": not guard.fault,
        "why": guard.fault or None,
        "members": guard.members,
        "refused": guard.refused,
        "refused_astray": guard.refused_astray,
    }


def _cluster(running: Running) -> responses.Cluster:
    counts: responses.StateCounts = {"alive": 1, "suspect": 0, "dead": 0, "left": 0}
    for item in running.member.node.membership.members():
        if item.node_id != running.member.node_id:
            counts[STATES[item.state]] += 1
    parted = running.member.node.membership.partitioned
    return {
        "id": running.member.cluster.cluster_id[:8],
        "members": counts,
        "partitioned": None if parted is None else {"seen": parted[0], "total": parted[1]},
    }


def _network_status(item: Network, running: Running) -> responses.NetworkStatus:
    runtime = running.datapath.runtime(item.vni)
    local = sum(1 for a in running.attachments.values() if a.vni == item.vni)
    state: responses.Sandbox = "absent"
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
