"""One node's hand on the addresses: its own space, its used and resting ones, its answers.

Owns: the cache of ownership per network and the quarantine. Decides by `ipam`; does not write
records, send messages or wait: the agent and the simulator do, each in its own way, and both
make a grant durable before anyone hears of it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from typing import TypeVar

from overlay.core import ipam
from overlay.core.intervals import Intervals
from overlay.core.ipam import Quarantine, Share
from overlay.core.messages import GrantRefusal, GrantRequest
from overlay.core.ownership import Ownership, ownership
from overlay.core.records import CLUSTER_SCOPE, Forgotten, Scope, Settled
from overlay.core.store import Store
from overlay.model import Endpoint, Grant, Ip, Network, NodeId, Vni

V = TypeVar("V", Endpoint, Grant, Forgotten, Settled)


class Addressing:
    """What one node may take and give, from its own store.

    Call `changed` when records of a network change; nothing else makes the cache stale.
    """

    def __init__(self, store: Store, self_id: NodeId) -> None:
        self._store = store
        self._self_id = self_id
        self._ownership: dict[Vni, Ownership] = {}
        self._quarantine: dict[Vni, Quarantine] = {}

    def changed(self, scope: Scope) -> None:
        """Forget what was worked out from records that are no longer all."""
        if scope == CLUSTER_SCOPE:
            self._ownership.clear()
        else:
            self._ownership.pop(Vni(scope), None)

    def ownership(self, network: Network) -> Ownership:
        """Return who owns what of a network, as this node knows it."""
        known = self._ownership.get(network.vni)
        if known is None or known.network != network:
            known = self._ownership[network.vni] = ownership(
                network,
                _values(self._store, Scope(network.vni), "grant", Grant),
                _values(self._store, CLUSTER_SCOPE, "forgotten", Forgotten),
                _values(self._store, CLUSTER_SCOPE, "settled", Settled),
            )
        return known

    def used(self, vni: Vni) -> set[Ip]:
        """Return the addresses that this node's own endpoints have."""
        return {
            ip
            for origin, endpoint in _values(self._store, Scope(vni), "endpoint", Endpoint)
            if origin == self._self_id
            for ip in endpoint.ips
        }

    def released(self, vni: Vni, ips: Iterable[Ip], now: float) -> None:
        """Let addresses rest that an endpoint has given up."""
        for ip in ips:
            self._resting(vni).release(ip, now)

    def pick(self, network: Network, subnet_index: int, now: float) -> Ip | None:
        """Return a free address of this node's own space, or None if it must ask."""
        subnet = network.subnets[subnet_index]
        return ipam.pick(
            subnet,
            self.ownership(network).owned(self._self_id, subnet_index),
            self.used(network.vni),
            self._resting(network.vni).resting(now),
            ipam.reserved(subnet),
        )

    def fault_of(self, network: Network, ip: Ip) -> str | None:
        """Return why this very address can't be taken now (see `ipam`), or None."""
        return ipam.fault_of(self.ownership(network), ip, self._self_id, self.used(network.vni))

    def owned(self, network: Network, subnet_index: int) -> Intervals:
        """Return this node's own space."""
        return self.ownership(network).owned(self._self_id, subnet_index)

    def shares(self, network: Network) -> list[Share]:
        """Return who has how much, as far as known here."""
        endpoints = _values(self._store, Scope(network.vni), "endpoint", Endpoint)
        ips = (ip for _, endpoint in endpoints for ip in endpoint.ips)
        return ipam.shares(self.ownership(network), ips)

    def whom_to_ask(
        self, network: Network, subnet_index: int, reachable: Container[NodeId]
    ) -> list[NodeId]:
        """Return the reachable owners that seem to have free space, the richest first."""
        return ipam.whom_to_ask(self.shares(network), subnet_index, self._self_id, reachable)

    def decide(
        self, network: Network, asker: NodeId, request: GrantRequest, now: float
    ) -> tuple[Grant | GrantRefusal, list[Grant]]:
        """Return the answer to a request, and the older grants that a new one makes void.

        Put the grant and delete those in one write; where the grant is in the own log
        already (a repeated request), writing it again changes nothing.
        """
        known = self.ownership(network)
        resting = self._resting(network.vni).resting(now)
        answer = ipam.decide_grant(
            known, self._self_id, asker, request, used=self.used(network.vni), resting=resting
        )
        if isinstance(answer, GrantRefusal):
            return answer, []
        return answer, ipam.superseded(known, self._self_id, answer)

    def _resting(self, vni: Vni) -> Quarantine:
        return self._quarantine.setdefault(vni, Quarantine())


def _values(store: Store, scope: Scope, kind: str, wanted: type[V]) -> Iterator[tuple[NodeId, V]]:
    for origin, value in store.values(scope, kind):
        if isinstance(value, wanted):
            yield origin, value
