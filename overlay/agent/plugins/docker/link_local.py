"""Addresses of `docker run --link-local-ip`: reported, as port security drops what they send.

Docker puts them on the interface, but tells a driver nothing of them, so no call can refuse them.
Owns: which are reported, once per endpoint. Does not: ask Docker (`container_names`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import Directory
from overlay.agent.state.documents import Attachment
from overlay.model import Endpoint, has_port_security_off

_SHOWN_MAX = 4


def link_local_addresses(connected: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the link-local addresses in Docker's description of a container on a network."""
    settings = connected.get("IPAMConfig") or {}
    return tuple(str(text)[:64] for text in settings.get("LinkLocalIPs") or ())


class LinkLocalReport:
    """Reports link-local addresses that a container was given and cannot use."""

    def __init__(self, directory: Directory, event_log: EventLog) -> None:
        self._directory = directory
        self._event_log = event_log
        self._reported: set[str] = set()

    def check(self, attachment: Attachment, endpoint: Endpoint, addresses: tuple[str, ...]) -> None:
        """Report the addresses of an endpoint, unless its port may send from any address."""
        network = self._directory.network_by_vni(attachment.vni)
        if not addresses or network is None or has_port_security_off(network, endpoint):
            return
        if attachment.runtime_endpoint in self._reported:
            return
        self._reported.add(attachment.runtime_endpoint)
        more = ", ..." if len(addresses) > _SHOWN_MAX else ""
        self._event_log.record(
            "docker",
            f"{', '.join(addresses[:_SHOWN_MAX])}{more} of --link-local-ip does not work on "
            f"{network.name}: what {endpoint.name} sends from there is dropped; "
            "docker run --ip gives it an address of the network",
            level=logging.WARNING,
            network=network.name,
            endpoint=endpoint.name,
        )

    def retain(self, endpoint_ids: set[str]) -> None:
        """Forget the endpoints that are gone."""
        self._reported &= endpoint_ids
