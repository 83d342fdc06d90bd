"""The metrics of policies; none without policies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from overlay.agent.components import Components
from overlay.agent.policy.counters import DEFAULT_NAME, PolicyCount
from overlay.prometheus import Family, Sample


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """The decisions of one policy, or of a network's default (an empty name), on this host."""

    vni: int
    name: str
    count: PolicyCount


async def policy_facts(components: Components) -> list[PolicyFacts]:
    """Return the policies of networks that have a sandbox here, and these networks' defaults."""
    policies = components.policies
    found = []
    for network in components.directory.networks():
        if not policies.decider.is_policed(network):
            continue
        reading = await policies.counters.read(network.vni)
        if reading is None:
            continue
        names = (each.name for each in policies.catalog.policies(network.vni))
        for name in (DEFAULT_NAME, *names):
            count = reading.counts.get(name.lower(), PolicyCount())
            found.append(PolicyFacts(network.vni, name, count))
    return found


def policy_families(facts: Sequence[PolicyFacts], networks: Mapping[int, str]) -> Iterator[Family]:
    """Yield the metrics; `networks` are the labels of networks, by VNI."""
    known = [
        (each.count, (("network", networks[each.vni]), ("policy", each.name)))
        for each in facts
        if each.vni in networks
    ]
    yield Family(
        "overlayd_policy_allowed_connections_total",
        "New connections of this host's containers that the policy, or the default, allowed.",
        [Sample(count.allowed, labels) for count, labels in known],
    )
    yield Family(
        "overlayd_policy_denied_packets_total",
        "Packets of this host's containers that the policy, or the default, denied.",
        [Sample(count.denied, labels) for count, labels in known],
    )
