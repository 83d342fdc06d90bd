"""Routes each event of the node to the components that act on it.

Owns: which components an event concerns, and the event-log text of events that only people need.
Does not: act on an event.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from overlay.agent.declared.service import DeclaredService
from overlay.agent.diagnosis import Diagnosis
from overlay.agent.endpoints.older_state.adoption import Adoption
from overlay.agent.endpoints.removed_networks import RemovedNetworks
from overlay.agent.exposure.service import ExposureService
from overlay.agent.frame_forwarding import FrameForwarding
from overlay.agent.gossip.administration import Administration
from overlay.agent.gossip.context import NodeContext
from overlay.agent.ipam.address_management import AddressManagement
from overlay.agent.multicast.controller import MulticastController
from overlay.agent.name_resolution import NameResolution
from overlay.agent.netcheck.service import NetcheckService
from overlay.agent.networks.service import NetworkService
from overlay.agent.plug.service import PlugService
from overlay.agent.records.conflict_report import ConflictReport
from overlay.agent.router.controller import RouterController
from overlay.agent.services.data_plane import ServiceDataPlane
from overlay.core.events import (
    AuthorityMessage,
    CaptureMessage,
    CardAccepted,
    CheckMessage,
    ConfirmRequested,
    DuplicateIdentity,
    Event,
    ForgottenBy,
    GrantRefused,
    GrantRequested,
    Healed,
    MemberChanged,
    NodeForgotten,
    OtherVersion,
    OwnCardAhead,
    OwnEndpointsWithdrawn,
    OwnLogAhead,
    Partitioned,
    PathReported,
    SegmentAccepted,
    SightingMessage,
    StoreChanged,
    TraceMessage,
)
from overlay.core.keys import rotation_driver
from overlay.core.protocol.capture import CaptureAnswer, CaptureRequest
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.records import CLUSTER_SCOPE, Key, Scope
from overlay.model import Card, Vni


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRouter:
    """The components of one membership that act on events; connects to the transport's events."""

    context: NodeContext
    administration: Administration
    ipam: AddressManagement
    conflict_report: ConflictReport
    forwarding: FrameForwarding
    declared: DeclaredService
    names: NameResolution
    exposure: ExposureService
    service_data_plane: ServiceDataPlane
    networks: NetworkService
    adoption: Adoption
    removed_networks: RemovedNetworks
    routers: RouterController
    plugs: PlugService
    diagnosis: Diagnosis
    netcheck: NetcheckService
    multicast: MulticastController

    def __post_init__(self) -> None:
        """Connect."""
        self.context.gossip.transport.event_occurred.connect(self.route)
        self.service_data_plane.hosts.changed.connect(self._services_changed)

    def route(self, event: Event) -> None:
        """Hand one event to the components that it concerns."""
        match event:
            case StoreChanged(scope=scope, keys=keys):
                self._records_written(scope, keys)
            case ConfirmRequested(scope=scope):
                self._program(scope)
            case SegmentAccepted(segment=segment):
                self.context.gossip.segment_accepted(segment)
            case CardAccepted(card=card):
                self._card_accepted(card)
            case GrantRequested() | GrantRefused():
                self.ipam.grant_event(event)
            case AuthorityMessage():
                self.administration.authority_message(event)
            case ForgottenBy(node_id=node_id):
                self.administration.identity_conflicts.forgotten_by_member(node_id)
            case DuplicateIdentity(node_id=node_id, address=address):
                self.administration.identity_conflicts.duplicate_seen(node_id, address)
            case OtherVersion(node_id=node_id, version=version):
                self.administration.protocol_versions.heard(node_id, version)
            case OwnEndpointsWithdrawn(endpoints=endpoints):
                self.adoption.note_withdrawn(endpoints)
            case OwnCardAhead(epoch=epoch):
                self.context.gossip.own_card_ahead(epoch)
            case PathReported(sender=sender, report=report):
                self.forwarding.paths.report_received(sender, report)
            case TraceMessage():
                self.diagnosis.trace_peers.handle_message(event)
            case SightingMessage():
                self.diagnosis.sightings.handle_message(event)
            case CaptureMessage(sender=sender, message=CaptureRequest() as request):
                self.diagnosis.capture_answers.handle_request(sender, request)
            case CaptureMessage(sender=sender, message=CaptureAnswer() as answer):
                self.diagnosis.far_ends.handle_answer(sender, answer)
            case CheckMessage():
                self.netcheck.handle_message(event)
            case MemberChanged():
                self._member_changed(event)
            case NodeForgotten(node_id=node_id):
                self.context.gossip.node_forgotten(node_id)
                self.administration.node_forgotten()
                self.forwarding.node_forgotten()
            case _:
                self._log(event)

    def _log(self, event: Event) -> None:
        """Record an event that no component acts on, if people need to know of it."""
        record = self.context.event_log.record
        match event:
            case OwnLogAhead(scope=scope, version=version):
                record(
                    "amnesia",
                    f"peers held more of this node's own records (scope {scope}, up to {version}): "
                    "this disk was rolled back; the records are restored",
                    level=logging.WARNING,
                )
            case Partitioned(seen=seen, total=total):
                text = f"only {seen} of {total} members are reachable"
                record("partitioned", text, level=logging.WARNING)
            case Healed():
                record("healed", "the members are reachable again")
            case _:
                pass

    def _records_written(self, scope: Scope, keys: tuple[Key, ...]) -> None:
        self.administration.records_written(keys)
        # A key rotation changes one record of each member; nothing else depends on these.
        if any(key != rotation_driver.KEY_STATE_KEY for key in keys):
            self._store_changed(scope)

    def _card_accepted(self, card: Card) -> None:
        self.context.gossip.card_accepted(card)
        if card.node_id != self.context.gossip.node_id:
            self.forwarding.peer_card_accepted(card.node_id)

    def _member_changed(self, event: MemberChanged) -> None:
        if event.after in (MemberState.SUSPECT, MemberState.DEAD):
            self.context.gossip.member_unresponsive(event.node_id)
        self.administration.member_changed()
        self.ipam.reserves.trigger()
        self.names.resolver.records_changed(None)
        self.service_data_plane.hosts.member_changed(event.node_id, event.after)
        self._services_changed()
        state = event.after.name.lower() if event.before is not None else "joined"
        name = self.context.directory.node_name(event.node_id)
        self.context.event_log.record("member", f"{name} is {state}", peer=name)
        self.forwarding.member_changed(has_left=event.after is MemberState.LEFT)
        self.multicast.member_changed(event.node_id)

    def _services_changed(self) -> None:
        self.service_data_plane.trigger()
        self.exposure.ingress.trigger()

    def _store_changed(self, scope: Scope) -> None:
        self.ipam.records_changed()
        self.conflict_report.trigger()
        published = self.exposure.published_ports
        published.endpoints_changed(scope or None)
        # A container that publishes a port keeps it from a service.
        if self.service_data_plane.depends_on(scope) or published.has_port_on(scope):
            self._services_changed()
        self.exposure.declared.endpoints_changed()
        self.names.resolver.records_changed(scope or None)
        if scope == CLUSTER_SCOPE:
            self.administration.admission.records_changed()
            self.removed_networks.trigger()
            self.declared.trigger()
            self.forwarding.networks_changed()
            self.routers.trigger()
            self.plugs.records_changed()
            self.exposure.controller.networks_changed()
            self.exposure.declared.trigger()
            self.names.removed_records.trigger()
            self.multicast.trigger()
            self.networks.changed.emit()
        else:
            self._program(scope)

    def _program(self, scope: Scope) -> None:
        """Have the kernel forward by the records of a scope, and the members who wait told."""
        if scope != CLUSTER_SCOPE and self.forwarding.reconciler.runtime(Vni(scope)) is None:
            # A node without a sandbox only holds the records: its kernel needs nothing.
            node = self.context.gossip.node
            node.confirmations.programmed(node.store.versions(scope))
        else:
            self.forwarding.reconciler.mark_dirty(scope)
