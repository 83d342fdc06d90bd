"""The names that ports are published for: containers on networks that this host is on.

Owns: which container and network a name means, and the refusal of all other names.
Does not: know ports or rules.
"""

from __future__ import annotations

from overlay.agent.exposure.controller import ExposureController
from overlay.agent.records.directory import Directory, PlacedEndpoint
from overlay.agent.state.attachments import Attachments
from overlay.core.dataplane.network_drivers import has_sandbox
from overlay.errors import ConflictError, NotFoundError, OverlayError
from overlay.model import Network, Vni


class PublishedNames:
    """Lookups of containers by name, whatever its case, as DNS compares names."""

    def __init__(
        self, directory: Directory, exposure: ExposureController, attachments: Attachments
    ) -> None:
        self._directory = directory
        self._exposure = exposure
        self._attachments = attachments

    def of_target(self, text: str) -> str:
        """Return the name of this host's container that was attached by a target, else the text.

        Such as `web` for `docker:web`: the names of its endpoints are the same, unless they were
        given by hand on several networks; then the first one counts.
        """
        names = [
            endpoint.name
            for attachment in self._attachments.values()
            if attachment.target == text
            and (endpoint := self._directory.endpoint_of(attachment)) is not None
        ]
        return min(names, default=text)

    def on(self, vni: Vni) -> dict[str, PlacedEndpoint]:
        """Return the containers of a network by their name in lower case."""
        found: dict[str, PlacedEndpoint] = {}
        for placed in self._directory.endpoints(vni):
            # Of two, created in a partition, every host picks the same (`core.dataplane`).
            name = placed.endpoint.name.lower()
            other = found.setdefault(name, placed)
            if placed.endpoint.endpoint_id < other.endpoint.endpoint_id:
                found[name] = placed
        return found

    def find(self, name: str, network_name: str | None) -> tuple[Network, str]:
        """Return the exposed network of a container, and its name as it is written there.

        Raises NotFoundError for a name that no container has, ConflictError for an alias, for a
        name on several networks, and for a network that this host is not on.
        """
        wanted = None if network_name is None else self._directory.network(network_name)
        if wanted is not None:
            self._require_exposed(wanted)
        chosen = self._directory.networks() if wanted is None else [wanted]
        found = {
            network: named[name.lower()].endpoint.name
            for network in chosen
            if name.lower() in (named := self.on(network.vni))
        }
        if not found:
            raise self._unknown(name, chosen)
        exposed = [
            network for network in found if self._exposure.host_endpoints.of(network.vni)
        ] or list(found)
        if len(exposed) > 1:
            names = ", ".join(network.name for network in exposed)
            raise ConflictError(
                f"{name} is on several networks: {names}", hint="Choose one with --network"
            )
        self._require_exposed(exposed[0])
        return exposed[0], found[exposed[0]]

    def require_known(self, name: str) -> None:
        """Raise NotFoundError or ConflictError for a name that no known container has."""
        networks = self._directory.networks()
        if not any(name.lower() in self.on(network.vni) for network in networks):
            raise self._unknown(name, networks)

    def _require_exposed(self, network: Network) -> None:
        if self._exposure.host_endpoints.of(network.vni):
            return
        raise ConflictError(
            f"network {network.name} is not exposed to this host",
            why=self._exposure.refusal_reason(network) or "",
            hint=f"overlayd expose {network.name}"
            if has_sandbox(network)
            else "The segment reaches its containers by their own addresses",
        )

    def _unknown(self, name: str, networks: list[Network]) -> OverlayError:
        """Return the error for a name that no container on these networks has."""
        holders = [
            placed.endpoint.name
            for network in networks
            for placed in self._directory.endpoints(network.vni)
            if name.lower() in (alias.lower() for alias in placed.endpoint.aliases)
        ]
        if holders:
            return ConflictError(
                f"{name} is an alias, and a port maps to one container",
                why=f"containers with this alias: {', '.join(sorted(set(holders)))}",
                hint=f"Use a container's own name, such as {min(holders)}",
            )
        unseen = [
            network.name
            for network in networks
            if not self._directory.follows(self._directory.own, network.vni)
        ]
        where = networks[0].name if len(networks) == 1 else "any network that this host is on"
        return NotFoundError(
            f"no container is called {name} on {where}",
            why=f"names on these networks are not known here: {', '.join(unseen)}"
            if unseen
            else "",
            hint="'overlayd endpoint ls' lists the names",
        )
