"""A read model of the records: the planner's input for a network.

Owns: which networks exist, who participates, whose rows count; `services` has the services on them.
Does not: know the kernel or the event loop; agent and simulator use it alike.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from overlay.core.dataplane.conflicts import usable_networks
from overlay.core.dataplane.planning.inputs import (
    LocalPort,
    PlanInput,
    RecordsPosition,
    RemoteChanges,
)
from overlay.core.dataplane.planning.planner import plan_sandbox
from overlay.core.dataplane.planning.remote_table import RemoteTable
from overlay.core.dataplane.planning.segments import segment_count
from overlay.core.dataplane.state import SandboxState
from overlay.core.declared.network_settings import in_effect
from overlay.core.declared.objects import DeclaredObjects
from overlay.core.encryption.inner_address import inner_address
from overlay.core.encryption.key_record import WireguardKey, keys_of
from overlay.core.encryption.switch_phase import Progress, SwitchPhase
from overlay.core.encryption.switch_view import SwitchView
from overlay.core.ipam.ownership import Ownership
from overlay.core.log.store import Store
from overlay.core.membership.machine import Membership
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.records import (
    CLUSTER_SCOPE,
    Participation,
    RemovedNetwork,
    Scope,
    key_of,
)
from overlay.core.remote_changes import has_followed, remote_changes
from overlay.core.services.view import ServiceSource, ServiceView
from overlay.model import Endpoint, Ip, Network, NodeId, Vni, is_loopback, reserved_ips


class OwnershipSource(Protocol):
    """Knows which node owns each address: an address that two nodes claim is its owner's."""

    def ownership(self, network: Network) -> Ownership:
        """Return the owners of a network's addresses."""


class ExpirySource(Protocol):
    """Knows the time, and so which dead nodes no longer count."""

    def is_expired(self, node_id: NodeId) -> bool:
        """Return whether a node has been dead for longer than the grace period."""


