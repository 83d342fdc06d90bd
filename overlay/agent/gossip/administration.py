"""This node's part in the administration of the cluster: who belongs to it, and with which keys.

Owns: the construction of what admits, certifies, forgets and rotates, and which of these an event
concerns. Does not: know networks or addresses.
"""

from __future__ import annotations

from overlay.agent.gossip.admission import AdmissionService
from overlay.agent.gossip.authority.backup import AuthorityBackup
from overlay.agent.gossip.authority.certificate import CertificateKeeper
from overlay.agent.gossip.authority.handover import AuthoritySharing
from overlay.agent.gossip.authority.holders import HOLDER_KEY, AuthorityHolders
from overlay.agent.gossip.card_report import CardReport
from overlay.agent.gossip.forget import ForgetService
from overlay.agent.gossip.identity_conflicts import IdentityConflicts
from overlay.agent.gossip.key_rotation import KeyRotation
from overlay.agent.gossip.service import GossipService
from overlay.agent.process.config import Config
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import Directory
from overlay.agent.records.protocol_versions import ProtocolVersions
from overlay.core.events import AuthorityMessage
from overlay.core.protocol.records import Key


class Administration:
    """The parts of the cluster's administration on this node."""

    def __init__(
        self, gossip: GossipService, directory: Directory, event_log: EventLog, config: Config
    ) -> None:
        self.holders = AuthorityHolders(gossip)
        self.admission = AdmissionService(gossip, self.holders, event_log)
        self.certificate = CertificateKeeper(gossip, directory, self.holders, event_log)
        self.sharing = AuthoritySharing(
            gossip, directory, self.holders, event_log, config.authority_holders
        )
        self.backup = AuthorityBackup(gossip, self.holders, self.sharing, event_log)
        self.key_rotation = KeyRotation(
            gossip, directory, self.holders, event_log, config.key_rotation_interval_s
        )
        self.forgetting = ForgetService(gossip, directory, self.holders, event_log)
        self.identity_conflicts = IdentityConflicts(gossip, directory, event_log)
        self.protocol_versions = ProtocolVersions(directory, event_log, gossip.transport.now)
        gossip.transport.session_opened.connect(self.protocol_versions.met)
        self.card_report = CardReport(gossip, directory, event_log)

    # --- events (called by the event router) ----------------------------------------------

    def authority_message(self, event: AuthorityMessage) -> None:
        """Handle a message about certificates, or about sharing the authority."""
        self.certificate.handle_message(event)
        self.sharing.handle_message(event)

    def records_written(self, keys: tuple[Key, ...]) -> None:
        """Follow a change of certain records."""
        self.key_rotation.records_changed(keys)
        if HOLDER_KEY in keys:
            self.sharing.holders_changed()

    def member_changed(self) -> None:
        """Follow a change of a member's state."""
        self.key_rotation.trigger()
        self.sharing.trigger()

    def node_forgotten(self) -> None:
        """Follow that a member was forgotten."""
        self.admission.records_changed()
        self.sharing.holders_changed()
        self.key_rotation.trigger()
