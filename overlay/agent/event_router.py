"""Who hears of what happens in the node's core.

Owns: which parts an event concerns, and the words for those that only people need to hear of. Must
not know: what a part does about it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from overlay.agent.dataplane.reconciler import Datapath
from overlay.agent.dataplane.underlay import UnderlayWatch
from overlay.agent.dns.resolver import Names
from overlay.agent.endpoints.removed_networks import Removals
from overlay.agent.exposure.service import Outside
from overlay.agent.gossip.admission import Admissions
from overlay.agent.gossip.authority import Custody
from overlay.agent.gossip.identity_conflicts import Doubts
from overlay.agent.gossip.key_rotation import Keys
from overlay.agent.gossip.service import Member
from overlay.agent.ipam.allocator import Addresses
from overlay.agent.ipam.reclaim import Inheriting
from overlay.agent.process.event_log import Journal
from overlay.agent.records.conflict_report import Clashes
from overlay.agent.records.directory import Directory
from overlay.core.events import (
    BarredBy,
    CardAccepted,
    CloneSeen,
    ConfirmWanted,
    Event,
    GrantRefused,
    GrantWanted,
    Healed,
    MemberChanged,
    NodeForgotten,
    OwnLogAhead,
    Partitioned,
    StoreChanged,
    Told,
)
from overlay.core.keys import rotation_driver
from overlay.core.protocol.messages import GrantRequest, MemberState
from overlay.core.protocol.records import CLUSTER_SCOPE, Scope
from overlay.errors import OverlayError
from overlay.model import NodeId, Vni


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """The parts of one membership that hear of events."""

    member: Member
    directory: Directory
    addresses: Addresses
    admissions: Admissions
    clashes: Clashes
    custody: Custody
    datapath: Datapath
    doubts: Doubts
    inheriting: Inheriting
    keys: Keys
    names: Names
    outside: Outside
    removals: Removals
    underlay: UnderlayWatch
    journal: Journal

    def take(self, event: Event) -> None:
        """Tell whom it concerns."""
        match event:
            case StoreChanged(scope=scope, keys=keys):
                self.keys.note(keys)  # no other scope has such records
                if any(
                    key != rotation_driver.RECORD for key in keys
                ):  # a rotation changes each member's
                    self._store_changed(scope)
            case ConfirmWanted(scope=scope):
                self._store_changed(scope)
            case OwnLogAhead(scope=scope, version=version):
                self.journal.record(
                    "amnesia",
                    f"the peers held more of our own records (scope {scope}, up to {version}): "
                    "this disk was rolled back; they are restored",
                    level=logging.WARNING,
                )
            case GrantWanted(sender=sender, request=request):
                self._answer(sender, request)
            case GrantRefused(refusal=refusal):
                self.addresses.refused(refusal)
            case CardAccepted():
                self.datapath.wake()
            case NodeForgotten():
                self.admissions.changed()
                self.keys.wake()
            case Told():
                self.custody.take(event)
            case BarredBy(node_id=node_id):
                self.doubts.barred(node_id)
            case CloneSeen(node_id=node_id, address=address):
                self.doubts.clone_seen(node_id, address)
            case MemberChanged(node_id=node_id, before=before, after=after):
                self._member_changed(self.directory.node_name(node_id), before, after)
            case Partitioned(seen=seen, total=total):
                self.journal.record(
                    "partitioned", f"I see {seen} of {total}", level=logging.WARNING
                )
            case Healed():
                self.journal.record("healed", "the members are in reach again")
            case _:
                pass

    def _answer(self, sender: NodeId, request: GrantRequest) -> None:
        """Grant or refuse; where the disk refuses the asker tries again, here or elsewhere."""
        try:
            self.addresses.answer(sender, request)
        except OverlayError as error:
            self.journal.record(
                "grant", str(error), level=logging.ERROR, peer=self.directory.node_name(sender)
            )

    def _member_changed(self, name: str, before: MemberState | None, after: MemberState) -> None:
        self.keys.wake()
        self.names.changed(None)
        told = after.name.lower() if before is not None else "joined"
        self.journal.record("member", f"{name} is {told}", peer=name)
        self.underlay.soon()
        if after is MemberState.LEFT:
            self.datapath.wake()

    def _store_changed(self, scope: Scope) -> None:
        self.addresses.changed()
        self.clashes.soon()
        self.inheriting.soon()
        self.outside.publishing.changed(scope or None)
        self.names.changed(scope or None)
        if scope == CLUSTER_SCOPE:
            self.admissions.changed()
            self.removals.changed()
            self.outside.exposure.networks_changed()
            self.datapath.wake()
        elif self.datapath.runtime(Vni(scope)) is None:
            # Nothing to program for who only holds the records: that is done already.
            versions = list(self.member.node.store.versions(scope))
            self.member.node.programmed(versions, self.member.pump.now())
        else:
            self.datapath.wake(scope)
