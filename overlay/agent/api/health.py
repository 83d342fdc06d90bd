"""What is wrong on this node or in its cluster, in words for people, each with what to do.

Owns: the `health` lines of `overlayd status`. Changes nothing.
"""

from __future__ import annotations

import time

from overlay import limits
from overlay.agent.api import exposure_views
from overlay.agent.api.schema.responses import Concern, NetworkStatus
from overlay.agent.components import Running
from overlay.agent.dataplane.reconciler import sandbox_name
from overlay.core.protocol.messages import MemberState
from overlay.kernel.host import neighbor_table
from overlay.model import ip_text

_DAY_S = 86_400


def health(running: Running, networks: list[NetworkStatus]) -> list[Concern]:
    """Return what deserves attention, the worst first."""
    return [
        *_standing(running),
        *_host(running),
        *_partition(running),
        *_members(running),
        *_networks(networks),
        *_names(running),
        *_clashes(running),
        *_underlay_mtu(running),
        *_keys(running),
        *_fast_path(running),
        *_underlay_filter(running),
        *_port_security(running),
        *exposure_views.health(running),
    ]


def _host(running: Running) -> list[Concern]:
    """Look at what the node stands on: its disk, its underlay, its neighbour tables."""
    found: list[Concern] = []
    if running.member.state.fault:
        found.append(
            {
                "level": "error",
                "text": f"the state cannot be written: {running.member.state.fault}",
                "hint": "Free space or make the disk writable; what is attached keeps running",
            }
        )
    if running.underlay.fault:
        found.append(
            {
                "level": "error",
                "text": f"the underlay: {running.underlay.fault}",
                "hint": "The agent follows by itself once it can ('overlayd events' tells)",
            }
        )
    return found + _neighbour_tables(running.datapath.neighbour_count())


def _neighbour_tables(own: int) -> list[Concern]:
    return [
        {
            "level": "warn",
            "text": f"the {table.family} neighbour table is nearly full: "
            f"{table.entries - own} of {table.limit} entries besides overlayd's own",
            "hint": f"sysctl -w {table.sysctl}={4 * table.limit} (and gc_thresh1, gc_thresh2); "
            "beyond the limit containers find no new neighbours",
        }
        for table in neighbor_table.tables()
        if table.entries - own >= limits.NEIGHBOURS_FULL * table.limit
    ]


def _partition(running: Running) -> list[Concern]:
    parted = running.member.node.membership.partitioned
    if parted is None:
        return []
    return [
        {
            "level": "error",
            "text": f"partitioned: I see {parted[0]} of {parted[1]}",
            "hint": "Check this host's underlay; forwarding is left as it is",
        }
    ]


def _members(running: Running) -> list[Concern]:
    found: list[Concern] = []
    for item in running.member.node.membership.members():
        if item.state in (MemberState.SUSPECT, MemberState.DEAD):
            name = running.directory.node_name(item.node_id)
            found.append(
                {
                    "level": "warn",
                    "text": f"{name} is {item.state.name.lower()}",
                    "hint": f"Its agent does not answer on port "
                    f"{running.member.cluster.gossip_port}/udp; its containers stay forwarded. "
                    f"If it is gone for good: overlayd forget {name}",
                }
            )
    return found


def _networks(networks: list[NetworkStatus]) -> list[Concern]:
    return [
        {
            "level": "error",
            "text": f"network {shown['name']}: {shown['failures'][0]}",
            "hint": "'overlayd verify' lists every difference; the agent tries again",
        }
        for shown in networks
        if shown["sandbox"] == "degraded"
    ]


def _names(running: Running) -> list[Concern]:
    networks = {network.vni: network.name for network in running.directory.networks()}
    return [
        {
            "level": "warn",
            "text": f"network {networks.get(vni, vni)}: no names on {ip_text(ip)}: {reason}",
            "hint": f"It is tried again by itself. Who has port 53 there: ip netns exec "
            f"{sandbox_name(vni, running.member.node_id)} ss -lnup sport = :53",
        }
        for vni, ip, reason in running.dns.faults()
    ]


