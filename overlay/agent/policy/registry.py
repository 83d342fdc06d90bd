"""Create, change and remove policies of the cluster, on whichever host the command is given.

Owns: the order of validation and writing. Does not: know the rules for a valid policy
(`definition`), or enforce one.
"""

from __future__ import annotations

from collections.abc import Callable

from overlay import limits
from overlay.agent.declared.service import DeclaredService
from overlay.agent.gossip.context import NodeContext
from overlay.agent.policy import definition
from overlay.agent.policy.definition import POLICIES
from overlay.agent.records.policy_catalog import PolicyCatalog
from overlay.core.policy.compiler import PolicyCompiler
from overlay.core.policy.policy import Policy
from overlay.core.policy.population import Population
from overlay.errors import ConflictError
from overlay.model import Endpoint, Network
from overlay.wire.codec.policies import encode_policy


class PolicyRegistry:
    """The policies of the cluster, as commands on this host change them."""

    def __init__(
        self, context: NodeContext, declared: DeclaredService, catalog: PolicyCatalog
    ) -> None:
        self._context = context
        self._declared = declared
        self.catalog = catalog

    def require(self, name: str) -> Policy:
        """Return the policy with a name; raises NotFoundError."""
        found = self.catalog.find(name)
        if found is not None:
            return found
        raise POLICIES.missing(name, [policy.name for policy in self.catalog.all()])

    def create(self, network: Network, wanted: Policy) -> tuple[Policy, bool]:
        """Return the policy of this definition, and whether it is new; raises OverlayError."""
        definition.require_valid(wanted)
        existing = self.catalog.find(wanted.name)
        if existing is not None:
            definition.require_same(existing, wanted, self.network_name(existing))
            return existing, False
        definition.require_possible(self._context.directory, network, wanted)
        self._require_room(network, wanted)
        self._require_capacity(network, wanted)
        self._write(wanted)
        self._record(wanted, "created")
        return wanted, True

    def change(self, name: str, changed: Callable[[Policy], Policy]) -> tuple[Policy, Policy]:
        """Change a policy; return it as it was and as it is; raises OverlayError."""
        before = self.require(name)
        after = changed(before)
        definition.require_valid(after)
        if after == before:
            return before, after
        network = self._context.directory.network_by_vni(before.vni)
        if network is not None:
            definition.require_possible(self._context.directory, network, after)
            self._require_capacity(network, after)
        self._write(after)
        self._record(after, "changed")
        return before, after

    def remove(self, name: str) -> Policy:
        """Remove a policy everywhere; raises OverlayError."""
        policy = self.require(name)
        self._declared.remove(POLICIES.number, policy.name)
        self._record(policy, "removed")
        return policy

    def network_name(self, policy: Policy) -> str:
        """Return the name of a policy's network, or its number if it has gone."""
        network = self._context.directory.network_by_vni(policy.vni)
        return f"VNI {policy.vni}" if network is None else network.name

    def _write(self, policy: Policy) -> None:
        POLICIES.write(self._declared, policy.name, encode_policy(policy))

    def _require_room(self, network: Network, wanted: Policy) -> None:
        if len(self.catalog.policies(network.vni)) >= limits.POLICIES_PER_NETWORK_MAX:
            raise ConflictError(
                f"network {network.name} has {limits.POLICIES_PER_NETWORK_MAX} policies: the limit",
                hint=f"Remove one, or give one of them the peers and ports of {wanted.name}",
            )

    def _require_capacity(self, network: Network, wanted: Policy) -> None:
        """Raise ConflictError if hosts would have more rules than they can hold.

        They would allow nothing new. Another host may have endpoints that take more: it says so.
        """
        name, directory = wanted.name.lower(), self._context.directory
        others = (p for p in self.catalog.policies(network.vni) if p.name.lower() != name)
        here: list[Endpoint] = []
        elsewhere: list[Endpoint] = []
        for origin, endpoint in directory.all_endpoints(network.vni):
            (here if origin == directory.own else elsewhere).append(endpoint)
        population = Population(network, tuple(here), tuple(elsewhere))
        fault = PolicyCompiler().compile((*others, wanted), population).fault
        if fault:
            raise ConflictError(
                f"with policy {wanted.name}, network {network.name} has more than hosts can hold",
                why=fault,
                hint="Use a label that containers share in place of many names, or fewer ports",
            )

    def _record(self, policy: Policy, change: str) -> None:
        self._context.event_log.record(
            "policies", f"policy {policy.name} was {change}", network=self.network_name(policy)
        )
