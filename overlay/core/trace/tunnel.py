"""Judge bridge and VTEP, the filter of the VXLAN port, and the path between the hosts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from overlay.core.dataplane.link_state import Link, Vxlan
from overlay.core.dataplane.tunnel_devices import sending_device
from overlay.core.paths.view import PathState
from overlay.core.protocol.trace import Step
from overlay.core.trace.facts import HostFacts
from overlay.core.trace.judgement import REPAIR, Judged, drop, ok, unknown, warn
from overlay.model import Ip, ip_text


def sandbox(facts: HostFacts, segments: Iterable[int], *, vtep_segment: int) -> Judged:
    """Return whether bridges and, for another host, the VTEP are as planned."""
    names = [f"br{segment}" for segment in sorted(segments)]
    if facts.peer.vtep is not None:
        names.append(sending_device(facts.desired, vtep_segment))
    return _links(facts, names)


def bridge(facts: HostFacts, segment: int) -> Judged:
    """Return whether the bridge of a segment is as planned."""
    return _links(facts, [f"br{segment}"])


def _links(facts: HostFacts, names: Sequence[str]) -> Judged:
    altered = []
    for name in names:
        wanted, found = facts.desired.links.get(name), facts.actual.links.get(name)
        problem = _problem(name, wanted, found)
        if problem:
            return drop(Step.SANDBOX, problem)
        if found is not None and found.altered:
            altered.append(f"{name}: {', '.join(found.altered)}")
    if altered:
        return warn(Step.SANDBOX, f"other settings than planned: {'; '.join(altered)}", REPAIR)
    if len(names) == 1:
        return ok(Step.SANDBOX, f"{names[0]} is as planned")
    return ok(Step.SANDBOX, f"{', '.join(names[:-1])} and {names[-1]} are as planned")


def _problem(name: str, wanted: Link | None, found: Link | None) -> str:
    """Return why a device carries no frame; empty if it does."""
    if wanted is None or found is None or type(wanted) is not type(found):
        return f"{name} is gone"
    if "up" in found.altered:
        return f"{name} is down"
    if isinstance(wanted, Vxlan) and isinstance(found, Vxlan):
        if found.vni != wanted.vni:
            return f"{name} has VNI {found.vni}, not {wanted.vni}"
        if found.port != wanted.port:
            return f"{name} has another UDP port or namespace than planned"
        if found.local != wanted.local:
            return f"{name} sends from another address than {ip_text(wanted.local)}"
        if found.master != wanted.master:
            return f"{name} is not on {wanted.master}"
    return ""


def path_out(facts: HostFacts, vtep: Ip) -> Judged:
    """Return whether packets arrive at the other host."""
    step, node, path = Step.PATH, facts.peer.node, facts.path
    ends = f"{ip_text(facts.local_vtep)} to {ip_text(vtep)}, UDP {facts.vxlan_port}"
    if path is None:
        return _not_probed(step, ends, node)
    if path.sending is PathState.UNKNOWN:
        return unknown(step, f"{ends}: not probed yet", "Try again in some seconds")
    if path.sending is PathState.LOST:
        return drop(step, f"{ends}: probes do not arrive at {node}", _open_port(facts))
    if path.sending is PathState.DAMAGED:
        return drop(step, f"{ends}: probes arrive at {node} with wrong checksums", _checksums())
    if path.sending is PathState.SILENT:
        return unknown(
            step,
            f"{ends}: {node} does not report probes",
            f"Does its agent run? On {node}: overlayd status. Else: ping {ip_text(vtep)}",
        )
    return ok(step, f"{ends}: probes arrive")


def path_in(facts: HostFacts, vtep: Ip) -> Judged:
    """Return whether packets from the other host arrive here."""
    step, path = Step.PATH, facts.path
    ends = f"{ip_text(vtep)} to {ip_text(facts.local_vtep)}, UDP {facts.vxlan_port}"
    if path is None:
        return _not_probed(step, ends, facts.peer.node)
    if path.receiving in (PathState.UNKNOWN, PathState.SILENT):
        return unknown(step, f"{ends}: not probed yet", "Try again in some seconds")
    if path.receiving is PathState.LOST:
        return drop(step, f"{ends}: probes do not arrive", _open_port(facts))
    if path.receiving is PathState.DAMAGED:
        return drop(step, f"{ends}: probes arrive with wrong checksums", _checksums())
    return ok(step, f"{ends}: probes arrive")


def _not_probed(step: Step, ends: str, node: str) -> Judged:
    """Return that no path to a node is probed: its agent does not run, or has just started."""
    return unknown(
        step,
        f"{ends}: not probed, which takes the agents of both hosts",
        f"Does its agent run? On {node}: overlayd status. Else try again in some seconds",
    )


def _checksums() -> str:
    return "'overlayd netcheck' says which interface computes them wrongly"


def _open_port(facts: HostFacts) -> str:
    return (
        f"Allow UDP {facts.vxlan_port} between the two hosts: 'nft list ruleset' on both, the "
        "cloud's security group, any switch between them"
    )


def admission(facts: HostFacts, vtep: Ip) -> Judged:
    """Return whether the filter of the VXLAN port admits the other host."""
    if facts.admits is None:
        return ok(Step.FILTER, "this host does not filter the VXLAN port")
    if facts.admits:
        role = "an outside VTEP, on exported networks" if facts.peer.is_outside else "a member"
        return ok(Step.FILTER, f"{ip_text(vtep)} is admitted as {role}")
    return drop(Step.FILTER, f"the filter of the VXLAN port does not admit {ip_text(vtep)}")


def size(facts: HostFacts) -> Judged:
    """Return whether the container's packets fit the way."""
    step, found, fits = Step.SIZE, facts.container, facts.fits
    if facts.path is not None and (facts.path.size_fails or facts.path.size_carried == 0):
        return warn(
            step,
            f"large packets to {facts.peer.node} are lost on the path",
            "Something between the hosts has a smaller MTU; the overlay's follows when the size "
            "is found. overlayd members",
        )
    if facts.router is not None and found is not None and found.mtu > fits:
        return ok(step, f"packets up to {fits} bytes fit; the gateway answers longer ones")
    if found is not None and found.ifname and found.mtu > fits:
        return warn(
            step,
            f"packets above {fits} bytes are lost: {found.ifname} has an MTU of {found.mtu}",
            f"In {facts.own.name}: ip link set {found.ifname} mtu {fits}",
        )
    return ok(step, f"packets up to {fits} bytes fit")
