"""The validation of a policy, in itself and beside existing ones.

Owns: the rules, the errors about them, and the notes on a policy that has no effect now.
Does not: write records.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from overlay import limits
from overlay.agent.declared.named_objects import NamedKind
from overlay.agent.networks.settings import require_policed
from overlay.agent.records.directory import Directory
from overlay.core.dataplane.network_drivers import driver_of
from overlay.core.declared.kinds import POLICY_KIND
from overlay.core.policy.decision import Party, selects
from overlay.core.policy.policy import Peer, PeerKind, Policy
from overlay.errors import NotFoundError, UsageError
from overlay.model import Network, has_default_deny

POLICIES: Final = NamedKind(
    POLICY_KIND,
    "policy",
    "policies",
    "Select containers by a label that they share in place of many names, or create several "
    "policies",
)

_OF_ENDPOINTS = (PeerKind.LABEL, PeerKind.NAME)


def require_valid(policy: Policy) -> None:
    """Raise UsageError for a policy that no record can hold."""
    for peers, field in ((policy.sources, "from"), (policy.destinations, "to")):
        if len(peers) > limits.POLICY_PEERS_MAX:
            raise UsageError(
                f"policy {policy.name} has {len(peers)} peers on one side; "
                f"{limits.POLICY_PEERS_MAX} is the limit",
                hint="Use a label that all of them have, or several policies",
                field=field,
            )
    if len(policy.ports) > limits.POLICY_PORTS_MAX:
        raise UsageError(
            f"policy {policy.name} has {len(policy.ports)} ranges of ports; "
            f"{limits.POLICY_PORTS_MAX} is the limit",
            hint="Use ranges, such as 8000-8100/tcp, or several policies",
            field="ports",
        )


def require_possible(directory: Directory, network: Network, policy: Policy) -> None:
    """Raise OverlayError for a policy that contradicts what exists."""
    require_policed(network.name, driver_of(network))
    for peer in (*policy.sources, *policy.destinations):
        if peer.kind is PeerKind.NETWORK:
            _require_network(directory, peer)


def _require_network(directory: Directory, peer: Peer) -> None:
    try:
        directory.network(peer.key)
    except NotFoundError as error:
        error.what = f"{peer}: {error.what}"
        raise


def require_same(existing: Policy, wanted: Policy, network: str) -> None:
    """Raise ConflictError if a policy of the name exists and is another one."""
    compared = (
        ("network", existing.vni != wanted.vni),
        ("action", existing.action != wanted.action),
        ("sources", existing.sources != wanted.sources),
        ("destinations", existing.destinations != wanted.destinations),
        ("ports", existing.ports != wanted.ports),
        ("log", existing.log != wanted.log),
        ("labels", existing.labels != wanted.labels),
    )
    POLICIES.require_same(existing.name, compared, network)


def notes(directory: Directory, network: Network, policy: Policy) -> list[str]:
    """Return why a policy, or a part of it, has no effect now."""
    found = []
    if policy.action == "allow" and not has_default_deny(network):
        found.append(
            f"network {network.name} allows what no policy denies, so this policy changes "
            f"nothing; to change that: overlayd network set {network.name} --default-deny on"
        )
    if directory.follows(directory.own, network.vni):
        found += _unmatched(directory, network, (*policy.sources, *policy.destinations))
    return found


def _unmatched(directory: Directory, network: Network, peers: Iterable[Peer]) -> Iterator[str]:
    endpoints = [each.endpoint for each in directory.all_endpoints(network.vni)]
    for peer in dict.fromkeys(peers):
        if peer.kind in _OF_ENDPOINTS and not any(
            selects([peer], Party(ip, each.name, each.labels))
            for each in endpoints
            for ip in each.ips[:1]
        ):
            yield f"{peer} matches no container on network {network.name} now"
