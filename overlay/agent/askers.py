"""Who asks a DNS question: the local container behind an address, and what is its own.

Owns: the way from an address back to a container. Must not know: names, DNS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from overlay.agent.directory import Directory
from overlay.agent.endpoints import Endpoints
from overlay.agent.statefile import StateFile
from overlay.agent.stored import CONTAINER_KIND, Attachment
from overlay.model import Ip, Network


class Askers:
    """Questions about the containers of this host, by their address on a network."""

    def __init__(
        self,
        state: StateFile,
        directory: Directory,
        endpoints: Endpoints,
        attachments: Mapping[bytes, Attachment],
    ) -> None:
        self._state = state
        self._directory = directory
        self._endpoints = endpoints
        self._attachments = attachments

    def networks(self, network: Network, ip: Ip) -> list[Network]:
        """Return the networks that the container is on."""
        found = self._attachment(network, ip)
        if found is None:
            return [network]
        vnis = {a.vni for a in self._endpoints.of_target(found.netns_identity)}
        return [other for other in self._directory.networks() if other.vni in vnis]

    def resolvers(self, network: Network, ip: Ip) -> Sequence[str]:
        """Return the resolvers that were asked for with the container; none: the host's."""
        found = self._attachment(network, ip)
        if found is None:
            return ()
        kept = self._state.get(CONTAINER_KIND, found.target.removeprefix("netns:"))
        servers: Sequence[str] = (kept or {}).get("dns_servers", ())
        return servers

    def _attachment(self, network: Network, ip: Ip) -> Attachment | None:
        for attachment in self._attachments.values():
            if attachment.vni == network.vni:
                endpoint = self._endpoints.endpoint(attachment)
                if endpoint is not None and ip in endpoint.ips:
                    return attachment
        return None
