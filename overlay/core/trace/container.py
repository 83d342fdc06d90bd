"""Judge the container's side: interface, route, its own neighbor entry, a listening program."""

from __future__ import annotations

from collections.abc import Iterator

from overlay.core.dataplane.link_state import Bridge
from overlay.core.protocol.trace import Step
from overlay.core.trace.facts import ContainerFacts, HostFacts
from overlay.core.trace.judgement import Judged, drop, ok, warn
from overlay.model import ip_text, mac_text

_RESTORED = "   (unless it was attached with --hands-off, the agent does so: verify --repair)"


def interface(facts: HostFacts) -> Judged:
    """Return whether the interface can send and receive."""
    step, own, found = Step.INTERFACE, facts.own, facts.container
    if found is None:
        return drop(
            step,
            f"the network namespace of {own.name} is gone",
            f"overlayd detach {own.name}, if the container has ended",
        )
    if not found.ifname:
        return drop(step, f"{own.name} has no interface {own.ifname}")
    if not found.is_up:
        text = f"{found.ifname} is down"
        return drop(step, text, f"In {own.name}: ip link set {found.ifname} up{_RESTORED}")
    if own.ip not in found.ips:
        add = f"ip address add {ip_text(own.ip)}/LENGTH dev {found.ifname}"
        text = f"{found.ifname} has no address {ip_text(own.ip)}"
        return drop(step, text, f"In {own.name}: {add}{_RESTORED}")
    return ok(step, f"{found.ifname} is up and has {ip_text(own.ip)}")


def route(facts: HostFacts, found: ContainerFacts) -> Judged:
    """Return whether the container's routes lead to the other end by this interface."""
    step, own, peer = Step.ROUTE, facts.own, facts.peer
    if facts.is_routed and facts.is_isolated:
        return drop(
            step,
            "the subnets of this network are isolated from each other",
            "It was created with --isolate-subnets; put both containers into one subnet",
        )
    target = ip_text(peer.ip)
    if found.route is None:
        return drop(
            step,
            f"{own.name} has no route to {target}",
            f"In {own.name}: ip route; ip route add {target} dev {found.ifname}{_RESTORED}",
        )
    if found.route.ifname != found.ifname:
        return drop(
            step,
            f"{own.name} sends to {target} by {found.route.ifname}, not by {found.ifname}",
            f"In {own.name}: ip route get {target}; remove the route that leads elsewhere",
        )
    by = f"{target} by {found.ifname}"
    gateway = found.route.gateway
    if gateway is None:
        return ok(step, by)
    if not facts.is_routed:
        return warn(
            step,
            f"{by} through {ip_text(gateway)}, although it is on the same subnet",
            f"In {own.name}: ip route; the route of the subnet is missing",
        )
    return ok(step, f"{by} through {ip_text(gateway)}")


def cache(facts: HostFacts, found: ContainerFacts) -> Iterator[Judged]:
    """Yield whether the container's own neighbor entry is right, if it has one."""
    entry = found.cached
    if entry is None:
        return
    bridge = facts.desired.links.get(f"br{facts.own.segment}")
    by_gateway = found.route is not None and found.route.gateway is not None
    if not by_gateway:
        wanted = facts.peer.mac
    elif isinstance(bridge, Bridge):
        wanted = bridge.mac
    else:
        return
    has = f"{facts.own.name} has {ip_text(entry.ip)} at {mac_text(entry.mac)}"
    if entry.mac == wanted:
        yield ok(Step.CACHE, has)
        return
    kind = "a fixed entry" if entry.is_permanent else "an entry that expires"
    yield drop(
        Step.CACHE,
        f"{has} ({kind}); it is at {mac_text(wanted)}",
        f"In {facts.own.name}: ip neighbor del {ip_text(entry.ip)} dev {found.ifname}",
    )


def listener(facts: HostFacts, *, listens: bool) -> Judged:
    """Return whether a program in the container takes what arrives."""
    if listens:
        return ok(Step.LISTENER, f"a program listens on {facts.listener}")
    return drop(
        Step.LISTENER,
        f"nothing listens on {facts.listener} in {facts.own.name}",
        f"In {facts.own.name}: ss -lntu; does the program run, and not on 127.0.0.1 alone?",
    )
