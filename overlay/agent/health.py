"""The health lines of `overlayd status`: each a problem, and what to do about it.

Most come from the controllers, as their faults; the others are about what no controller owns.
Owns: which of them are announced: their owner records an event when they begin and end. Changes
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from overlay import limits
from overlay.agent.components import Components
from overlay.agent.dataplane.sandbox_names import sandbox_name
from overlay.agent.gossip.silent_members import silent_member_faults
from overlay.agent.isolation.members import isolation_faults
from overlay.agent.policy.old_members import old_member_faults
from overlay.agent.process.controller import Controller, Fault
from overlay.agent.router import old_members as router_members
from overlay.core.protocol.messages import MemberState
from overlay.kernel.host import neighbor_table
from overlay.model import Network, ip_text

_FAILURES_SHOWN_MAX = 5


def faults(components: Components) -> list[Fault]:
    """Return what deserves attention in a membership."""
    return [*silent_faults(components), *announced_faults(components)]


def announced_faults(components: Components) -> Iterator[Fault]:
    """Yield the faults whose owner records an event when they begin, and when they end."""
    yield from silent_member_faults(
        components.gossip,
        components.directory,
        underlay_works=components.forwarding.underlay.fault is None,
    )
    yield from _names(components)
    for controller in _reporting(components):
        for fault in controller.faults():
            if _is_announced(controller, fault):
                yield fault


def silent_faults(components: Components) -> Iterator[Fault]:
    """Yield the other faults: nobody records their end, or not even their begin."""
    yield from _identity(components)
    yield from _host(components)
    yield from _paths(components)
    yield from _versions(components)
    yield from _old_members(components)
    yield from _smaller_underlays(components)
    yield from _networks(components)
    for controller in _reporting(components):
        for fault in controller.faults():
            if not _is_announced(controller, fault):
                yield fault


def _reporting(components: Components) -> Iterator[Controller]:
    """Yield the controllers whose faults tell something: paths none while the underlay is down."""
    is_cut_off = components.forwarding.underlay.fault is not None
    for controller in components.controllers:
        if not (is_cut_off and controller is components.forwarding.paths):
            yield controller


def _is_announced(controller: Controller, fault: Fault) -> bool:
    return controller.announces_all or fault is controller.fault


def _identity(components: Components) -> Iterator[Fault]:
    """Yield that this node was forgotten, and that several hosts share one identity."""
    conflicts, own = components.administration.identity_conflicts, components.gossip.card
    for node_id in list(conflicts.forgotten_by)[:1]:
        yield Fault(
            f"{components.directory.node_name(node_id)} says that this host was forgotten: "
            "its identity is banned, and members ignore what it sends",
            "To come back as a new node: sudo overlayd reset, then join again",
            "error",
        )
    for node_id, address in conflicts.recent_duplicates():
        name = components.directory.node_name(node_id)
        owner = f"this one ({own.name})" if node_id == own.node_id else name
        yield Fault(
            f"a host at {ip_text(address)} uses the identity of {owner}",
            "A copied disk: members accept only the host that started last. On the copy: "
            "sudo overlayd reset, then join it as a new node",
            "error",
        )


def _host(components: Components) -> Iterator[Fault]:
    """Yield problems of this host's disk and neighbor tables."""
    if components.gossip.state.fault:
        yield Fault(
            f"the state cannot be written: {components.gossip.state.fault}",
            f"{components.gossip.state.fault_hint}. Existing attachments keep working",
            "error",
        )
    own = components.forwarding.reconciler.neighbor_count()
    for table in neighbor_table.neighbor_tables():
        if table.entries - own >= limits.NEIGHBORS_FULL * table.limit:
            yield Fault(
                f"the {table.family} neighbor table is nearly full: {table.entries - own} of "
                f"{table.limit} entries are not overlayd's",
                f"sysctl -w {table.sysctl}={4 * table.limit} (and gc_thresh1, gc_thresh2); "
                "beyond the limit containers find no new neighbors",
            )


def _paths(components: Components) -> Iterator[Fault]:
    """Yield the members whose packets take another way here than those to them."""
    for text in components.forwarding.arrival_paths.asymmetric[:3]:
        yield Fault(
            text,
            "They are accepted. A firewall, or rp_filter=1, on that interface would drop them: "
            "use the same route in both directions",
        )


def _versions(components: Components) -> Iterator[Fault]:
    """Yield the members that speak another version of the protocol."""
    versions = components.administration.protocol_versions
    for node_id, version in versions.recent():
        yield Fault(*versions.explain(components.directory.node_name(node_id), version))


def _old_members(components: Components) -> Iterator[Fault]:
    """Yield the members that do not enforce policies, or do not route."""
    node, policies = components.gossip.node, components.policies.catalog
    yield from old_member_faults(node, components.directory, policies)
    yield from router_members.old_member_faults(node, components.routers.registry.catalog)
    yield from isolation_faults(node, components.directory)


def _smaller_underlays(components: Components) -> Iterator[Fault]:
    """Yield the members whose underlay carries smaller packets."""
    own_mtu = components.gossip.card.underlay_mtu
    for member in components.gossip.node.membership.members():
        card = components.directory.card(member.node_id)
        if member.state is not MemberState.LEFT and card and card.underlay_mtu < own_mtu:
            yield Fault(
                f"{card.name}'s underlay carries {card.underlay_mtu} bytes, ours {own_mtu}",
                "Large packets to it are lost; give both underlays the same MTU",
            )


def network_failures(components: Components, network: Network) -> list[str]:
    """Return what the kernel refused of a network on this host, not all if there is much."""
    driver = components.forwarding.drivers.of(network)
    return [] if driver is None else driver.faults(network.vni)[:_FAILURES_SHOWN_MAX]


def _networks(components: Components) -> Iterator[Fault]:
    """Yield the networks that the kernel refused a change of."""
    for network in components.directory.networks():
        failures = network_failures(components, network)
        if failures:
            yield Fault(
                f"network {network.name}: {failures[0]}",
                "'overlayd verify' lists every difference; the agent retries automatically",
                "error",
            )


def _names(components: Components) -> Iterator[Fault]:
    """Yield the networks that serve no names."""
    names = {network.vni: network.name for network in components.directory.networks()}
    for vni, ip, reason in components.names.service.faults():
        yield Fault(
            f"network {names.get(vni, vni)}: no names on {ip_text(ip)}: {reason}",
            "The agent retries automatically. To see what holds port 53: ip netns exec "
            f"{sandbox_name(vni, components.gossip.node_id)} ss -lnup sport = :53",
        )
