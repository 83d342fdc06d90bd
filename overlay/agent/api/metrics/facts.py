"""Collect what metrics show beyond the status: traffic, peers, free addresses, ages.

Does not: name any metric (`families`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from overlay.agent.api.metrics.control_families import DropFacts, drop_facts
from overlay.agent.api.metrics.evpn_families import EvpnFacts
from overlay.agent.api.metrics.policy_families import PolicyFacts, policy_facts
from overlay.agent.components import Components
from overlay.agent.dataplane.traffic import NetworkTraffic
from overlay.agent.endpoints.attach_times import AttachTimes
from overlay.core.paths.view import PathView
from overlay.core.protocol.messages import MemberState
from overlay.core.services.derivation import BackendState
from overlay.model import ip_text, node_text


@dataclass(frozen=True, slots=True)
class PeerFacts:
    """Another live member; `path` is None if its data path is not probed."""

    node_id: str
    name: str
    rtt_s: float | None
    path: PathView | None


@dataclass(frozen=True, slots=True)
class SubnetFacts:
    """The addresses of one subnet, in the records of this node."""

    vni: int
    subnet: str
    used: int
    free: int  # of all owners
    free_here: int  # owned by this node: it can hand them out alone


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """One network's sandbox on this host."""

    vni: int
    drifts: int
    repairs: int
    traffic: NetworkTraffic | None  # None: not read yet


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """One service, and how many of its backends are in each state."""

    vni: int
    name: str
    backends: Mapping[BackendState, int]


@dataclass(frozen=True, slots=True)
class MemberFacts:
    """A member's measurements; times are Unix time in seconds."""

    peers: list[PeerFacts] = field(default_factory=list)
    subnets: list[SubnetFacts] = field(default_factory=list)
    networks: list[NetworkFacts] = field(default_factory=list)
    attach_times: AttachTimes = field(default_factory=AttachTimes)
    holds_authority: bool = False
    key_made_s: int = 0
    certificate_from_s: int = 0
    certificate_until_s: int = 0
    member_captures: int = 0
    member_capture_packets: int = 0
    services: list[ServiceFacts] = field(default_factory=list)
    evpn: EvpnFacts | None = None  # None: disabled
    policies: list[PolicyFacts] = field(default_factory=list)
    drops: DropFacts = field(default_factory=dict)


async def member_facts(components: Components) -> MemberFacts:
    """Return what this member measures now."""
    certificate = components.gossip.card.certificate
    assert certificate is not None, "a member is certified"
    keyring = components.gossip.keyring
    made = [key.made_s for key in keyring.keys if key.id == keyring.sealing]
    return MemberFacts(
        list(_peers(components)),
        await _subnets(components),
        await _networks(components),
        components.endpoints.attacher.times,
        components.administration.holders.is_holder(components.gossip.node_id),
        max(made, default=0),
        certificate.not_before_s,
        certificate.not_after_s,
        components.diagnosis.capture_answers.started_count,
        components.diagnosis.capture_answers.sent_count,
        list(_services(components)),
        _evpn(components),
        await policy_facts(components),
        await drop_facts(components),
    )


def _services(components: Components) -> Iterator[ServiceFacts]:
    """Yield the services whose backends are known here."""
    own = components.gossip.node_id
    for network in components.directory.networks():
        if components.directory.follows(own, network.vni):
            for placed in components.directory.services(network.vni):
                states = Counter(each.state for each in placed.backends)
                yield ServiceFacts(network.vni, placed.service.name, states)


def _peers(components: Components) -> Iterator[PeerFacts]:
    members = [
        member
        for member in components.gossip.node.membership.members()
        if member.node_id != components.gossip.node_id
        and member.state in (MemberState.ALIVE, MemberState.SUSPECT)
    ]
    for member in members:
        path = components.forwarding.paths.path(member.node_id)
        name = components.directory.node_name(member.node_id)
        yield PeerFacts(node_text(member.node_id), name, member.rtt_s, path)


async def _subnets(components: Components) -> list[SubnetFacts]:
    own = components.gossip.node_id
    held = [
        network
        for network in components.directory.networks()
        if components.directory.follows(own, network.vni)  # its records are held here
    ]
    shares = await components.ipam.counts.shares(held)
    found = []
    for network in held:
        for index, subnet in enumerate(network.subnets):
            of_subnet = [each for each in shares[network.vni] if each.subnet_index == index]
            found.append(
                SubnetFacts(
                    network.vni,
                    str(subnet),
                    sum(share.used for share in of_subnet),
                    sum(share.free for share in of_subnet if not share.is_stranded),
                    sum(share.free for share in of_subnet if share.owner == own),
                )
            )
    return found


def _evpn(components: Components) -> EvpnFacts | None:
    evpn, intake = components.forwarding.evpn, components.forwarding.fabric.intake
    if evpn.settings is None:
        return None
    return EvpnFacts(
        {ip_text(ip): evpn.connected(ip) for ip in evpn.settings.neighbors},
        evpn.reading.announced,
        sum(len(rows.macs) for rows in intake.by_network.values()),
        sum(len(rows.neighbors) for rows in intake.by_network.values()),
        sum(intake.outside.values()),
        intake.over_limit,
        len(evpn.conflicts.current()),
    )


async def _networks(components: Components) -> list[NetworkFacts]:
    reading = await components.forwarding.traffic.read()
    found = []
    for network in components.directory.networks():
        runtime = components.forwarding.reconciler.runtime(network.vni)
        if runtime is not None:
            traffic = reading.networks.get(network.vni)
            found.append(NetworkFacts(network.vni, runtime.drifts, runtime.repairs, traffic))
    return found
