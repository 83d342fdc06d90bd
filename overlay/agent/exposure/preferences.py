"""The networks that were exposed or hidden by command, durable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from overlay.agent.state import documents
from overlay.agent.state.database import StateDatabase
from overlay.agent.state.documents import ExposurePreference
from overlay.model import Vni


class ExposurePreferences(Mapping[Vni, bool]):
    """True for a network exposed by command, False for a hidden one, absent where no command was
    given: such a network is exposed automatically while it has a container here."""

    def __init__(self, state: StateDatabase) -> None:
        self._state = state
        self._exposed = dict(documents.EXPOSURES.load(state))

    def __getitem__(self, vni: Vni) -> bool:
        return self._exposed[vni]

    def __iter__(self) -> Iterator[Vni]:
        return iter(self._exposed)

    def __len__(self) -> int:
        return len(self._exposed)

    def is_exposed_by_hand(self, vni: Vni) -> bool:
        """Return whether a network was exposed by command: its sandbox needs no container."""
        return self._exposed.get(vni) is True

    def exposed_by_hand(self) -> list[Vni]:
        """Return the networks that were exposed by command, in order of VNI."""
        return sorted(vni for vni, exposed in self._exposed.items() if exposed)

    def put(self, vni: Vni, *, exposed: bool) -> None:
        """Store a preference; raises OverlayError if the disk rejects the write."""
        documents.EXPOSURES.put(self._state, ExposurePreference(vni, exposed))
        self._exposed[vni] = exposed

    def drop(self, vni: Vni) -> None:
        """Delete a preference; raises OverlayError if the disk rejects the write."""
        documents.EXPOSURES.drop(self._state, str(vni))
        del self._exposed[vni]

    def disregard(self, vni: Vni) -> None:
        """Ignore a preference from now on, and keep it on disk until the state is wiped."""
        self._exposed.pop(vni, None)
