"""The networks that need a sandbox here without a container: also those that routers lead to.

A host that has one network of a router has all of them: it routes what its containers send.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from overlay.agent.networks.participation import SandboxUser
from overlay.agent.records.directory import Directory
from overlay.agent.state.documents import Attachment
from overlay.core.dataplane.network_drivers import has_tunnel
from overlay.model import Network, Vni


class SandboxNeeds:
    """The networks that this host is on without a container of its own.

    `users` know those that need a sandbox by themselves: exposed or plugged ones.
    """

    def __init__(
        self,
        directory: Directory,
        attachments: Mapping[bytes, Attachment],
        users: Sequence[SandboxUser],
    ) -> None:
        self._directory = directory
        self._attachments = attachments
        self._users = users
        self._is_leaving = False

    def needs_no_container(self, vni: Vni) -> bool:
        """Return whether a network needs its sandbox without a container."""
        return any(user.needs_no_container(vni) for user in self._users) or vni in self.routed()

    def without_containers(self) -> list[Vni]:
        """Return these networks, in order of VNI."""
        return sorted({*self._used(), *self.routed()})

    def routed(self) -> dict[Vni, Network]:
        """Return the networks that routers lead to from those in use here."""
        if self._is_leaving:
            return {}
        attached = {Vni(each.vni) for each in self._attachments.values()}
        found = {}
        for vni in attached | self._used():
            network = self._directory.network_by_vni(vni)
            if network is not None and has_tunnel(network):
                found.update({each.vni: each for each in self._directory.routed_with(network)})
        return found

    def _used(self) -> set[Vni]:
        return {vni for user in self._users for vni in user.without_containers()}

    def disregard(self) -> None:
        """Ignore routers from now on: this node is leaving."""
        self._is_leaving = True
