"""Judge ports and rows of the sandbox: those planned, and those in the kernel."""

from __future__ import annotations

from collections.abc import Iterator

from overlay.core.dataplane.link_state import Port
from overlay.core.dataplane.port_security import DEFAULT_TARGET_MAC
from overlay.core.dataplane.state import (
    BridgeFdbRow,
    FdbRow,
    FloodRow,
    GuardRow,
    HookRow,
    IsolatedRow,
    NeighborRow,
    SandboxState,
    TargetRow,
)
from overlay.core.dataplane.tunnel_devices import sending_device
from overlay.core.protocol.trace import Step
from overlay.core.trace.facts import HostFacts
from overlay.core.trace.judgement import REPAIR, Judged, drop, ok, warn
from overlay.core.vlan.vlans import Vlans
from overlay.model import Ip, Mac, ip_text, mac_text

_CONFLICT = "overlayd status names containers that claim the same address or MAC"


def port(facts: HostFacts) -> Judged:
    """Return whether the sandbox's end of the container's interface carries frames."""
    step, name = Step.PORT, facts.own.port
    wanted, found = facts.desired.links.get(name), facts.actual.links.get(name)
    if not isinstance(wanted, Port):
        return drop(step, f"no port is planned for {facts.own.name}", "overlayd endpoint ls")
    if not isinstance(found, Port):
        return drop(step, f"port {name} is gone")
    if "up" in found.altered:
        return drop(step, f"port {name} is down")
    if found.master != wanted.master:
        return drop(step, f"port {name} is on {found.master or 'no bridge'}, not {wanted.master}")
    bridge = facts.actual.links.get(found.master)
    if "port state" in found.altered and bridge is not None and "up" not in bridge.altered:
        return drop(step, f"port {name} does not forward: {found.master} has set it so")
    if found.altered:
        return warn(step, f"port {name} has other settings: {', '.join(found.altered)}", REPAIR)
    return ok(step, f"{name} is up, on {found.master}")


def security(facts: HostFacts) -> Judged:
    """Return whether port security lets the container's frames pass."""
    step, own = Step.SECURITY, facts.own
    wanted, found = _guard(facts.desired, own.port), _guard(facts.actual, own.port)
    if wanted is None:
        return ok(step, "this host has no port security")
    if found is None:
        return drop(step, f"port {own.port} is closed: it has no rule of port security")
    if not found.macs:
        return ok(step, "port security is off for this container")
    sends_from = own.mac
    if facts.container is not None and facts.container.ifname:
        sends_from = facts.container.mac
    macs = ", ".join(map(mac_text, found.macs))
    allowed = f"{macs} with {', '.join(map(ip_text, found.ips))}"
    if sends_from not in found.macs:
        if own.mac not in found.macs:
            return drop(step, f"it allows {allowed}, not {mac_text(own.mac)}")
        return drop(
            step,
            f"{own.name} sends from {mac_text(sends_from)}, but may from {allowed} only",
            f"In {own.name}: ip link set {facts.container.ifname} address {mac_text(own.mac)}"
            if facts.container is not None
            else REPAIR,
        )
    if own.ip not in found.ips:
        return drop(step, f"it allows {allowed}, not {ip_text(own.ip)}")
    return ok(step, f"it allows {allowed}")


def isolation(facts: HostFacts) -> Iterator[Judged]:
    """Yield that the containers are kept apart by isolation or VLANs, if they are."""
    found, peer = _guard(facts.actual, facts.own.port), facts.peer
    if not facts.own.vlans.meets(peer.vlans):
        yield drop(
            Step.SECURITY,
            f"{facts.own.name} is {_shown_vlans(facts.own.vlans)}, {peer.name} is "
            f"{_shown_vlans(peer.vlans)}",
            "To change that, detach one and attach it with another --vlan",
        )
    if found is not None and found.is_isolated and IsolatedRow(peer.ip) in facts.actual.rows:
        yield drop(
            Step.SECURITY,
            f"{facts.own.name} and {peer.name} are isolated: they do not reach each other",
            "One that all reach is attached with --not-isolated",
        )


def neighbor(facts: HostFacts, vtep: Ip) -> Judged:
    """Return whether the other end's address leads to its MAC."""
    step, peer = Step.NEIGHBOR, facts.peer
    link, target = f"br{peer.segment}", ip_text(peer.ip)
    found = _neighbor(facts.actual, link, peer.ip)
    if found == peer.mac:
        origin = ", of the fabric (evpn)" if peer.is_outside else ""
        return ok(step, f"{target} is {mac_text(found)}{origin}, answered on this host")
    if found is not None:
        planned = _neighbor(facts.desired, link, peer.ip)
        hint = _CONFLICT if planned == found else REPAIR
        text = f"{target} leads to {mac_text(found)}, but {peer.name} has {mac_text(peer.mac)}"
        return drop(step, text, hint)
    if peer.vlans.is_any:
        return ok(step, f"ARP for {target} is flooded in its VLAN")
    if FloodRow(sending_device(facts.desired, peer.segment), vtep) in facts.actual.rows:
        text = f"{target} has no neighbor row: ARP for it is flooded to all hosts"
        return warn(step, text, REPAIR)
    return drop(step, f"{target} has no neighbor row, and {ip_text(vtep)} no flood row: no ARP")


