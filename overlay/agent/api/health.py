"""What is wrong on this node or in its cluster, in words for people, each with what to do.

Owns: the `health` lines of `overlayd status`. Changes nothing.
"""

from __future__ import annotations

import time

from overlay import limits
from overlay.agent.api import exposure
from overlay.agent.api.schema.cluster import HealthIssue, NetworkStatusResponse
from overlay.agent.components import Components
from overlay.agent.dataplane.reconciler import sandbox_name
from overlay.core.protocol.messages import MemberState
from overlay.kernel.host import neighbor_table
from overlay.model import ip_text

_DAY_S = 86_400


def health(components: Components, networks: list[NetworkStatusResponse]) -> list[HealthIssue]:
    """Return what deserves attention, the worst first."""
    return [
        *_standing(components),
        *_host(components),
        *_partition(components),
        *_members(components),
        *_networks(networks),
        *_names(components),
        *_clashes(components),
        *_underlay_mtu(components),
        *_keys(components),
        *_fast_path(components),
        *_underlay_filter(components),
        *_port_security(components),
        *exposure.exposure_health(components),
    ]


def _host(components: Components) -> list[HealthIssue]:
    """Look at what the node stands on: its disk, its underlay, its neighbour tables."""
    found: list[HealthIssue] = []
    if components.gossip.state.fault:
        found.append(
            {
                "level": "error",
                "text": f"the state cannot be written: {components.gossip.state.fault}",
                "hint": "Free space or make the disk writable; what is attached keeps running",
            }
        )
    if components.underlay.fault:
        found.append(
            {
                "level": "error",
                "text": f"the underlay: {components.underlay.fault}",
                "hint": "The agent follows by itself once it can ('overlayd events' tells)",
            }
        )
    return found + _neighbour_tables(components.reconciler.neighbor_count())


def _neighbour_tables(own: int) -> list[HealthIssue]:
    return [
        {
            "level": "warn",
            "text": f"the {table.family} neighbour table is nearly full: "
            f"{table.entries - own} of {table.limit} entries besides overlayd's own",
            "hint": f"sysctl -w {table.sysctl}={4 * table.limit} (and gc_thresh1, gc_thresh2); "
            "beyond the limit containers find no new neighbours",
        }
        for table in neighbor_table.neighbor_tables()
        if table.entries - own >= limits.NEIGHBOURS_FULL * table.limit
    ]


def _partition(components: Components) -> list[HealthIssue]:
    parted = components.gossip.node.membership.partitioned
    if parted is None:
        return []
    return [
        {
            "level": "error",
            "text": f"partitioned: I see {parted[0]} of {parted[1]}",
            "hint": "Check this host's underlay; forwarding is left as it is",
        }
    ]


def _members(components: Components) -> list[HealthIssue]:
    found: list[HealthIssue] = []
    for item in components.gossip.node.membership.members():
        if item.state in (MemberState.SUSPECT, MemberState.DEAD):
            name = components.directory.node_name(item.node_id)
            found.append(
                {
                    "level": "warn",
                    "text": f"{name} is {item.state.name.lower()}",
                    "hint": f"Its agent does not answer on port "
                    f"{components.gossip.cluster.gossip_port}/udp; its containers stay forwarded. "
                    f"If it is gone for good: overlayd forget {name}",
                }
            )
    return found


def _networks(networks: list[NetworkStatusResponse]) -> list[HealthIssue]:
    return [
        {
            "level": "error",
            "text": f"network {shown['name']}: {shown['failures'][0]}",
            "hint": "'overlayd verify' lists every difference; the agent tries again",
        }
        for shown in networks
        if shown["sandbox"] == "degraded"
    ]


def _names(components: Components) -> list[HealthIssue]:
    networks = {network.vni: network.name for network in components.directory.networks()}
    return [
        {
            "level": "warn",
            "text": f"network {networks.get(vni, vni)}: no names on {ip_text(ip)}: {reason}",
            "hint": f"It is tried again by itself. Who has port 53 there: ip netns exec "
            f"{sandbox_name(vni, components.gossip.node_id)} ss -lnup sport = :53",
        }
        for vni, ip, reason in components.dns.faults()
    ]


def _clashes(components: Components) -> list[HealthIssue]:
    return [
        {
            "level": "warn",
            "text": f"{what} was given twice: {verdict}",
            "hint": "Made on both sides of a split. Take away the one that lost, then make it "
            "again with another name or address",
        }
        for what, verdict in components.conflict_report.found[: limits.SHOWN_CONFLICTS_MAX]
    ]


