"""The health lines of `overlayd status`: each a problem, and what to do about it.

Most come from the controllers, as their faults; the others are about what no controller owns.
Changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from overlay import limits
from overlay.agent.api.schema.cluster import HealthIssue, NetworkStatusResponse
from overlay.agent.components import Components
from overlay.agent.dataplane.sandbox_names import sandbox_name
from overlay.agent.gossip.silent_members import silent_member_faults
from overlay.agent.process.controller import Fault
from overlay.core.protocol.messages import MemberState
from overlay.kernel.host import neighbor_table
from overlay.model import ip_text


def health(
    components: Components, networks: list[NetworkStatusResponse], further: Iterable[Fault]
) -> list[HealthIssue]:
    """Return what deserves attention, with the faults of the agent itself; errors first."""
    faults = [
        *_identity(components),
        *_host(components),
        *_paths(components),
        *_versions(components),
        *_members(components),
        *_networks(components, networks),
        *(fault for controller in components.controllers for fault in controller.faults()),
        *further,
    ]
    faults.sort(key=lambda fault: fault.level != "error")
    return [{"level": each.level, "text": each.text, "hint": each.hint} for each in faults]


def _identity(components: Components) -> Iterator[Fault]:
    """Yield that this node was forgotten, and that several hosts share one identity."""
    conflicts, own = components.identity_conflicts, components.gossip.card
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
            "Free space or make the disk writable; existing attachments keep working",
            "error",
        )
    own = components.reconciler.neighbor_count()
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
    for text in components.arrival_paths.asymmetric[:3]:
        yield Fault(
            text,
            "They are accepted. A firewall, or rp_filter=1, on that interface would drop them: "
            "use the same route in both directions",
        )


def _versions(components: Components) -> Iterator[Fault]:
    """Yield the members that speak another version of the protocol."""
    versions = components.protocol_versions
    for node_id, version in versions.recent():
        yield Fault(*versions.explain(components.directory.node_name(node_id), version))


def _members(components: Components) -> Iterator[Fault]:
    """Yield the members that do not answer or carry smaller packets."""
    yield from silent_member_faults(
        components.gossip, components.directory, underlay_works=components.underlay.fault is None
    )
    own_mtu = components.gossip.card.underlay_mtu
    for member in components.gossip.node.membership.members():
        card = components.directory.card(member.node_id)
        if member.state is not MemberState.LEFT and card and card.underlay_mtu < own_mtu:
            yield Fault(
                f"{card.name}'s underlay carries {card.underlay_mtu} bytes, ours {own_mtu}",
                "Large packets to it are lost; give both underlays the same MTU",
            )


def _networks(components: Components, networks: list[NetworkStatusResponse]) -> Iterator[Fault]:
    """Yield the networks that the kernel refused a change of, or that serve no names."""
    for shown in networks:
        if shown["sandbox"] == "degraded":
            yield Fault(
                f"network {shown['name']}: {shown['failures'][0]}",
                "'overlayd verify' lists every difference; the agent retries automatically",
                "error",
            )
    names = {network.vni: network.name for network in components.directory.networks()}
    for vni, ip, reason in components.dns.faults():
        yield Fault(
            f"network {names.get(vni, vni)}: no names on {ip_text(ip)}: {reason}",
            "The agent retries automatically. To see what holds port 53: ip netns exec "
            f"{sandbox_name(vni, components.gossip.node_id)} ss -lnup sport = :53",
        )
