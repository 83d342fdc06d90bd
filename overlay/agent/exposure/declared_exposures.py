"""The exposures that the cluster's records declare for this host."""

from __future__ import annotations

from overlay.agent.records.directory import Directory
from overlay.core.declared.host_objects import DeclaredExposure, existing
from overlay.model import Vni


class DeclaredExposures:
    """Looks them up in the records, by network; called, it returns whether each is exposed."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def __call__(self) -> dict[Vni, bool]:
        """Return the declared exposures of this host."""
        objects, own = self._directory.declared, self._directory.node_name(self._directory.own)
        if objects is None:
            return {}
        return {
            network.vni: each.exposed
            for each in existing(objects, DeclaredExposure)
            if each.host == own
            and (network := self._directory.find_network(each.network)) is not None
        }