def _clashes(running: Running) -> list[Concern]:
    return [
        {
            "level": "warn",
            "text": f"{what} was given twice: {verdict}",
            "hint": "Made on both sides of a split. Take away the one that lost, then make it "
            "again with another name or address",
        }
        for what, verdict in running.clashes.found[: limits.SHOWN_CLASHES_MAX]
    ]


def _keys(running: Running) -> list[Concern]:
    since, keys = running.keys.duty.waiting_since, running.keys
    waited_s = 0.0 if since is None else running.member.pump.now() - since
    names = keys.waited_for() if waited_s > limits.KEY_STUCK_S else []
    if not names:
        return []
    newest = keys.duty.rotation.ring.newest.generation
    return [
        {
            "level": "warn",
            "text": f"generation {newest} of the cluster's key waits for {', '.join(names)}",
            "hint": "All goes on with the one before ('overlayd key status'). Look at its agent "
            "and disk; if the host is not to be trusted any more: overlayd forget --bar NODE",
        }
    ]


def _fast_path(running: Running) -> list[Concern]:
    mode = running.datapath.fast_mode
    if not mode.is_missed:
        return []
    return [
        {
            "level": "warn",
            "text": f"no fast path: {mode.why}",
            "hint": 'Frames go by the bridge. fast_path = "auto" takes it only where it can be had',
        }
    ]


def _underlay_filter(running: Running) -> list[Concern]:
    guard, port = running.guard, running.member.cluster.vxlan_port
    if guard.fault:
        return [
            {
                "level": "warn",
                "text": "anyone, a container of this host too, can put frames into the networks "
                f"by UDP {port}: {guard.fault}",
                "hint": "Forwarding goes on. Get nftables into the kernel (modprobe nf_tables "
                "nft_fib_inet nft_ct), or filter the port on the underlay yourself",
            }
        ]
    if not guard.refused_astray:
        return []
    return [
        {
            "level": "warn",
            "text": f"{guard.refused_astray} VXLAN packets with a member's address were dropped: "
            "they came by an interface that does not lead back to it",
            "hint": "Forged, unless hosts reach each other by one way and answer by another: "
            "give both directions one route",
        }
    ]


def _port_security(running: Running) -> list[Concern]:
    fault = running.datapath.unguarded()
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


def _underlay_mtu(running: Running) -> list[Concern]:
    own = running.member.card.underlay_mtu
    return [
        {
            "level": "warn",
            "text": f"{card.name}'s underlay carries {card.underlay_mtu} bytes, ours {own}",
            "hint": "Large packets to it are lost; give both underlays the same MTU",
        }
        for item in running.member.node.membership.members()
        if (card := running.directory.card(item.node_id)) is not None
        and card.underlay_mtu < own
        and item.state is not MemberState.LEFT
    ]


def _standing(running: Running) -> list[Concern]:
    found: list[Concern] = [
        {
            "level": "error",
            "text": f"{running.directory.node_name(node_id)} says that this host was forgotten: "
            "its identity is barred, the cluster does not hear it any more",
            "hint": "To come back as a new node: sudo overlayd reset, then join again",
        }
        for node_id in list(running.doubts.barred_by)[:1]
    ]
    found += _rivals(running)
    certificate = running.member.card.certificate
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


def _rivals(running: Running) -> list[Concern]:
    own = running.member.card
    return [
        {
            "level": "error",
            "text": f"a host at {ip_text(address)} uses the identity of {whose}",
            "hint": "A copied disk: the cluster hears only the one that started last. On the copy: "
            "sudo overlayd reset, then join it as a new node",
        }
        for node_id, address in running.doubts.rivals()
        for whose in [
            f"this one ({own.name})"
            if node_id == own.node_id
            else running.directory.node_name(node_id)
        ]
    ]
