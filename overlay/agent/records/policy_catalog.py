"""The policies of the cluster, from the declared objects in force."""

from __future__ import annotations

from overlay import limits
from overlay.agent.records.declared_catalog import DeclaredCatalog
from overlay.core.declared.kinds import POLICY_KIND
from overlay.core.declared.objects import DeclaredObjects
from overlay.core.policy.policy import Policy
from overlay.model import Vni
from overlay.wire.codec.policies import decode_policy


class PolicyCatalog(DeclaredCatalog[Policy]):
    """The policies that exist, by network."""

    def __init__(self, objects: DeclaredObjects) -> None:
        too_many = limits.POLICIES_PER_NETWORK_MAX + 1  # one more, so that none is left out unseen
        super().__init__(
            objects, POLICY_KIND, decode_policy, lambda policy: (policy.vni,), too_many
        )

    def policies(self, vni: Vni) -> tuple[Policy, ...]:
        """Return the policies of a network, by name, as many as count."""
        return self.on(vni)
