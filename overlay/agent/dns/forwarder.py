"""Forward the queries of DNS clients to their resolvers, or the host's.

Owns: which queries may leave this host, and how many at once. Does not: choose among resolvers
(`resolver_pool`) or know sockets (`upstream`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Protocol

from dnslib import RCODE

from overlay import limits
from overlay.agent.dns import upstream
from overlay.agent.dns.query import Query
from overlay.agent.dns.resolver_pool import ResolverPool
from overlay.agent.resolvers import resolv_conf
from overlay.model import Ip, Network, Vni, ip_text


class ForwardingClients(Protocol):
    """The rules by which a client's queries are forwarded, and the resolvers for them."""

    def reaches_outside(self, network: Network, ip: Ip) -> bool:
        """Return whether the client is on a network that is not internal."""

    def resolvers(self, network: Network, ip: Ip) -> Sequence[str]:
        """Return the resolvers configured for a client; none if the host's apply."""

    def identity(self, network: Network, ip: Ip) -> Hashable:
        """Return the container that a client is, the same for all of its addresses."""


class Forwarder:
    """Forwards queries for all networks of this host."""

    def __init__(self, clients: ForwardingClients) -> None:
        self._clients = clients
        self._pool = ResolverPool()
        self._pending: Counter[Vni] = Counter()
        self._shares: Counter[Hashable] = Counter()  # of them, by container

    async def forward(
        self,
        network: Network,
        client: Ip,
        query: Query,
        *,
        by_tcp: bool,
        asked: Ip | None = None,
    ) -> bytes:
        """Return the answer of the client's resolvers; SERVFAIL if none of them answers.

        `asked` is the resolver that the client meant, if it did not ask the gateway. A query that
        came by TCP is sent by TCP, too: its answer may be too large for UDP.
        """
        if not query.may_be_forwarded or not self._clients.reaches_outside(network, client):
            return query.failure(RCODE.REFUSED)
        container = self._clients.identity(network, client)
        if (
            self._pending[network.vni] >= limits.DNS_FORWARDS_MAX
            or self._shares[container] >= limits.DNS_FORWARDS_PER_CLIENT_MAX
        ):
            return query.failure(RCODE.REFUSED)
        self._pending[network.vni] += 1
        self._shares[container] += 1
        try:
            resolvers = self._resolvers(network, client, asked)
            answer = await self._pool.ask(resolvers, query.raw, by_tcp=by_tcp)
        finally:
            self._pending -= Counter({network.vni: 1})
            self._shares -= Counter({container: 1})
        if answer is None:
            return query.failure(RCODE.SERVFAIL)
        if not upstream.has_question(answer):
            truncated = upstream.is_truncated(answer)
            return query.truncated() if truncated else query.failure(RCODE.SERVFAIL)
        return answer if by_tcp or len(answer) <= query.udp_size else query.truncated()

    def _resolvers(self, network: Network, client: Ip, asked: Ip | None) -> Sequence[str]:
        """Return the resolvers for a client: the one that it asked, or all that it may mean."""
        of_host = resolv_conf.host_resolvers()
        if asked is None:
            return self._clients.resolvers(network, client) or of_host
        return of_host if ip_text(asked) in of_host else [ip_text(asked)]
