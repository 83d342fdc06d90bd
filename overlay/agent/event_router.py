"""Who hears of what happens in the node's core.

Owns: which parts an event concerns, and the words for those that only people need to hear of. Must
not know: what a part does about it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.dataplane.underlay import Underlay
from overlay.agent.dns.resolver import Resolver
from overlay.agent.endpoints.removed_networks import RemovedNetworks
from overlay.agent.exposure.service import ExposureService
from overlay.agent.gossip.admission import AdmissionService
from overlay.agent.gossip.authority import AuthorityHolder
from overlay.agent.gossip.identity_conflicts import IdentityConflicts
from overlay.agent.gossip.key_rotation import KeyRotation
from overlay.agent.gossip.service import GossipService
from overlay.agent.ipam.allocator import AddressAllocator
from overlay.agent.ipam.reclaim import Reclaim
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.conflict_report import ConflictReport
from overlay.agent.records.directory import Directory
from overlay.core.events import (
    AuthorityMessage,
    CardAccepted,
    ConfirmRequested,
    DuplicateIdentity,
    Event,
    ForgottenBy,
    GrantRefused,
    GrantRequested,
    Healed,
    MemberChanged,
    NodeForgotten,
    OwnLogAhead,
    Partitioned,
    StoreChanged,
)
from overlay.core.keys import rotation_driver
from overlay.core.protocol.messages import GrantRequest, MemberState
from overlay.core.protocol.records import CLUSTER_SCOPE, Scope
from overlay.errors import OverlayError
from overlay.model import NodeId, Vni


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRouter:
    """The parts of one membership that hear of events."""

    gossip: GossipService
    directory: Directory
    allocator: AddressAllocator
    admission: AdmissionService
    conflict_report: ConflictReport
    authority_holder: AuthorityHolder
    reconciler: Reconciler
    identity_conflicts: IdentityConflicts
    reclaim: Reclaim
    key_rotation: KeyRotation
    resolver: Resolver
    exposure: ExposureService
    removed_networks: RemovedNetworks
    underlay: Underlay
    event_log: EventLog

    def route(self, event: Event) -> None:
        """Tell whom it concerns."""
        match event:
            case StoreChanged(scope=scope, keys=keys):
                self.key_rotation.records_changed(keys)  # no other scope has such records
                if any(
                    key != rotation_driver.KEY_STATE_KEY for key in keys
                ):  # a rotation changes each member's
                    self._store_changed(scope)
            case ConfirmRequested(scope=scope):
                self._store_changed(scope)
            case OwnLogAhead(scope=scope, version=version):
                self.event_log.record(
                    "amnesia",
                    f"the peers held more of our own records (scope {scope}, up to {version}): "
                    "this disk was rolled back; they are restored",
                    level=logging.WARNING,
                )
            case GrantRequested(sender=sender, request=request):
                self._handle_grant_request(sender, request)
            case GrantRefused(refusal=refusal):
                self.allocator.handle_refusal(refusal)
            case CardAccepted():
                self.reconciler.mark_dirty()
            case NodeForgotten():
                self.admission.records_changed()
                self.key_rotation.members_changed()
            case AuthorityMessage():
                self.authority_holder.handle_message(event)
            case ForgottenBy(node_id=node_id):
                self.identity_conflicts.forgotten_by_member(node_id)
            case DuplicateIdentity(node_id=node_id, address=address):
                self.identity_conflicts.duplicate_seen(node_id, address)
            case MemberChanged(node_id=node_id, before=before, after=after):
                self._member_changed(self.directory.node_name(node_id), before, after)
            case Partitioned(seen=seen, total=total):
                self.event_log.record(
                    "partitioned", f"I see {seen} of {total}", level=logging.WARNING
                )
            case Healed():
                self.event_log.record("healed", "the members are in reach again")
            case _:
                pass

    def _handle_grant_request(self, sender: NodeId, request: GrantRequest) -> None:
        """Grant or refuse; where the disk refuses the asker tries again, here or elsewhere."""
        try:
            self.allocator.handle_request(sender, request)
        except OverlayError as error:
            self.event_log.record(
                "grant", str(error), level=logging.ERROR, peer=self.directory.node_name(sender)
            )

    def _member_changed(self, name: str, before: MemberState | None, after: MemberState) -> None:
        self.key_rotation.members_changed()
        self.resolver.records_changed(None)
        told = after.name.lower() if before is not None else "joined"
        self.event_log.record("member", f"{name} is {told}", peer=name)
        self.underlay.trigger()
        if after is MemberState.LEFT:
            self.reconciler.mark_dirty()

    def _store_changed(self, scope: Scope) -> None:
        self.allocator.records_changed()
        self.conflict_report.trigger()
        self.reclaim.trigger()
        self.exposure.published_ports.endpoints_changed(scope or None)
        self.resolver.records_changed(scope or None)
        if scope == CLUSTER_SCOPE:
            self.admission.records_changed()
            self.removed_networks.records_changed()
            self.exposure.controller.networks_changed()
            self.reconciler.mark_dirty()
        elif self.reconciler.runtime(Vni(scope)) is None:
            # Nothing to program for who only holds the records: that is done already.
            versions = list(self.gossip.node.store.versions(scope))
            self.gossip.node.programmed(versions, self.gossip.transport.now())
        else:
            self.reconciler.mark_dirty(scope)
