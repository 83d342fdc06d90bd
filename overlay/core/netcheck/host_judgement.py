"""Judge the facts about this host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from overlay import limits
from overlay.core.netcheck.facts import AgentState, BlockedPacket, LocalFacts, NetcheckFinding

HOST: Final = "this host"
_STRICT: Final = 1  # rp_filter (Documentation/networking/ip-sysctl.rst)


def judge_host(host: LocalFacts) -> Iterator[NetcheckFinding]:
    """Yield what is wrong on this host, errors of its interface first."""
    yield from _interface(host)
    yield from _agent(host)
    yield from _filters(host)
    yield from _tables(host)
    yield from _counters(host)
    yield from _kernel(host)


def _interface(host: LocalFacts) -> Iterator[NetcheckFinding]:
    name = host.interface
    if name is None:
        yield NetcheckFinding(
            "error",
            "no-route",
            HOST,
            "this host has no route to the others",
            "no interface that is up has an address",
            "'ip address' and 'ip route' show what there is; bring the underlay's interface up",
        )
    elif not host.is_up:
        yield NetcheckFinding(
            "error",
            "interface-down",
            HOST,
            f"interface {name} is down: nothing leaves this host",
            "it was taken down ('ip link set down', or by the network's configuration)",
            f"ip link set {name} up",
        )
    elif not host.has_carrier:
        yield NetcheckFinding(
            "error",
            "no-carrier",
            HOST,
            f"interface {name} has no link: nothing leaves this host",
            "the cable, the switch's port or the other end is off",
            f"'ip -d link show {name}' and 'ethtool {name}'; look at the cable and the switch",
        )
    if name is not None and host.mtu < limits.UNDERLAY_MTU_MIN:
        yield NetcheckFinding(
            "error",
            "mtu-too-small",
            HOST,
            f"the MTU of {name} is {host.mtu}: too small for an overlay",
            f"at least {limits.UNDERLAY_MTU_MIN} bytes are needed",
            f"ip link set {name} mtu 1500",
        )
    if host.ipv6_disabled:
        yield NetcheckFinding(
            "error",
            "ipv6-disabled",
            HOST,
            f"IPv6 is disabled on {name}, which has the underlay's address",
            "",
            f"sysctl -w net.ipv6.conf.{name}.disable_ipv6=0",
        )


def _agent(host: LocalFacts) -> Iterator[NetcheckFinding]:
    if host.agent is AgentState.DEAD:
        forwards = (
            "its networks forward to what they knew, but learn nothing new"
            if host.sandboxes
            else "no network of overlayd is left here"
        )
        yield NetcheckFinding(
            "error",
            "agent-dead",
            HOST,
            "the agent on this host has died",
            forwards,
            "sudo systemctl restart overlayd (or: sudo overlayd join), and look at the end of its "
            "log: journalctl -u overlayd",
        )
    elif host.agent is AgentState.HANGING:
        yield NetcheckFinding(
            "error",
            "agent-hangs",
            HOST,
            "the agent on this host does not answer",
            "the host is overloaded, or the agent hangs; forwarding continues meanwhile",
            "sudo systemctl restart overlayd; its log: journalctl -u overlayd",
        )
    elif host.agent is AgentState.HIDDEN:
        yield NetcheckFinding(
            "note", "agent-hidden", HOST, "the agent was not asked", "this user may not", "Use sudo"
        )
    if host.gossip_port_taken:
        port = host.gossip_port
        yield NetcheckFinding(
            "error",
            "gossip-port-taken",
            HOST,
            f"another program uses the gossip port {port}/udp",
            "",
            f"'ss -lnup sport = :{port}' shows it; end it, or create the cluster with another "
            "--gossip-port",
        )


def _filters(host: LocalFacts) -> Iterator[NetcheckFinding]:
    by_rule: dict[tuple[object, ...], list[BlockedPacket]] = {}
    for blocked in host.blocked:
        if blocked.obstacle.certain:
            rule = (blocked.port, blocked.incoming, blocked.is_large, blocked.obstacle)
            by_rule.setdefault(rule, []).append(blocked)
    for found in by_rule.values():
        yield _blocked(found, host)
    if host.filter_rewritten_s is not None:
        yield NetcheckFinding(
            "warn",
            "filter-rewritten",
            HOST,
            f"overlayd's nftables rules were changed or deleted {host.filter_rewritten_s:.0f} s "
            "ago; the agent has rewritten them",
            "another program ran 'nft flush ruleset', or reloaded a firewall that does",
            "Rules of other programs do not return by themselves: restart Docker or the firewall. "
            "Let the firewall flush only its own tables",
        )
    for text in host.unchecked:
        yield NetcheckFinding("note", "unchecked", HOST, text)


def _blocked(found: list[BlockedPacket], host: LocalFacts) -> NetcheckFinding:
    blocked = found[0]
    peers = ", ".join(each.peer for each in found[:3]) + (", ..." if len(found) > 3 else "")
    what = "gossip" if blocked.port == host.gossip_port else "VXLAN"
    if blocked.port in host.wireguard_ports:
        what = "WireGuard"
    size = f"packets of {blocked.size} bytes of " if blocked.is_large else ""
    way = f"from {peers}" if blocked.incoming else f"to {peers}"
    return NetcheckFinding(
        "error",
        f"{what.lower()}-filtered-here",
        HOST,
        f"a packet filter of this host drops {size}{what} {way} (UDP {blocked.port})",
        f"by {blocked.obstacle.where}",
        blocked.obstacle.remedy,
    )


def _tables(host: LocalFacts) -> Iterator[NetcheckFinding]:
    for table in host.full_tables:
        lost = f"; {table.refused} entries were refused during this check" if table.refused else ""
        yield NetcheckFinding(
            "error" if table.entries >= table.limit or table.refused else "warn",
            "table-full",
            HOST,
            f"the {table.name} table is {'' if table.entries >= table.limit else 'nearly '}full: "
            f"{table.entries} of {table.limit} entries{lost}",
            "when it is full the kernel drops packets of new connections or neighbors",
            f"sysctl -w {table.sysctl}={4 * max(1, table.limit)} (and in /etc/sysctl.d)",
        )


def _counters(host: LocalFacts) -> Iterator[NetcheckFinding]:
    name = host.interface or "the interface"
    if host.rp_filter_drops:
        yield NetcheckFinding(
            "error" if host.rp_filter == _STRICT else "warn",
            "rp-filter",
            HOST,
            f"reverse-path filtering drops packets: {host.rp_filter_drops} during this check",
            f"rp_filter is {host.rp_filter} on {name}, and packets arrive by an interface that "
            "does not lead back to their sender",
            f"Use one route in both directions, or: sysctl -w net.ipv4.conf.{name}.rp_filter=2 "
            "net.ipv4.conf.all.rp_filter=2",
        )
    for errors in host.checksum_errors:
        yield NetcheckFinding(
            "error" if errors.recent >= limits.CHECKSUM_ERRORS_MIN else "warn",
            "checksums",
            HOST,
            f"packets arrive at {errors.where} with a wrong checksum, and are dropped: "
            f"{errors.recent} within the last minute",
            "an interface that leaves checksums to hardware which does not compute them inside "
            "VXLAN: pings pass, TCP connections stall. The sender's interface is to blame, or a "
            "device on the way",
            f"On the sending host: ethtool -K {name} tx off (tx-udp_tnl-csum-segmentation off "
            "where that is listed); if it helps, keep it in the network's configuration",
        )
    if host.buffer_errors:
        yield NetcheckFinding(
            "warn",
            "receive-buffer",
            HOST,
            f"{host.buffer_errors} UDP packets were dropped for want of buffer during this check",
            "this host is overloaded, or a program does not read its socket",
            "'ss -lnump' shows whose buffer is full",
        )


def _kernel(host: LocalFacts) -> Iterator[NetcheckFinding]:
    if host.missing_modules:
        names = " ".join(host.missing_modules)
        yield NetcheckFinding(
            "error" if {"vxlan", "bridge", "veth"} & set(host.missing_modules) else "warn",
            "kernel-modules",
            HOST,
            f"the kernel lacks: {names}",
            "neither built in nor among the modules of the running kernel; after an upgrade of the "
            "kernel, the modules of the running one may be gone until the next boot",
            f"modprobe {host.missing_modules[0]}; install the distribution's full kernel package, "
            "or reboot",
        )
