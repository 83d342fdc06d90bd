"""Plan a capture of a container's traffic: the interfaces on this host, and the other end.

Owns: the interfaces of the container, the addresses of the peer, and what comments say of a frame.
Does not: open a socket; the command line captures here, as root.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from overlay import limits
from overlay.agent.capture.far_end import FarContainer
from overlay.agent.trace.context import WayContext
from overlay.agent.trace.party import Pair, Party, PartyFinder, PartyKind
from overlay.agent.trace.way import WayFinder
from overlay.core.dataplane.network_drivers import has_tunnel
from overlay.errors import ConflictError
from overlay.kernel.capture.container_tap import TapPlace
from overlay.model import Endpoint, Ip, Network, NodeId


@dataclass(frozen=True, slots=True)
class TapPlan:
    """One interface to capture at; `matched` are the addresses of the other end, () for all."""

    party: Party
    place: TapPlace
    vtep: Ip | None
    matched: tuple[Ip, ...] = ()


@dataclass(frozen=True, slots=True)
class FarPlan:
    """The container at the far end, on another host."""

    party: Party
    vtep: Ip | None
    container: FarContainer


@dataclass(frozen=True, slots=True)
class KnownAddress:
    """An address of a network: whose it is, and where."""

    ip: Ip
    name: str
    node_id: NodeId
    vtep: Ip | None


@dataclass(frozen=True, slots=True)
class CapturePlan:
    """Everything that a capture needs to know; `way` is that between the two ends, if known."""

    taps: list[TapPlan]
    peer: Party | None
    far: FarPlan | None
    way: str
    addresses: list[KnownAddress]


class CapturePlanner:
    """Plans captures from this node's records."""

    def __init__(self, context: WayContext, parties: PartyFinder, ways: WayFinder) -> None:
        self._directory = context.node.directory
        self._gossip = context.node.gossip
        self._attachments = context.attachments
        self._reconciler = context.reconciler
        self._parties = parties
        self._ways = ways

    def plan(
        self, container: str, peer: str | None, network: str | None, *, both_ends: bool
    ) -> CapturePlan:
        """Return where to capture; raises NotFoundError or ConflictError."""
        sources = [self._whole(each) for each in self._parties.own_sources(container, network)]
        _require_container(sources[0])
        if peer is None:
            taps = [self._tap(each) for each in sources[: limits.CAPTURE_INTERFACES_MAX]]
            networks = {each.network.vni: each.network for each in sources}
            return CapturePlan(taps, None, None, "", list(self._addresses(networks.values())))
        pair = self.pair(sources, peer, network)
        target = pair.target
        taps = [self._tap(pair.source, target.ips)]
        far = None
        if both_ends:
            _require_container(target)
            if pair.is_local:
                taps.append(self._tap(target, pair.source.ips))
            else:
                far = self._far(pair)
        way = self._ways.way(pair).kind
        networks = {each.vni: each for each in (pair.network, target.network)}
        return CapturePlan(taps, target, far, way, list(self._addresses(networks.values())))

    def pair(self, sources: Sequence[Party], peer: str, network: str | None) -> Pair:
        """Return both ends with all their addresses; raises NotFoundError or ConflictError."""
        targets = [self._whole(each) for each in self._parties.anywhere(peer, network)]
        found = self._parties.pair(sources, targets, None)
        if found.source.endpoint is not None and found.source.endpoint == found.target.endpoint:
            raise ConflictError(
                f"{found.source.name} is both ends",
                why="packets to itself do not leave its namespace",
                hint="overlayd endpoint ls   (the other containers)",
            )
        return found

    def far(self, container: str, peer: str, network: str | None) -> FarPlan:
        """Return the container at the far end; raises ConflictError if it is on this host."""
        sources = [self._whole(each) for each in self._parties.own_sources(container, network)]
        pair = self.pair(sources, peer, network)
        _require_container(pair.source)
        _require_container(pair.target)
        if pair.is_local:
            raise ConflictError(
                f"{pair.target.name} is on this host, too", hint="Leave --both-ends out"
            )
        return self._far(pair)

    def _whole(self, party: Party) -> Party:
        """Return a party with all addresses of its endpoint, also if it was named by one."""
        if party.endpoint is None:
            return party
        return Party(
            party.kind,
            party.network,
            party.node_id,
            party.name,
            party.endpoint.ips,
            party.endpoint,
        )

    def _tap(self, party: Party, matched: Iterable[Ip] = ()) -> TapPlan:
        endpoint = party.endpoint
        attachment = None if endpoint is None else self._attachments.get(endpoint.endpoint_id)
        if endpoint is None or attachment is None or not attachment.netns_path:
            raise ConflictError(
                f"{party.name} has no network namespace on this host",
                why="its interface is not connected yet, or its container has ended",
                hint="overlayd endpoint ls   and   overlayd verify",
            )
        place = TapPlace(
            attachment.netns_path, attachment.netns_identity, attachment.ifname, endpoint.mac
        )
        return TapPlan(party, place, self._vtep(party.network, party.node_id), tuple(matched))

    def _far(self, pair: Pair) -> FarPlan:
        source, target = _endpoint(pair.source), _endpoint(pair.target)
        ends = (target.endpoint_id, source.endpoint_id)
        container = FarContainer(pair.target.node_id, pair.target.network.vni, ends)
        return FarPlan(pair.target, self._vtep(pair.target.network, pair.target.node_id), container)

    def _vtep(self, network: Network, node_id: NodeId) -> Ip | None:
        is_own = node_id == self._directory.own
        card = self._gossip.card if is_own else self._directory.card(node_id)
        if card is None or not has_tunnel(network):
            return None
        return self._reconciler.vtep_of(network, card)

    def _addresses(self, networks: Iterable[Network]) -> Iterator[KnownAddress]:
        """Yield whose address is whose, up to a bound."""
        vteps: dict[tuple[int, NodeId], Ip | None] = {}
        placed = (
            (network, each)
            for network in networks
            for each in self._directory.all_endpoints(network.vni)
        )
        for network, (origin, endpoint) in itertools.islice(placed, limits.CAPTURE_ENDPOINTS_MAX):
            key = (network.vni, origin)
            if key not in vteps:
                vteps[key] = self._vtep(network, origin)
            for ip in endpoint.ips:
                yield KnownAddress(ip, endpoint.name, origin, vteps[key])


def _endpoint(party: Party) -> Endpoint:
    assert party.endpoint is not None, "a container has one"
    return party.endpoint


def _require_container(party: Party) -> None:
    if party.kind is not PartyKind.CONTAINER:
        raise ConflictError(
            f"{party.name} is not a container",
            why="a capture is at the interface of a container",
            hint="On a host's own interfaces: tcpdump -i ovh...   (ip link shows them)",
        )
