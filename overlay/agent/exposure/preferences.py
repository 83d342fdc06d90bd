"""The networks that were exposed or hidden by command, durable; and by what the records declare."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Protocol

from overlay.agent.state import documents
from overlay.agent.state.database import StateDatabase
from overlay.agent.state.documents import ExposurePreference
from overlay.model import Vni


class IngressNetworks(Protocol):
    """The networks of services that are published on every host."""

    def ingress_vnis(self) -> Collection[Vni]:
        """Return the networks that every host must be on to lead its ports there."""


class ExposurePreferences(Mapping[Vni, bool]):
    """True for a network exposed by command or declared so, False for a hidden one, absent where
    neither was said: such a network is exposed automatically while it has a container here.

    What is declared takes precedence."""

    def __init__(
        self,
        state: StateDatabase,
        ingress: IngressNetworks,
        declared: Callable[[], dict[Vni, bool]] = dict,
    ) -> None:
        self._state = state
        self._ingress = ingress
        self._declared = declared
        self._is_leaving = False
        self._exposed = dict(documents.EXPOSURES.load(state))

    def by_command(self) -> dict[Vni, bool]:
        """Return what was said by command."""
        return dict(self._exposed)

    def declared(self) -> dict[Vni, bool]:
        """Return what the cluster's records declare for this host."""
        return {} if self._is_leaving else self._declared()

    def _all(self) -> dict[Vni, bool]:
        return self._exposed | self.declared()

    def __getitem__(self, vni: Vni) -> bool:
        return self._all()[vni]

    def __iter__(self) -> Iterator[Vni]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def ingress_vnis(self) -> Collection[Vni]:
        """Return the networks on which services publish ports of every host."""
        return () if self._is_leaving else self._ingress.ingress_vnis()

    def needs_no_container(self, vni: Vni) -> bool:
        """Return whether a network is exposed on purpose, or for a port of a service."""
        return self._all().get(vni, vni in self.ingress_vnis())

    def without_containers(self) -> list[Vni]:
        """Return the networks that this host is on without a container, in order of VNI."""
        known = self._all().keys() | set(self.ingress_vnis())
        return sorted(filter(self.needs_no_container, known))

    def put(self, vni: Vni, *, exposed: bool) -> None:
        """Store a preference; raises OverlayError if the disk rejects the write."""
        documents.EXPOSURES.put(self._state, ExposurePreference(vni, exposed))
        self._exposed[vni] = exposed

    def drop(self, vni: Vni) -> None:
        """Delete a preference; raises OverlayError if the disk rejects the write."""
        if vni in self._exposed:
            documents.EXPOSURES.drop(self._state, str(vni))
            del self._exposed[vni]

    def disregard(self, vni: Vni) -> None:
        """Ignore a preference from now on, and keep it on disk until the state is wiped."""
        self._exposed.pop(vni, None)

    def disregard_records(self) -> None:
        """Ignore from now on what services publish and records declare: this node is leaving."""
        self._is_leaving = True
