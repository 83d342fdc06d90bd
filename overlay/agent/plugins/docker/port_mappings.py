"""The ports of `docker run -p`, published for the container as long as Docker has it connected.

Docker asks for them on the one network by which a container has its default route. Owns: Docker's
form of a port, and whose ports are published. Does not: map a port (`exposure.published_ports`).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from overlay.agent.endpoints.runtime_endpoints import RuntimeEndpoints
from overlay.agent.exposure.published_ports import PublishedPorts
from overlay.agent.records.directory import Directory
from overlay.core.dataplane.published_port import PortRequest
from overlay.errors import ConflictError, NotFoundError, UsageError
from overlay.model import Ip, parse_ip

_OPTION = "com.docker.network.portmap"
_PROTOCOLS = {6: "tcp", 17: "udp"}  # of IP; Docker also has 132, SCTP
_ANY_PORT = range(49_152, 65_536)  # RFC 6335: for whoever needs one
_PORT_MAX = 65_535


class DockerPortMappings:
    """The published ports of Docker's containers."""

    def __init__(
        self, published: PublishedPorts, offered: RuntimeEndpoints, directory: Directory
    ) -> None:
        self._published = published
        self._offered = offered
        self._directory = directory

    async def publish(self, endpoint_id: str, options: dict[str, Any] | None) -> None:
        """Publish the ports that Docker's options of an endpoint have, all or none.

        Raises OverlayError.
        """
        requests = port_requests(options)
        if not requests:
            return
        attachment = self._offered.find(endpoint_id)
        endpoint = None if attachment is None else self._directory.endpoint_of(attachment)
        network = None if endpoint is None else self._directory.network_by_vni(endpoint.vni)
        if endpoint is None or network is None:
            raise NotFoundError(
                f"overlayd has no Docker endpoint {endpoint_id[:12]} to publish ports for",
                why="it was detached, or its network was removed",
                hint="Start the container again",
            )
        await self._published.publish_for(endpoint_id, endpoint.name, network.name, requests)

    async def withdraw(self, endpoint_id: str) -> None:
        """Unpublish the ports of an endpoint; nothing, if it has none."""
        await self._published.withdraw(endpoint_id)

    async def compare(self, endpoint_ids: Collection[str]) -> None:
        """Unpublish what belongs to no endpoint, and let the rest follow the endpoints' names.

        A kill of the agent may have come between a change and that of its ports.
        """
        for owner in self._published.owners():
            attachment = self._offered.find(owner)
            endpoint = None if attachment is None else self._directory.endpoint_of(attachment)
            if endpoint is not None:
                await self._published.name_owned(owner, endpoint.name)
            elif owner not in endpoint_ids:
                await self._published.withdraw(owner)


def port_requests(options: dict[str, Any] | None) -> list[PortRequest]:
    """Return the ports that Docker's options of an endpoint have; raises UsageError."""
    entries = (options or {}).get(_OPTION) or []
    try:
        return [_request(entry) for entry in entries]
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise UsageError("Docker's list of ports is not understood", why=str(error)) from error


def _request(entry: dict[str, Any]) -> PortRequest:
    number = int(entry.get("Proto", 6))
    if number not in _PROTOCOLS:
        raise ConflictError(
            f"overlayd cannot publish ports of IP protocol {number}",
            why="it maps ports of TCP and UDP",
            hint="Leave this port out of -p",
        )
    host_text = str(entry.get("HostIP") or "")
    port, first = int(entry["Port"]), int(entry.get("HostPort") or 0)
    last = int(entry.get("HostPortEnd") or first)
    if not 1 <= port <= _PORT_MAX or not 0 <= first <= last <= _PORT_MAX:
        raise ValueError(f"{first}-{last}:{port}")
    return PortRequest(
        _PROTOCOLS[number],
        parse_ip(host_text) if host_text else Ip(b""),
        range(first, last + 1) if first else _ANY_PORT,
        port,
    )
