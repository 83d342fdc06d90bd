"""Judge what is known of a member and of the data path to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from overlay.core.netcheck.address_judgement import (
    REJECTIONS,
    clock_findings,
    dark_finding,
    is_alive,
    is_cut_off_here,
    rejected_finding,
)
from overlay.core.netcheck.facts import (
    AddressFacts,
    Facts,
    LocalFacts,
    NetcheckFinding,
    PeerFacts,
    Reply,
)

_BAD: Final = ("lost", "silent", "damaged")


def judge_peer(peer: PeerFacts, facts: Facts) -> Iterator[NetcheckFinding]:
    """Yield what is wrong with a member, and the way to it."""
    if is_cut_off_here(facts.host):
        return  # the finding about this host says all that can be known
    if _is_former_identity(peer, facts):
        yield _former_identity(peer)
        return
    if peer.gossip_answers is False or peer.state in ("dead", "suspect"):
        yield _gossip_finding(peer, facts)
        return
    yield from clock_findings(peer.name, peer.clock_ahead_s, peer.clock_error_s)
    if _is_heard_indirectly(peer):
        yield _gossip_from(peer, facts.host)
    if peer.shares_network:
        yield from _data(peer, facts)
    if peer.wireguard_answers is False and not (peer.is_encrypted and _is_lost(peer)):
        yield _silent_tunnel(peer, facts)
    yield from _conditions(peer)


def _gossip_finding(peer: PeerFacts, facts: Facts) -> NetcheckFinding:
    probed = facts.addresses.get(peer.address, AddressFacts(peer.address))
    name, port = peer.name, facts.host.gossip_port
    silent = f"{name} ({peer.address}) does not answer gossip (UDP {port})"
    if probed.gossip is Reply.REFUSED:
        return _dead_agent(peer, probed, facts.host)
    if probed.neighbor_failed and probed.gossip is not Reply.PROHIBITED:
        return dark_finding(name, probed)  # this host's kernel calls it unreachable for that
    if probed.gossip in REJECTIONS:
        return rejected_finding(name, probed, probed.gossip, f"gossip (UDP {port})")
    if is_alive(probed):
        if any(blocked.port == port for blocked in facts.host.blocked):
            return NetcheckFinding(
                "error",
                "gossip-lost",
                name,
                silent,
                "a filter of this host drops it, as said about this host",
            )
        return NetcheckFinding(
            "error",
            "gossip-filtered",
            name,
            silent,
            "the host is alive, as other packets are answered: a filter there or on the way drops "
            f"UDP {port}, or its agent hangs or does not run",
            f"On {name}: sudo overlayd netcheck (it names a rule there); allow UDP {port} in both "
            "directions in firewalls and security groups between the hosts",
        )
    return NetcheckFinding(
        "error",
        "host-silent",
        name,
        f"{silent}, nor anything else",
        "its MAC is known on this host's segment: it is up, and a filter there drops everything, "
        "pings included; or it went off a moment ago"
        if probed.is_neighbor
        else "the host is off, its interface is down, or the network between the two is cut",
        f"Look at {name}'s console: 'ip link', 'ip route', 'nft list ruleset'. If it is gone for "
        f"good: sudo overlayd forget {name}",
    )


def _is_former_identity(peer: PeerFacts, facts: Facts) -> bool:
    """Return whether a dead member has the address of this host or of a live member."""
    live = {each.address for each in facts.peers if each.state == "alive"}
    return peer.state == "dead" and peer.address in {facts.host.address, *live}


def _former_identity(peer: PeerFacts) -> NetcheckFinding:
    return NetcheckFinding(
        "note",
        "former-identity",
        peer.name,
        f"{peer.name} ({peer.address}) is dead, and a live member has its address",
        "a host that has joined anew is a new member; this is its former identity",
        "Forget it by its id, which 'overlayd members --wide' shows: sudo overlayd forget ID",
    )


def _is_heard_indirectly(peer: PeerFacts) -> bool:
    """Return whether neither answers nor reports of a live member arrive: others relay its gossip.

    So nothing is known of what this host sends in VXLAN.
    """
    return peer.sending == "silent" and peer.rtt_ms is None


def _gossip_from(peer: PeerFacts, host: LocalFacts) -> NetcheckFinding:
    port = host.gossip_port
    is_own = any(
        each.port == port and each.incoming and each.peer == peer.name and each.obstacle.certain
        for each in host.blocked
    )
    why = (
        "a filter of this host drops it, as said about this host"
        if is_own
        else "it counts as alive, as other members hear it: a filter on this host, or on the way "
        f"between the two, drops UDP {port} from there"
    )
    return NetcheckFinding(
        "error",
        "gossip-lost-from",
        peer.name,
        f"gossip (UDP {port}) from {peer.name} ({peer.address}) does not arrive at this host, so "
        "whether VXLAN to it arrives is not known",
        why,
        f"On {peer.name}: sudo overlayd netcheck (it names a rule there); allow UDP {port} in both "
        "directions in firewalls and security groups between the hosts",
    )


def _dead_agent(peer: PeerFacts, probed: AddressFacts, host: LocalFacts) -> NetcheckFinding:
    forwards = (
        f"; nor is anything on UDP {host.vxlan_port}: it forwards nothing"
        if probed.vxlan is Reply.REFUSED
        else f"; it does not refuse VXLAN (UDP {host.vxlan_port}), so its containers should stay "
        "reachable by address, but it learns nothing new"
    )
    return NetcheckFinding(
        "error",
        "agent-dead",
        peer.name,
        f"no agent runs on {peer.name} ({peer.address})",
        f"the host answers that nothing listens on UDP {host.gossip_port}{forwards}",
        f"On {peer.name}: sudo systemctl restart overlayd (or: sudo overlayd join); its log: "
        "journalctl -u overlayd",
    )


def _data(peer: PeerFacts, facts: Facts) -> Iterator[NetcheckFinding]:
    what, port = _carrier(peer, facts.host)
    where = f"{peer.name} ({peer.address})"
    code = what.lower()
    to_bad, from_bad = _is_lost_to(peer), _is_lost_from(peer)
    if "damaged" in (peer.sending, peer.receiving):
        yield _damaged(peer, facts)
    elif to_bad and from_bad:
        text = f"{what} (UDP {port}) is lost in both directions between this host and {where}"
        yield _lost(peer, facts, f"{code}-lost", text, None)
    elif to_bad:
        text = f"{what} (UDP {port}) from this host does not arrive at {where}"
        yield _lost(peer, facts, f"{code}-lost-to", text, False)
    elif from_bad:
        text = f"{what} (UDP {port}) from {where} does not arrive at this host"
        yield _lost(peer, facts, f"{code}-lost-from", text, True)
    elif "unknown" in (peer.sending, peer.receiving):
        yield _not_probed(peer, what, port)
    else:
        yield from _size(peer, facts)


def _not_probed(peer: PeerFacts, what: str, port: int) -> NetcheckFinding:
    """Return the finding about a path without a verdict, neither good nor bad."""
    ways = (("to", peer.sending), ("from", peer.receiving))
    unknown = " and ".join(way for way, state in ways if state == "unknown")
    return NetcheckFinding(
        "note",
        "not-probed",
        peer.name,
        f"{what} (UDP {port}) {unknown} {peer.name} ({peer.address}) has not been probed yet",
        "the first probes take some seconds, once both hosts have a network in common",
        "Try again in some seconds: sudo overlayd netcheck",
    )


def _is_lost_to(peer: PeerFacts) -> bool:
    if _is_heard_indirectly(peer):
        return False
    return peer.sending in _BAD or (peer.is_waiting and peer.sending != "unknown")


def _is_lost_from(peer: PeerFacts) -> bool:
    return peer.receiving == "lost" or peer.is_unheard


def _is_lost(peer: PeerFacts) -> bool:
    return _is_lost_to(peer) or _is_lost_from(peer)


def _carrier(peer: PeerFacts, host: LocalFacts) -> tuple[str, int]:
    """Return what carries the probes of a peer, and its UDP port."""
    if peer.is_encrypted and peer.wireguard_port is not None:
        return "WireGuard", peer.wireguard_port
    return "VXLAN", host.vxlan_port


def _silent_tunnel(peer: PeerFacts, facts: Facts) -> NetcheckFinding:
    """Return the finding about a tunnel that carries nothing, beside a path in clear."""
    port = peer.wireguard_port
    text = (
        f"WireGuard (UDP {port}) to {peer.name} ({peer.address}) gets no answer: encrypted "
        "networks do not reach it"
    )
    return _lost(peer, facts, "wireguard-lost", text, None, ("WireGuard", port or 0))


def _lost(
    peer: PeerFacts,
    facts: Facts,
    code: str,
    text: str,
    incoming: bool | None,
    carrier: tuple[str, int] | None = None,
) -> NetcheckFinding:
    """Return the finding about a direction that is lost; `incoming` is None if both are."""
    what, port = carrier or _carrier(peer, facts.host)
    is_tunnel = what == "WireGuard"
    probed = facts.addresses.get(peer.address)
    if is_tunnel and probed is not None and probed.wireguard is Reply.REFUSED:
        why = f"{peer.name} answers that nothing listens there: its WireGuard device is gone"
        hint = (
            f"On {peer.name}: overlayd encryption status; its agent makes the device again "
            "('overlayd events')"
        )
        return NetcheckFinding("error", code, peer.name, text, why, hint)
    own = [
        each.obstacle
        for each in facts.host.blocked
        if each.port == port
        and not each.is_large
        and each.peer == peer.name
        and incoming in (None, each.incoming)
    ]
    if any(obstacle.certain for obstacle in own):
        why = "a filter of this host drops it, as said about this host"
        return NetcheckFinding("error", code, peer.name, text, why)
    suspect = {None: "either host", True: "this host", False: peer.name}[incoming]
    why = f"gossip (UDP {facts.host.gossip_port}) between the two works, so both hosts are well"
    others = [each for each in facts.peers if each is not peer and _has_carrier(each, what)]
    well = sorted(each.name for each in others if _carries(each, what))
    if well:
        why += f"; {what} to {', '.join(well[:3])} works"
    elif others:
        why += f"; {what} to no other member works either"
        suspect = "this host"
    why += f": a filter on {suspect}, or on the way between the two, drops UDP {port}"
    if own:
        why, hint = f"{why}; perhaps {own[0].where}", own[0].remedy
    else:
        hint = (
            f"On {peer.name}: sudo overlayd netcheck (it names a rule there). Allow UDP {port} in "
            "firewalls and security groups"
        )
        if not is_tunnel:
            hint += (
                "; where the platform keeps that port for itself, create the cluster with another "
                "--vxlan-port"
            )
    return NetcheckFinding("error", code, peer.name, text, why, hint)


def _has_carrier(peer: PeerFacts, what: str) -> bool:
    return peer.shares_network if what == "VXLAN" else peer.wireguard_answers is not None


def _carries(peer: PeerFacts, what: str) -> bool:
    return _is_well(peer) if what == "VXLAN" else peer.wireguard_answers is True


def _is_well(peer: PeerFacts) -> bool:
    return peer.sending == peer.receiving == "ok" and not peer.is_waiting and not peer.is_unheard


def _damaged(peer: PeerFacts, facts: Facts) -> NetcheckFinding:
    sends = peer.sending == "damaged"
    interface = (facts.host.interface if sends else None) or "INTERFACE"
    way = f"to {peer.name} ({peer.address})" if sends else f"from {peer.name} ({peer.address})"
    sender = "this host" if sends else peer.name
    return NetcheckFinding(
        "error",
        "checksums",
        peer.name,
        f"packets {way} arrive with wrong checksums and are dropped",
        "VXLAN packets without checksums pass, those with checksums do not: an interface computes "
        f"them wrongly, that of {sender} or a device on the way",
        f"On {sender}: ethtool -K {interface} tx off; if it helps, keep it in the network's "
        "configuration",
    )


def _size(peer: PeerFacts, facts: Facts) -> Iterator[NetcheckFinding]:
    where = f"{peer.name} ({peer.address})"
    hint = (
        "Look for a tunnel, a VPN or a filter between the two hosts. Give the underlay's interface "
        "the MTU of the path: ip link set {interface} mtu {size}"
    )
    interface = facts.host.interface or "INTERFACE"
    small = [each for each in facts.host.blocked if each.is_large]
    blamed = f" (this host drops them by {small[0].obstacle.where})" if small else ""
    carried = peer.size_carried
    if carried is not None and 0 < carried < peer.size_expected:
        yield NetcheckFinding(
            "warn",
            "size-limited",
            peer.name,
            f"packets above {carried} bytes do not arrive at {where}; {peer.size_expected} should",
            f"something on the way has a smaller MTU or drops large packets{blamed}; containers' "
            "MTU follows, so nothing stalls",
            small[0].obstacle.remedy if small else hint.format(interface=interface, size=carried),
        )
    elif peer.size_fails or carried == 0:
        yield NetcheckFinding(
            "error",
            "size-fails",
            peer.name,
            f"packets of {peer.size_expected} bytes do not arrive at {where}; small ones do",
            f"something on the way has a smaller MTU or drops large packets{blamed}; the agent "
            "searches for what passes",
            small[0].obstacle.remedy if small else hint.format(interface=interface, size="SIZE"),
        )
    if peer.size_received:
        yield NetcheckFinding(
            "warn",
            "size-limited-from",
            peer.name,
            f"packets above {peer.size_received} bytes from {where} do not arrive here",
            f"something on the way has a smaller MTU or drops large packets{blamed}",
            small[0].obstacle.remedy
            if small
            else hint.format(interface=interface, size=peer.size_received),
        )


def _conditions(peer: PeerFacts) -> Iterator[NetcheckFinding]:
    if peer.filter_rewritten:
        yield NetcheckFinding(
            "warn",
            "filter-rewritten",
            peer.name,
            f"overlayd's nftables rules on {peer.name} were changed or deleted within the last "
            "minutes; its agent has rewritten them",
            "another program there ran 'nft flush ruleset', or reloaded a firewall that does",
            f"On {peer.name}: restart Docker or the firewall, whose rules do not return by "
            "themselves",
        )
    if peer.filter_broken:
        yield NetcheckFinding(
            "warn",
            "filter-broken",
            peer.name,
            f"{peer.name} cannot write its filter of the VXLAN port",
            "",
            f"On {peer.name}: overlayd status",
        )
    if peer.checksum_errors:
        yield NetcheckFinding(
            "warn",
            "checksums",
            peer.name,
            f"containers on {peer.name} receive packets with wrong checksums",
            "an interface of a sender leaves checksums to hardware that does not compute them "
            "inside VXLAN: pings pass, TCP connections stall",
            f"On {peer.name}: sudo overlayd netcheck counts them. On the hosts that send there: "
            "ethtool -K INTERFACE tx off",
        )
