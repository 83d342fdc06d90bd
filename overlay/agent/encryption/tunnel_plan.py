"""The tunnels that the records ask for: which members are peers, and of which device.

Owns: that reading of records and own keys. Does not: make devices, or replace keys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence

from overlay.agent.encryption.own_keys import OwnKeys
from overlay.agent.gossip.context import NodeContext
from overlay.agent.state.wireguard_keys import StoredWireguardKey
from overlay.core.encryption.device import TunnelPeer, TunnelState, tunnel_mtu, wireguard_port
from overlay.core.encryption.inner_address import inner_address, inner_prefix
from overlay.core.encryption.key_record import WireguardKey
from overlay.core.encryption.rotation import MemberKeys, slot_order, slot_used
from overlay.model import Ip, NodeId


class TunnelPlan:
    """This node's devices as they should be."""

    def __init__(self, context: NodeContext, keys: OwnKeys) -> None:
        self.prefix = inner_prefix(bytes.fromhex(context.gossip.cluster.cluster_id))
        self.contested: tuple[str, ...] = ()
        """The members that publish one another's key: none of them is a peer."""
        self._gossip = context.gossip
        self._directory = context.directory
        self._keys = keys

    def address_of(self, node_id: NodeId) -> Ip:
        """Return a node's inner address."""
        return inner_address(self.prefix, node_id)

    def port(self, gossip_port: int, slot: int) -> int:
        """Return the UDP port of the device of a slot on a host with this gossip port."""
        return wireguard_port(gossip_port, self._gossip.cluster.vxlan_port, slot)

    def keys_used(self, members: Iterable[MemberKeys]) -> dict[NodeId, WireguardKey]:
        """Return the key by which each member is reached."""
        slots = self._keys.slots
        used = ((member, slot_used(slots, member)) for member in members)
        return {
            member.node_id: key for member, slot in used for key in member.keys if key.slot == slot
        }

    def members(self, answering: Collection[bytes]) -> list[MemberKeys]:
        """Return the members that can be peers.

        `answering` are the keys that the newer of two devices had a handshake with.
        """
        view, own = self._directory.view, self._gossip.card
        published: dict[NodeId, tuple[WireguardKey, ...]] = {}
        for node_id in view.members():
            keys = view.wireguard_keys(node_id)
            if keys and (node_id == own.node_id or view.vtep_of(node_id) is not None):
                published[node_id] = keys
        count = Counter(key.public_key for keys in published.values() for key in keys)
        contested = {
            node_id
            for node_id, keys in published.items()
            if any(count[key.public_key] > 1 for key in keys)
        }
        self.contested = tuple(map(self._directory.node_name, sorted(contested)))
        sharing = self._sharing()
        found = []
        for node_id, keys in published.items():
            card = self._directory.card(node_id)
            if node_id == own.node_id or node_id in contested or card is None:
                continue
            if len(card.address) == len(own.address):
                answers = any(key.public_key in answering for key in keys)
                found.append(MemberKeys(node_id, keys, node_id in sharing, answers))
        return found

    def _sharing(self) -> set[NodeId]:
        """Return the nodes with a sandbox of an encrypted network that has one here.

        Also of one that is being switched.
        """
        found: set[NodeId] = set()
        for network in self._directory.networks():
            if self._directory.view.uses_tunnels(network):
                there = self._directory.participants(network.vni, forwarding=True)
                if self._gossip.node_id in there:
                    found.update(there)
        return found

    def states(self, members: Sequence[MemberKeys]) -> tuple[TunnelState, ...]:
        """Return the desired devices, that of the newer key first; none before there is a key."""
        stored = self._keys.stored
        if stored is None:
            return ()
        by_slot = {key.slot: key for key in stored if key is not None}
        former, newer = slot_order(self._keys.slots)
        slots = [newer] if newer == former else [newer, former]
        return tuple(self._state(by_slot[slot], members) for slot in slots)

    def _state(self, key: StoredWireguardKey, members: Sequence[MemberKeys]) -> TunnelState:
        own, slots = self._gossip.card, self._keys.slots
        peers = dict(self._peers(key.slot, members))
        used = {member.node_id: slot_used(slots, member) for member in members}
        return TunnelState(
            key.private,
            self.port(self._gossip.cluster.gossip_port, key.slot),
            self.prefix,
            self.address_of(own.node_id),
            tunnel_mtu(own.underlay_mtu, own.address),
            frozenset(peers.values()),
            frozenset(peer.inner for node, peer in peers.items() if used[node] != key.slot),
            key.slot,
        )

    def _peers(
        self, slot: int, members: Sequence[MemberKeys]
    ) -> Iterator[tuple[NodeId, TunnelPeer]]:
        for member in members:
            card = self._directory.card(member.node_id)
            for key in member.keys:
                if key.slot == slot and card is not None:
                    inner = self.address_of(member.node_id)
                    port = self.port(card.gossip_port, slot)
                    yield member.node_id, TunnelPeer(key.public_key, inner, card.address, port)
