"""GET /v1/status: the state of this node, its networks and its cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator

from overlay import __version__, limits
from overlay.agent.api import keys
from overlay.agent.api.plug.handlers import plugs
from overlay.agent.api.schema import cluster as schema
from overlay.agent.api.schema.cluster import STATE_NAMES
from overlay.agent.components import Components
from overlay.agent.dataplane.underlay_filter import UnderlayFilter
from overlay.agent.health import faults, network_failures
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.native.data_path import data_path_of
from overlay.agent.notices import notices
from overlay.agent.process.controller import Fault
from overlay.core.dataplane.network_drivers import driver_of, has_sandbox, parent_interface_of
from overlay.model import (
    Card,
    Network,
    has_default_deny,
    ip_text,
    isolates_ports,
    node_text,
)

_NOT_IN_CLUSTER = Fault(
    "this host is not in a cluster",
    "sudo overlayd join   (a new cluster)   or   sudo overlayd join PEER --token-file FILE",
)


def node(card: Card, interface: str) -> schema.NodeResponse:
    """Return this node as the API shows it."""
    return {
        "id": node_text(card.node_id),
        "name": card.name,
        "epoch": card.epoch,
        "address": ip_text(card.address),
        "interface": interface,
        "underlay_mtu": card.underlay_mtu,
    }


def status(agent: AgentLifecycle) -> schema.StatusResponse:
    """Return the state of this node and its cluster."""
    components = agent.components
    alone: schema.StatusResponse = {
        "version": __version__,
        "uptime_s": round(time.monotonic() - agent.started, 1),
        "state_dir": str(agent.config.state_dir),
        "config": str(agent.config.path) if agent.config.path else None,
        "node": None,
        "cluster": None,
        "networks": [],
        "drops": {},
        "health": _health([_NOT_IN_CLUSTER, *_agent_faults(agent)]),
    }
    if components is None:
        return alone
    networks = [_network_status(item, components) for item in components.directory.networks()]
    forwarding = components.forwarding
    fast_path = forwarding.reconciler.fast_path
    return {
        **alone,
        "node": node(components.gossip.card, forwarding.underlay.interface),
        "cluster": _cluster(components),
        "vxlan_port": components.gossip.cluster.vxlan_port,
        "gossip_port": components.gossip.cluster.gossip_port,
        "overlay_mtu": forwarding.reconciler.overlay_mtu,
        "fast_path": {
            "mode": fast_path.mode,
            "active": fast_path.is_active,
            "why": fast_path.why or None,
        },
        "native_path": _native_path(components),
        "gate": _gate(components),
        "services_at_connect": {
            "mode": components.service_data_plane.at_connect.mode,
            "active": not components.service_data_plane.at_connect.why,
            "why": components.service_data_plane.at_connect.why or None,
        },
        "underlay_filter": _underlay_filter(forwarding.underlay_filter),
        "networks": networks,
        "drops": dict(sorted((components.gossip.drops() | forwarding.paths.drops).items())),
        "paths": _paths(components),
        "gossip": {
            "received": components.gossip.transport.received,
            "sent": components.gossip.transport.sent,
            "lag_max_ms": round(
                components.gossip.transport.lag.max_s(components.gossip.transport.now()) * 1000, 1
            ),
        },
        "key": keys.key_summary(components),
        "recovery": components.startup.recovery or None,
        "health": _health([*faults(components), *_agent_faults(agent)]),
        "notices": _notices(agent, components),
    }


def _notices(agent: AgentLifecycle, components: Components) -> list[schema.NoticeResponse]:
    events = agent.event_log.since(time.time() - limits.NETCHECK_REWRITTEN_S)
    return [{"text": each.text, "hint": each.hint} for each in notices(components, events)]


def _health(found: list[Fault]) -> list[schema.HealthIssue]:
    """Return what deserves attention, errors first."""
    found.sort(key=lambda fault: fault.level != "error")
    return [{"level": each.level, "text": each.text, "hint": each.hint} for each in found]


def _agent_faults(agent: AgentLifecycle) -> Iterator[Fault]:
    """Yield the faults of what the agent does in or out of a cluster."""
    for source in agent.fault_sources:
        yield from source.faults()


def _native_path(components: Components) -> schema.NativePathResponse:
    native = components.forwarding.native_path
    return {
        "mode": native.mode,
        "active": not native.why,
        "why": native.why or None,
        "interfaces": native.interfaces,
    }


def _gate(components: Components) -> schema.GateResponse:
    rules = components.exposure.rules
    plan = rules.gate.plan if rules.is_gated else None
    return {
        "mode": rules.gate.decision.mode,
        "active": rules.is_gated,
        "why": rules.gate.decision.why or None,
        "ports": None
        if plan is None
        else {"first": plan.gate.block.first, "last": plan.gate.block.last},
    }


def _underlay_filter(underlay_filter: UnderlayFilter) -> schema.UnderlayFilterResponse:
    fault = underlay_filter.fault
    return {
        "active": fault is None,
        "why": None if fault is None else fault.reason,
        "members": underlay_filter.members,
        "refused": underlay_filter.refused,
        "refused_astray": underlay_filter.refused_misdirected,
    }


def _paths(components: Components) -> list[schema.PeerPathResponse]:
    """Return the data paths that are probed, by the name of the peer."""
    found: list[schema.PeerPathResponse] = [
        {
            "peer": components.directory.node_name(view.node_id),
            "ok": view.carries,
            "size_carried": view.size_carried,
        }
        for view in components.forwarding.paths.paths()
    ]
    return sorted(found, key=lambda each: each["peer"])


def _cluster(components: Components) -> schema.ClusterResponse:
    counts: schema.MemberStateCounts = {"alive": 1, "suspect": 0, "dead": 0, "left": 0}
    for item in components.gossip.node.membership.members():
        if item.node_id != components.gossip.node_id:
            counts[STATE_NAMES[item.state]] += 1
    parted = components.gossip.node.membership.partitioned
    return {
        "id": components.gossip.cluster.cluster_id[:8],
        "members": counts,
        "partitioned": None if parted is None else {"seen": parted[0], "total": parted[1]},
        "authority_holders": components.administration.holders.count(),
    }


def _network_status(item: Network, components: Components) -> schema.NetworkStatusResponse:
    forwarding = components.forwarding
    runtime = forwarding.reconciler.runtime(item.vni)
    local = sum(1 for a in components.attachments.values() if a.vni == item.vni)
    state: schema.SandboxStateName = "absent"
    if runtime is not None:
        state = "degraded" if runtime.failures else "ok"
    failures = network_failures(components, item)
    path = data_path_of(item, forwarding.reconciler, forwarding.native_path)
    if not has_sandbox(item):
        state = "degraded" if failures else "none"
    return {
        "name": item.name,
        "vni": item.vni,
        "subnets": [str(subnet) for subnet in item.subnets],
        "driver": driver_of(item),
        "parent": parent_interface_of(item) or None,
        "endpoints_local": local,
        "endpoints_total": sum(1 for _ in components.directory.endpoints(item.vni)),
        "policies": len(components.policies.catalog.policies(item.vni)),
        "default_deny": has_default_deny(item),
        "routers": [each.name for each in components.routers.registry.catalog.on(item.vni)],
        "isolate_ports": isolates_ports(item),
        "sandbox": state,
        "rows": {
            "desired": 0 if runtime is None else runtime.rows_desired,
            "actual": 0 if runtime is None else runtime.rows_actual,
        },
        "passes": 0 if runtime is None else runtime.passes,
        "reads": 0 if runtime is None else runtime.reads,
        "comparisons": 0 if runtime is None else runtime.comparisons,
        "operations": 0 if runtime is None else runtime.operations,
        "failures": failures,
        "plugs": plugs(item, components),
        "data_path": None if path is None else path.name,
        "data_path_why": None if path is None else path.why or None,
    }
