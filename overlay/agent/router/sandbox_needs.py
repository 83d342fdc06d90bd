"""The networks that need a sandbox here without a container: also those that routers lead to.

A host that has one network of a router has all of them: it routes what its containers send.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from overlay.agent.records.directory import Directory
from overlay.agent.state.documents import Attachment
from overlay.core.dataplane.network_drivers import has_tunnel
from overlay.model import Network, Vni


class OtherNeeds(Protocol):
    """A source of needs for sandboxes besides routers."""

    def needs_no_container(self, vni: Vni) -> bool:
        """Return whether a network needs its sandbox without a container."""

    def without_containers(self) -> Iterable[Vni]:
        """Return these networks."""


class SandboxNeeds:
    """The networks that this host is on without a container of its own."""

    def __init__(
        self, directory: Directory, attachments: Mapping[bytes, Attachment], others: OtherNeeds
    ) -> None:
        self._directory = directory
        self._attachments = attachments
        self._others = others
        self._is_leaving = False

    def needs_no_container(self, vni: Vni) -> bool:
        """Return whether a network needs its sandbox without a container."""
        return self._others.needs_no_container(vni) or vni in self.routed()

    def without_containers(self) -> list[Vni]:
        """Return these networks, in order of VNI."""
        return sorted({*self._others.without_containers(), *self.routed()})

    def routed(self) -> dict[Vni, Network]:
        """Return the networks that routers lead to from those in use here."""
        if self._is_leaving:
            return {}
        used = {Vni(each.vni) for each in self._attachments.values()}
        used.update(self._others.without_containers())
        found = {}
        for vni in used:
            network = self._directory.network_by_vni(vni)
            if network is not None and has_tunnel(network):
                found.update({each.vni: each for each in self._directory.routed_with(network)})
        return found

    def disregard(self) -> None:
        """Ignore routers from now on: this node is leaving."""
        self._is_leaving = True
