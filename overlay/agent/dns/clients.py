"""DNS clients: the local containers that send queries, found by their address.

Owns: the lookup from an address on a network to a container, its networks and its resolvers.
Does not: know names or the DNS format.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from overlay.agent.records.directory import Directory
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.database import StateDatabase
from overlay.agent.state.documents import CONTAINERS, Attachment
from overlay.model import Ip, Network, Vni


class DnsClients:
    """The containers of this host, by their address on a network."""

    def __init__(
        self, state: StateDatabase, directory: Directory, attachments: Attachments
    ) -> None:
        self._state = state
        self._directory = directory
        self._attachments = attachments
        # By network: the version of this node's records when the index was built, and endpoint id
        # by address. Without it, each query would scan thousands of containers for milliseconds.
        self._by_ip: dict[Vni, tuple[int, dict[Ip, bytes]]] = {}

    def networks(self, network: Network, ip: Ip) -> list[Network]:
        """Return the networks that a client is on; `network` alone if it is unknown."""
        client = self._attachment(network, ip)
        if client is None:
            return [network]
        vnis = {each.vni for each in self._attachments.of_target(client.netns_identity)}
        return [other for other in self._directory.networks() if other.vni in vnis]

    def reaches_outside(self, network: Network, ip: Ip) -> bool:
        """Return whether a client is on a network that is not internal."""
        return any(not each.internal for each in self.networks(network, ip))

    def resolvers(self, network: Network, ip: Ip) -> Sequence[str]:
        """Return the resolvers configured for a client; none if the host's apply."""
        client = self._attachment(network, ip)
        if client is None:
            return ()
        if client.resolvers:
            return client.resolvers
        container = CONTAINERS.find(self._state, client.target.removeprefix("netns:"))
        return () if container is None else container.dns_servers

    def identity(self, network: Network, ip: Ip) -> Hashable:
        """Return the container that a client is: its namespace, or its address if it is unknown."""
        client = self._attachment(network, ip)
        return (network.vni, ip) if client is None else client.netns_identity

    def _attachment(self, network: Network, ip: Ip) -> Attachment | None:
        version = self._directory.own_version(network.vni)
        indexed = self._by_ip.get(network.vni)
        if indexed is None or indexed[0] != version:
            own = self._directory.own_endpoints(network.vni)
            indexed = (version, {each: one.endpoint_id for one in own for each in one.ips})
            self._by_ip[network.vni] = indexed
        return self._attachments.get(indexed[1].get(ip, b""))
