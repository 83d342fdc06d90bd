"""The readers of one membership's records, which nearly all components use.

Owns: the construction of directory, catalogs and address space. Does not: write records.
"""

from __future__ import annotations

from overlay.agent.gossip.dead_node_expiry import DeadNodeExpiry
from overlay.agent.gossip.service import GossipService
from overlay.agent.records.directory import Directory
from overlay.agent.records.plug_catalog import PlugCatalog
from overlay.agent.records.service_catalog import ServiceCatalog
from overlay.agent.state.attachments import Attachments
from overlay.core.declared.objects import DeclaredObjects
from overlay.core.encryption.inner_address import inner_prefix
from overlay.core.ipam.address_space import AddressSpace


class RecordReaders:
    """Declared objects, services, policies, this node's address space, and lookups by name."""

    def __init__(
        self, gossip: GossipService, attachments: Attachments, dead_grace_s: float
    ) -> None:
        store, own = gossip.node.store, gossip.node_id
        self.declared = DeclaredObjects(store, gossip.signer)
        self.catalog = ServiceCatalog(self.declared)
        self.plugs = PlugCatalog(self.declared, gossip.node, own)
        self.space = AddressSpace(
            store, own, virtual=self.catalog, outside=self.plugs, withdrawn=attachments
        )
        expiry = DeadNodeExpiry(gossip, dead_grace_s)
        prefix = inner_prefix(bytes.fromhex(gossip.cluster.cluster_id))
        self.directory = Directory(
            gossip.node, own, self.space, expiry, prefix, self.catalog, self.declared
        )
        assert self.directory.policies is not None, "it has declared objects"
        self.policies = self.directory.policies
