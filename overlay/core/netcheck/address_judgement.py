"""Judge what packets to an address brought back, and what that tells of the host there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from overlay.core.netcheck.facts import AddressFacts, AgentState, LocalFacts, NetcheckFinding, Reply

REJECTIONS: Final = (Reply.PROHIBITED, Reply.UNREACHABLE)
_CLOCK_SKEW_S: Final = 60.0


def is_alive(probed: AddressFacts) -> bool:
    """Return whether the host there has answered anything."""
    return probed.echo_ms is not None or Reply.REFUSED in (
        probed.gossip,
        probed.vxlan,
        probed.other,
    )


def judge_address(probed: AddressFacts, host: LocalFacts) -> Iterator[NetcheckFinding]:
    """Yield the findings about a host outside the cluster, and the way to it."""
    if is_cut_off_here(host):
        return
    name = probed.address
    yield from _gossip_of_address(probed, host)
    yield from clock_findings(name, probed.clock_ahead_s, 0.0)
    vxlan = f"VXLAN (UDP {host.vxlan_port})"
    if probed.vxlan in REJECTIONS and probed.gossip not in REJECTIONS:
        yield rejected_finding(name, probed, probed.vxlan, vxlan)
    if probed.size_passed is not None and 0 < probed.size_passed < probed.size_sent:
        yield NetcheckFinding(
            "warn",
            "size-limited",
            name,
            f"packets above {probed.size_passed} bytes do not pass to {name} and back; "
            f"{probed.size_sent} should",
            "something on the way has a smaller MTU or drops large packets",
            f"Give the underlay's interface the MTU of the path: ip link set {host.interface} mtu "
            f"{probed.size_passed}",
        )


def _gossip_of_address(probed: AddressFacts, host: LocalFacts) -> Iterator[NetcheckFinding]:
    name, port = probed.address, host.gossip_port
    gossip = f"gossip (UDP {port})"
    if probed.gossip is Reply.ANSWERED:
        return
    if probed.gossip is Reply.REFUSED:
        yield NetcheckFinding(
            "error",
            "agent-dead",
            name,
            f"no agent runs on {name}",
            f"the host answers that nothing listens on UDP {port}",
            "On that host: sudo overlayd join. If it uses another port, name it with --gossip-port",
        )
    elif probed.neighbor_failed and probed.gossip is not Reply.PROHIBITED:
        yield dark_finding(name, probed)
    elif probed.gossip in REJECTIONS:
        yield rejected_finding(name, probed, probed.gossip, gossip)
    elif not is_alive(probed):
        yield NetcheckFinding(
            "error",
            "host-silent",
            name,
            f"{name} answers nothing: neither {gossip} nor ICMP nor another port",
            "the host is off or unreachable, or a filter drops everything from this host",
            f"'ip route get {name}' shows the way; look at that host's console. Security groups "
            f"must let UDP {port} and {host.vxlan_port} pass in both directions",
        )
    elif probed.has_token:
        yield NetcheckFinding(
            "error",
            "gossip-filtered",
            name,
            f"the agent on {name} does not answer {gossip}",
            "the host is alive: a filter there or on the way drops the port, or the token is of "
            "another cluster (then its agent does not answer)",
            f"Allow UDP {port} in both directions; compare: sudo overlayd token show on that host",
        )
    else:
        yield NetcheckFinding(
            "note",
            "gossip-unproven",
            name,
            f"UDP {port} of {name} is silent: its agent runs, or a filter drops the port",
            "an agent does not answer strangers",
            "To tell these apart: overlayd netcheck "
            f"{name} --token-file FILE (the token of the cluster)"
            if host.agent is not AgentState.MEMBER
            else "Only hosts of this cluster answer this one",
        )


def rejected_finding(name: str, probed: AddressFacts, reply: Reply, what: str) -> NetcheckFinding:
    """Return the finding about ICMP errors other than a closed port."""
    by = probed.rejected_by or probed.address
    if reply is Reply.UNREACHABLE:
        return NetcheckFinding(
            "error",
            "unreachable",
            name,
            f"{name} is unreachable for {what}",
            f"{by} says so",
            f"'ip route get {probed.address}' shows the way; look at the routes on it",
        )
    return NetcheckFinding(
        "error",
        "rejected",
        name,
        f"a filter rejects {what} to {name}",
        f"{by} answers that it is prohibited",
        f"On {by}: allow it ('nft list ruleset', 'firewall-cmd --list-all', 'ufw status')",
    )


def dark_finding(name: str, probed: AddressFacts) -> NetcheckFinding:
    """Return the finding about a neighbor that does not answer ARP."""
    return NetcheckFinding(
        "error",
        "neighbor-missing",
        name,
        f"{name} ({probed.address}) is not on the segment: its MAC does not resolve",
        "the host is off, its interface is down, it has another address, or the cable or VLAN "
        "between the two is cut; a filter of UDP would not stop ARP",
        f"On {name}'s console: 'ip address'; 'ip link set INTERFACE up'",
    )


def clock_findings(name: str, ahead_s: float | None, error_s: float) -> Iterator[NetcheckFinding]:
    """Yield that two clocks differ by more than a minute."""
    if ahead_s is None or abs(ahead_s) <= _CLOCK_SKEW_S + error_s:
        return
    order = "ahead of" if ahead_s > 0 else "behind"
    yield NetcheckFinding(
        "warn",
        "clock-skew",
        name,
        f"the clock of {name} is {abs(ahead_s):.0f} s {order} this host's",
        "tokens and certificates are valid for a time: hosts whose clocks differ refuse them",
        "timedatectl set-ntp true (on the host whose time is wrong: 'timedatectl')",
    )


def is_cut_off_here(host: LocalFacts) -> bool:
    """Return whether nothing leaves this host, so that nothing else can be known."""
    return host.interface is None or not host.is_up or not host.has_carrier
