"""Who asks a DNS question: the local container behind an address, and what is its own.

Owns: the way from an address back to a container. Must not know: names, DNS.
"""

from __future__ import annotations

from collections.abc import Sequence

from overlay.agent.records.directory import Directory
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.database import StateDatabase
from overlay.agent.state.documents import CONTAINERS, Attachment
from overlay.model import Ip, Network, Vni


class DnsClients:
    """Questions about the containers of this host, by their address on a network."""

    def __init__(
        self,
        state: StateDatabase,
        directory: Directory,
        attachments: Attachments,
    ) -> None:
        self._state = state
        self._directory = directory
        self._attachments = attachments
        # By network: the version of this node's records they are made from, and whose address is
        # whose. A walk through some thousand containers for each question would take milliseconds.
        self._by_ip: dict[Vni, tuple[int, dict[Ip, bytes]]] = {}

    def networks(self, network: Network, ip: Ip) -> list[Network]:
        """Return the networks that the container is on."""
        found = self._attachment(network, ip)
        if found is None:
            return [network]
        vnis = {a.vni for a in self._attachments.of_target(found.netns_identity)}
        return [other for other in self._directory.networks() if other.vni in vnis]

    def resolvers(self, network: Network, ip: Ip) -> Sequence[str]:
        """Return the resolvers that were asked for with the container; none: the host's."""
        found = self._attachment(network, ip)
        if found is None:
            return ()
        container = CONTAINERS.find(self._state, found.target.removeprefix("netns:"))
        return () if container is None else container.dns_servers

    def _attachment(self, network: Network, ip: Ip) -> Attachment | None:
        version = self._directory.own_version(network.vni)
        known = self._by_ip.get(network.vni)
        if known is None or known[0] != version:
            own = self._directory.own_endpoints(network.vni)
            known = (version, {each: one.endpoint_id for one in own for each in one.ips})
            self._by_ip[network.vni] = known
        return self._attachments.get(known[1].get(ip, b""))
