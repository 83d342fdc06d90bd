"""Addresses that a container runtime holds for containers, from its request to its release.

Docker requests an address before it creates the endpoint, and releases it after the endpoint's
end. Owns: the reservations on disk and in the address space, and the addresses released last. Does
not: choose an address.
"""

from __future__ import annotations

from overlay import limits
from overlay.agent.gossip.service import GossipService
from overlay.agent.state import documents
from overlay.agent.state.documents import AddressReservation
from overlay.core.ipam.address_space import AddressSpace
from overlay.model import Ip, Vni, ip_text, parse_ip


class Reservations:
    """This node's reserved addresses."""

    def __init__(self, gossip: GossipService, space: AddressSpace) -> None:
        self._gossip = gossip
        self._space = space
        self._released: dict[tuple[Vni, Ip], None] = {}  # the newest last
        for each in documents.RESERVATIONS.load(gossip.state):
            space.reserve(Vni(each.vni), parse_ip(each.ip), for_any_node=each.for_any_node)

    def has(self, vni: Vni, ip: Ip) -> bool:
        """Return whether an address is reserved."""
        return ip in self._space.reserved(vni)

    def all(self) -> list[tuple[Vni, Ip]]:
        """Return all reserved addresses with their networks."""
        stored = documents.RESERVATIONS.load(self._gossip.state)
        return [(Vni(each.vni), parse_ip(each.ip)) for each in stored]

    def reserve(self, vni: Vni, ip: Ip, *, for_any_node: bool = False) -> None:
        """Reserve an address of this node durably; the caller holds the allocator's lock.

        With `for_any_node`, another node that requests this very address is granted it.
        """
        reservation = AddressReservation(vni, ip_text(ip), for_any_node)
        documents.RESERVATIONS.put(self._gossip.state, reservation)
        self._space.reserve(vni, ip, for_any_node=for_any_node)
        self._released.pop((vni, ip), None)

    def release(self, vni: Vni, ip: Ip) -> None:
        """End a reservation durably; the address rests, and is remembered for a restart."""
        if not self.has(vni, ip):
            return
        reservation = AddressReservation(vni, ip_text(ip))
        self._gossip.state.commit([documents.RESERVATIONS.deletion_of(reservation)])
        self._space.unreserve(vni, ip)
        self._space.quarantine(vni, [ip], self._gossip.transport.now())
        self._released[vni, ip] = None
        if len(self._released) > limits.QUARANTINE_COUNT_MAX:
            del self._released[next(iter(self._released))]

    def last_released(self, vni: Vni, size: int) -> Ip | None:
        """Return the address of `size` bytes that was released last and is remembered, or None."""
        found = (ip for at, ip in reversed(self._released) if at == vni and len(ip) == size)
        return next(found, None)

    def forget(self, vni: Vni, ip: Ip) -> None:
        """Forget a released address: its container will not start again."""
        self._released.pop((vni, ip), None)