def _keys(components: Components) -> list[HealthIssue]:
    since, key_rotation = components.key_rotation.driver.waiting_since, components.key_rotation
    waited_s = 0.0 if since is None else components.gossip.transport.now() - since
    names = key_rotation.waited_for() if waited_s > limits.KEY_STUCK_S else []
    if not names:
        return []
    newest = key_rotation.driver.rotation.ring.newest.generation
    return [
        {
            "level": "warn",
            "text": f"generation {newest} of the cluster's key waits for {', '.join(names)}",
            "hint": "All goes on with the one before ('overlayd key status'). Look at its agent "
            "and disk; if the host is not to be trusted any more: overlayd forget --bar NODE",
        }
    ]


def _fast_path(components: Components) -> list[HealthIssue]:
    mode = components.reconciler.fast_path
    if not mode.is_wanted_but_missing:
        return []
    return [
        {
            "level": "warn",
            "text": f"no fast path: {mode.why}",
            "hint": 'Frames go by the bridge. fast_path = "auto" takes it only where it can be had',
        }
    ]


def _underlay_filter(components: Components) -> list[HealthIssue]:
    underlay_filter, port = components.underlay_filter, components.gossip.cluster.vxlan_port
    if underlay_filter.fault:
        return [
            {
                "level": "warn",
                "text": "anyone, a container of this host too, can put frames into the networks "
                f"by UDP {port}: {underlay_filter.fault}",
                "hint": "Forwarding goes on. Get nftables into the kernel (modprobe nf_tables "
                "nft_fib_inet nft_ct), or filter the port on the underlay yourself",
            }
        ]
    if not underlay_filter.refused_misdirected:
        return []
    return [
        {
            "level": "warn",
            "text": f"{underlay_filter.refused_misdirected} VXLAN packets with a member's address "
            "were dropped: they came by an interface that does not lead back to it",
            "hint": "Forged, unless hosts reach each other by one way and answer by another: "
            "give both directions one route",
        }
    ]


def _port_security(components: Components) -> list[HealthIssue]:
    fault = components.reconciler.port_security_fault()
    if not fault:
        return []
    return [
        {
            "level": "warn",
            "text": "a container here can use other containers' addresses, and send router "
            f"advertisements and DHCP answers: {fault}",
            "hint": "Port security needs nftables for bridges: modprobe nf_tables",
        }
    ]


def _underlay_mtu(components: Components) -> list[HealthIssue]:
    own = components.gossip.card.underlay_mtu
    return [
        {
            "level": "warn",
            "text": f"{card.name}'s underlay carries {card.underlay_mtu} bytes, ours {own}",
            "hint": "Large packets to it are lost; give both underlays the same MTU",
        }
        for item in components.gossip.node.membership.members()
        if (card := components.directory.card(item.node_id)) is not None
        and card.underlay_mtu < own
        and item.state is not MemberState.LEFT
    ]


def _standing(components: Components) -> list[HealthIssue]:
    found: list[HealthIssue] = [
        {
            "level": "error",
            "text": f"{components.directory.node_name(node_id)} says that this host was forgotten: "
            "its identity is barred, the cluster does not hear it any more",
            "hint": "To come back as a new node: sudo overlayd reset, then join again",
        }
        for node_id in list(components.identity_conflicts.forgotten_by)[:1]
    ]
    found += _rivals(components)
    certificate = components.gossip.card.certificate
    assert certificate is not None, "a member is certified"
    rest_s = certificate.not_after_s - time.time()
    if rest_s < limits.CERTIFICATE_RENEWED_S / 2:
        when = f"ends in {rest_s / _DAY_S:.0f} days" if rest_s > 0 else "has expired"
        found.append(
            {
                "level": "warn",
                "text": f"this node's certificate {when}",
                "hint": "No holder of the authority has answered ('overlayd members' shows them); "
                "forwarding goes on, but who does not know this host will not let it in",
            }
        )
    return found


def _rivals(components: Components) -> list[HealthIssue]:
    own = components.gossip.card
    return [
        {
            "level": "error",
            "text": f"a host at {ip_text(address)} uses the identity of {whose}",
            "hint": "A copied disk: the cluster hears only the one that started last. On the copy: "
            "sudo overlayd reset, then join it as a new node",
        }
        for node_id, address in components.identity_conflicts.recent_duplicates()
        for whose in [
            f"this one ({own.name})"
            if node_id == own.node_id
            else components.directory.node_name(node_id)
        ]
    ]
