"""The policies in the plans of a host's sandboxes.

Owns: which networks have policies, and the compiler of each. Does not: read records, or plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from overlay.core.dataplane.network_drivers import has_sandbox
from overlay.core.dataplane.planning.inputs import PlanInput, PolicyRows
from overlay.core.policy.compiler import PolicyCompiler
from overlay.core.policy.policy import PeerKind, Policy
from overlay.core.policy.population import Population
from overlay.model import Ip, Network, Vni, has_default_deny


class PolicySource(Protocol):
    """Knows the policies of the cluster."""

    def policies(self, vni: Vni) -> tuple[Policy, ...]:
        """Return the policies of a network, by name."""


class PolicyPlans:
    """The policies' part in the plan of each network that has any."""

    def __init__(self, source: PolicySource) -> None:
        self._source = source
        self._compilers: dict[Vni, PolicyCompiler] = {}

    def is_policed(self, network: Network) -> bool:
        """Return whether new connections on a network depend on policies."""
        has_any = has_default_deny(network) or bool(self._source.policies(network.vni))
        return has_any and has_sandbox(network)

    def rows(
        self, given: PlanInput, networks: Mapping[Vni, Network], resolvers: tuple[Ip, ...] = ()
    ) -> PolicyRows | None:
        """Return the rows for a plan; None if the network has no policies.

        `resolvers` are those elsewhere that containers of this host were given.
        """
        network = given.network
        if not self.is_policed(network):
            self._compilers.pop(network.vni, None)
            return None
        policies = self._source.policies(network.vni)
        needs_networks = any(map(_needs_networks, policies))
        everyone = sorted(networks.values(), key=lambda each: each.vni) if needs_networks else []
        population = Population(
            network,
            given.locals,
            tuple(each.endpoint for each in given.remotes),
            tuple(sorted(ip for _, ip, _ in given.fabric.neighbors)),
            tuple((each.name, each.subnets) for each in everyone),
            resolvers,
        )
        compiler = self._compilers.setdefault(network.vni, PolicyCompiler())
        return compiler.compile(policies, population)


def _needs_networks(policy: Policy) -> bool:
    """Return whether it matters to a policy which network an address is in."""
    peers = (*policy.sources, *policy.destinations)
    return any(peer.kind in (PeerKind.WORLD, PeerKind.NETWORK) for peer in peers)