def fdb(facts: HostFacts, vtep: Ip) -> Judged:
    """Return whether the other end's MAC leads to its host."""
    step, peer = Step.FDB, facts.peer
    link, mac = sending_device(facts.desired, peer.segment), mac_text(peer.mac)
    found = _vtep(facts.actual, link, peer.mac)
    if found is not None and found != vtep:
        hint = _CONFLICT if _vtep(facts.desired, link, peer.mac) == found else REPAIR
        text = f"{mac} leads to {ip_text(found)}, but {peer.node} is at {ip_text(vtep)}"
        return drop(step, text, hint)
    if found is None:
        if FloodRow(link, vtep) in facts.actual.rows:
            return warn(step, f"{mac} has no FDB row: frames are flooded to all hosts", REPAIR)
        return drop(step, f"{mac} has no FDB row, and {ip_text(vtep)} no flood row")
    if BridgeFdbRow(link, peer.mac) not in facts.actual.rows:
        text = f"the bridge does not know that {mac} is behind {link}: it floods all ports"
        return warn(step, text, REPAIR)
    return ok(step, f"{mac} leads to {ip_text(vtep)}")


def fast_path_out(facts: HostFacts) -> Iterator[Judged]:
    """Yield what the fast path does to frames from the container, if it is planned."""
    step, own, peer = Step.FAST_PATH, facts.own, facts.peer
    hooks = {HookRow(own.segment, own.port, policed) for policed in (False, True)}
    planned = hooks & facts.desired.rows
    if not planned:
        return
    if not planned <= facts.actual.rows:
        yield warn(step, f"the fast path is off at {own.port}: frames take the bridge", REPAIR)
        return
    if facts.is_routed:
        return  # the gateway's MAC leads to the bridge
    if peer.vtep is None:
        wanted = _target(facts.desired, own.segment, peer.mac)
        found = _target(facts.actual, own.segment, peer.mac)
        if found != wanted:
            yield drop(step, f"{mac_text(peer.mac)} leads to {_shown(found)}, not {_shown(wanted)}")
            return
        yield ok(step, f"{mac_text(peer.mac)} leads to {_shown(found)}")
        return
    astray = _target(facts.actual, own.segment, peer.mac)
    if astray:
        yield drop(step, f"{mac_text(peer.mac)} leads to {astray} on this host")
    elif not _target(facts.actual, own.segment, DEFAULT_TARGET_MAC):
        yield warn(step, "the fast path has no way out: frames take the bridge", REPAIR)
    else:
        yield ok(step, "frames bypass the bridge (eBPF)")


def fast_path_in(facts: HostFacts) -> Iterator[Judged]:
    """Yield what the fast path does to frames for the container, if it is planned."""
    step, own = Step.FAST_PATH, facts.own
    wanted = _target(facts.desired, own.segment, own.mac)
    if not wanted:
        return
    found = _target(facts.actual, own.segment, own.mac)
    if found == wanted:
        yield ok(step, f"{mac_text(own.mac)} leads to {found}")
    elif not found:
        text = f"{mac_text(own.mac)} has no row of the fast path: frames take the bridge"
        yield warn(step, text, REPAIR)
    else:
        yield drop(step, f"{mac_text(own.mac)} leads to {found}, not {wanted}")


def _guard(state: SandboxState, name: str) -> GuardRow | None:
    found = (row for row in state.rows if isinstance(row, GuardRow) and row.link == name)
    return next(found, None)


def _neighbor(state: SandboxState, link: str, ip: Ip) -> Mac | None:
    for row in state.rows:
        if isinstance(row, NeighborRow) and row.ip == ip and row.link == link:
            return row.mac
    return None


def _vtep(state: SandboxState, link: str, mac: Mac) -> Ip | None:
    for row in state.rows:
        if isinstance(row, FdbRow) and row.mac == mac and row.link == link:
            return row.vtep
    return None


def _target(state: SandboxState, segment: int, mac: Mac) -> str:
    for row in state.rows:
        if isinstance(row, TargetRow) and row.mac == mac and row.segment == segment:
            return row.link
    return ""


def _shown_vlans(vlans: Vlans) -> str:
    if not vlans.is_any:
        return "in no VLAN"
    return f"in {'the VLANs' if vlans.is_trunk else 'VLAN'} {vlans}"


def _shown(link: str) -> str:
    return link or "the tunnel"