class View:
    """Lookups of one node in its own store.

    Without `owners`, no claim to an address has precedence; without `expiry`, dead nodes count.
    Without the `inner_prefix` of the cluster's inner addresses, encrypted networks have no rows;
    without `declared`, networks are as their creators defined them.
    """

    def __init__(
        self,
        store: Store,
        membership: Membership,
        self_id: NodeId,
        owners: OwnershipSource | None = None,
        expiry: ExpirySource | None = None,
        inner_prefix: bytes = b"",
        services: ServiceSource | None = None,
        declared: DeclaredObjects | None = None,
    ) -> None:
        self._store = store
        self._membership = membership
        self._self_id = self_id
        self._owners = owners
        self._expiry = expiry
        self._inner_prefix = inner_prefix
        self._objects = declared
        self.excluded_vteps: frozenset[Ip] = frozenset()  # from here they lead to no other host
        self.switches = SwitchView(store, membership, self_id)
        self.services = ServiceView(
            store, self_id, services, self._current_networks, self._owns, membership.state_of
        )
        # With the numbers of changes to the records that they depend on.
        self._networks: tuple[list[int], dict[Vni, Network]] | None = None

    def networks(self) -> dict[Vni, Network]:
        """Return the networks without a VNI conflict, by VNI."""
        return dict(self._current_networks())

    def network(self, vni: int) -> Network | None:
        """Return the network with that VNI, or None."""
        return self._current_networks().get(Vni(vni))

    def _current_networks(self) -> Mapping[Vni, Network]:
        # It takes 5 ms with 1,000 networks, and is called in every turn.
        kinds = ("network", "removed", *(("declared", "forgotten") if self._objects else ()))
        changes = [self._store.change_count(CLUSTER_SCOPE, kind) for kind in kinds]
        if self._networks is None or self._networks[0] != changes:
            usable = usable_networks(in_effect(self._objects, self.network_claims()))
            self._networks = (changes, {network.vni: network for network in usable})
        return self.switches.in_effect(self._networks[1])

    def network_claims(self) -> list[tuple[NodeId, Network]]:
        """Return all networks as they were defined, including those that lost a VNI conflict."""
        removed = {
            (value.creator, value.vni)
            for _, value in self._store.values(CLUSTER_SCOPE, "removed")
            if isinstance(value, RemovedNetwork)
        }
        return [
            (origin, value)
            for origin, value in self._store.values(CLUSTER_SCOPE, "network")
            if isinstance(value, Network)
            and value.creator == origin
            and (origin, value.vni) not in removed
        ]

    def participants(self, vni: int, *, forwarding: bool) -> list[NodeId]:
        """Return the nodes that participate in a network, in order of id.

        This one included, and those that are gone; with `forwarding`, only those that have a
        sandbox for it, which a node that is gone has not.
        """
        found = self._store.participants.get(Scope(vni), {})
        if not forwarding:
            return sorted(found)
        return sorted(
            origin
            for origin, forwards in found.items()
            if forwards and (origin == self._self_id or not self.is_gone(origin))
        )

    def takes_part(self, node_id: NodeId, part: Participation) -> bool:
        """Return whether a node has written exactly this record."""
        return self._store.value(node_id, CLUSTER_SCOPE, key_of(part)) == part

    def vtep_of(self, origin: NodeId) -> Ip | None:
        """Return another node's VTEP, or None.

        None for a node that left, was forgotten, or is dead beyond the grace period: only those
        lose their rows, never those that merely seem dead (their data plane forwards without an
        agent). And None if its card names an address at which this host itself would receive what
        is sent there, past its filter.
        """
        card = self._store.card(origin)
        if card is None or card.left or self.is_gone(origin):
            return None
        at = card.address
        return None if is_loopback(at) or at in self.excluded_vteps else at

    def wireguard_keys(self, origin: NodeId) -> tuple[WireguardKey, ...]:
        """Return the WireGuard keys that a node publishes: the one in use, then the next one."""
        return keys_of(self._store.values_of(origin, CLUSTER_SCOPE, "name"))

    def switch_progress(self, network: Network) -> dict[NodeId, Progress | None]:
        """Return how far each member, this one included, is in switching a network."""
        return {each: self.switches.progress_of(each, network) for each in self.members()}

    def encryption_phase(self, network: Network) -> SwitchPhase:
        """Return what this node does with a network's frames, now that it may be switching."""
        return self.switches.phase(network)

    def uses_tunnels(self, network: Network) -> bool:
        """Return whether this node receives a network's frames by the tunnels, or soon will."""
        return self.encryption_phase(network) >= SwitchPhase.READY

    def sends_encrypted(self, network: Network) -> bool:
        """Return whether this node sends a network's frames through the tunnels."""
        return self.encryption_phase(network) >= SwitchPhase.SENDING

    def tunnel_end(self, network: Network, origin: NodeId) -> Ip | None:
        """Return another node's VTEP of a network, or None.

        None as for `vtep_of`; on an encrypted network it is the node's inner address, and None
        for a node that has published no WireGuard key.
        """
        return self._tunnel_end(origin, is_inner=self.sends_encrypted(network))

    def _tunnel_end(self, origin: NodeId, *, is_inner: bool) -> Ip | None:
        vtep = self.vtep_of(origin)
        if vtep is None or not is_inner:
            return vtep
        if not self._inner_prefix or not self.wireguard_keys(origin):
            return None
        return inner_address(self._inner_prefix, origin)

    def encrypted_vnis(self) -> frozenset[Vni]:
        """Return the VNIs whose frames pass through the tunnels alone, including all segments."""
        return self._vnis_in({SwitchPhase.ENCRYPTED})

    def switching_vnis(self) -> frozenset[Vni]:
        """Return the VNIs whose frames come both by the tunnels and in clear."""
        return self._vnis_in({SwitchPhase.READY, SwitchPhase.BOTH, SwitchPhase.SENDING})

    def _vnis_in(self, phases: Collection[SwitchPhase]) -> frozenset[Vni]:
        return frozenset(
            Vni(network.vni + segment)
            for network in self._current_networks().values()
            if self.encryption_phase(network) in phases
            for segment in range(segment_count(network))
        )

    def vteps(self) -> frozenset[Ip]:
        """Return the VTEPs of all other members that count."""
        found = (self.vtep_of(node_id) for node_id in self.members())
        return frozenset(vtep for vtep in found if vtep is not None)

    def vnis(self) -> frozenset[Vni]:
        """Return the VNIs of all networks, including all their segments."""
        return frozenset(
            Vni(network.vni + segment)
            for _, network in self.network_claims()
            for segment in range(segment_count(network))
        )

    def losing_origins(
        self, scope: Scope, endpoints: Iterable[tuple[NodeId, Endpoint]]
    ) -> set[NodeId]:
        """Return the origins of endpoints with an address of another node's, by the records here.

        An endpoint loses an address that its node does not own to any other that has it. All
        records are read once at most, however many endpoints a member writes.
        """
        network = self.network(scope)
        if network is None or self._owners is None:
            return set()
        owned = self._owners.ownership(network)
        claims: dict[Ip, tuple[NodeId, ...]] = {}  # a set each would take three times as much
        equal: dict[tuple[NodeId, ...], tuple[NodeId, ...]] = {}
        for origin, endpoint in endpoints:
            for ip in endpoint.ips:
                claimants = claims.get(ip, ())
                if origin not in claimants and owned.owner_of(ip) != origin:
                    found = *claimants, origin
                    claims[ip] = equal.setdefault(found, found)
        if not claims:
            return set()
        losing: set[NodeId] = set()
        for other, value in self._store.values(scope, "endpoint"):
            for ip in value.ips if isinstance(value, Endpoint) else ():
                losing.update(each for each in claims.get(ip, ()) if each != other)
        return losing

    def owns_addresses(self, network: Network, origin: NodeId, endpoint: Endpoint) -> bool:
        """Return whether a node may say that all addresses of an endpoint are that endpoint's.

        Not so for gateways' and other devices' addresses, which no endpoint has, and for those
        outside the network.
        """
        if self._owners is None:
            return False
        owned = self._owners.ownership(network)
        taken = reserved_ips(network)
        return all(owned.owner_of(ip) == origin and ip not in taken for ip in endpoint.ips)

    def _owns(self, network: Network, origin: NodeId, ip: Ip) -> bool:
        """Return whether an address is a node's to use, as far as known here."""
        return self._owners is None or self._owners.ownership(network).owner_of(ip) == origin

    def is_gone(self, origin: NodeId) -> bool:
        """Return whether a node's records no longer count; false for this node."""
        state = self._membership.state_of(origin)
        if state in (None, MemberState.LEFT):
            return True
        return self._expiry is not None and self._expiry.is_expired(origin)

    def members(self) -> list[NodeId]:
        """Return the cluster's nodes in order of id.

        Dead ones and this one too, but not those that left or are forgotten.
        """
        others = [
            member.node_id
            for member in self._membership.members()
            if member.state is not MemberState.LEFT
            and not ((card := self._store.card(member.node_id)) is not None and card.left)
        ]
        return sorted([self._self_id, *others])

    def desired(
        self,
        network: Network,
        local: Ip,
        port: int,
        mtu: int,
        ports: tuple[LocalPort, ...],
        *,
        fast_path: bool = False,
    ) -> SandboxState:
        """Return the desired state of this node's sandbox of a network."""
        given = self.collect_input(network, local, port, mtu, ports)
        return plan_sandbox(given, fast_path=fast_path)

    def remote_changes(
        self,
        network: Network,
        since: RecordsPosition | None = None,
        checked: RemoteTable | None = None,
    ) -> RemoteChanges:
        """Return what has changed of other nodes' endpoints since a position; None: all of them.

        All of them, too, if a `checked` table has not what the records had at its position.
        """
        is_inner = self.sends_encrypted(network)
        scope = Scope(network.vni)
        vteps = {
            origin: self._tunnel_end(origin, is_inner=is_inner)
            for origin in self._store.origins(scope)
            if origin != self._self_id
        }
        if since is not None and checked is not None:
            since = since if has_followed(self._store, scope, vteps, checked) else None
        return remote_changes(self._store, scope, vteps, since)

    def collect_input(
        self,
        network: Network,
        local: Ip,
        port: int,
        mtu: int,
        ports: tuple[LocalPort, ...],
        receiving: Ip | None = None,
        *,
        remotes: bool = True,
    ) -> PlanInput:
        """Return the plan's input as immutable values.

        So the plan, which takes longer, may be computed in another thread. `receiving` is the
        address of a second device, of the other family, while the network is being switched.
        Without `remotes`, those are left out, for a plan that follows `remote_changes`.
        """
        is_inner = self.sends_encrypted(network)
        locals_ = self._store.values_of(self._self_id, Scope(network.vni), "endpoint")
        owned = None if self._owners is None else self._owners.ownership(network)
        flood = (
            self._tunnel_end(origin, is_inner=is_inner)
            for origin in self.participants(network.vni, forwarding=True)
        )
        return PlanInput(
            network=network,
            port=port,
            local=local,
            mtu=mtu,
            ports=ports,
            locals=tuple(value for value in locals_ if isinstance(value, Endpoint)),
            remotes=tuple(self.remote_changes(network).present) if remotes else (),
            flood=tuple(vtep for vtep in flood if vtep is not None),
            owner_of=None if owned is None else lambda _vni, ip: owned.owner_of(ip),
            receiving=receiving,
        )
