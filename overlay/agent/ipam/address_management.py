"""This node's part in address management: what asks for, grants, reserves and reclaims addresses.

Owns: the construction of these, and which of them an event concerns. Does not: decide which address
is whose (`core.ipam`).
"""

from __future__ import annotations

from overlay.agent.gossip.service import GossipService
from overlay.agent.ipam.address_counts import AddressCounts
from overlay.agent.ipam.allocator import AddressAllocator
from overlay.agent.ipam.grants import GrantService
from overlay.agent.ipam.reclaim import Reclaim
from overlay.agent.ipam.reservations import Reservations
from overlay.agent.ipam.reserves import ReserveController
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import Directory
from overlay.core.events import GrantRefused, GrantRequested
from overlay.core.ipam.address_space import AddressSpace


class AddressManagement:
    """The parts of address management on this node."""

    def __init__(
        self, gossip: GossipService, directory: Directory, space: AddressSpace, event_log: EventLog
    ) -> None:
        self.allocator = AddressAllocator(gossip, directory, event_log, space)
        self.reservations = Reservations(gossip, space)
        self.counts = AddressCounts(space)
        self.grants = GrantService(gossip, directory, self.allocator, event_log)
        self.reclaim = Reclaim(gossip, directory, self.allocator, event_log)
        self.reserves = ReserveController(gossip, directory, space, event_log)

    # --- events (called by the event router) ----------------------------------------------

    def grant_event(self, event: GrantRequested | GrantRefused) -> None:
        """Answer a member's request for addresses, or note its refusal of one of this node's."""
        if isinstance(event, GrantRequested):
            self.grants.handle_request(event.sender, event.request)
        elif not self.reserves.handle_refusal(event.refusal):
            self.allocator.requests.handle_refusal(event.refusal)

    def records_changed(self) -> None:
        """Follow a change of any records."""
        self.allocator.requests.records_changed()
        self.reclaim.records_changed()
        self.reserves.trigger()
