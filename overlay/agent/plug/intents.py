"""The interfaces of this host that are plugged into networks, durable.

Owns: the documents on disk; the data plane is told of each. Does not: touch the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from overlay.agent.dataplane.fabric_table import FabricTable
from overlay.agent.state import documents
from overlay.agent.state.database import StateDatabase
from overlay.agent.state.documents import PluggedInterface
from overlay.model import Vni


class PluggedInterfaces(Mapping[Vni, PluggedInterface]):
    """This host's plugs by network; each needs the network's sandbox, also without containers."""

    def __init__(self, state: StateDatabase, fabric: FabricTable) -> None:
        self._state = state
        self._fabric = fabric
        self._by_vni = {plug.vni: plug for plug in documents.PLUGS.load(state)}
        for vni, plug in self._by_vni.items():
            fabric.put_interface(vni, plug.interface)

    def __getitem__(self, vni: Vni) -> PluggedInterface:
        return self._by_vni[vni]

    def __iter__(self) -> Iterator[Vni]:
        return iter(sorted(self._by_vni))

    def __len__(self) -> int:
        return len(self._by_vni)

    def needs_no_container(self, vni: Vni) -> bool:
        """Return whether an interface is plugged into a network."""
        return vni in self._by_vni

    def without_containers(self) -> list[Vni]:
        """Return these networks, in order of VNI."""
        return sorted(self._by_vni)

    def put(self, plug: PluggedInterface) -> None:
        """Store a plug; raises OverlayError if the disk rejects the write."""
        documents.PLUGS.put(self._state, plug)
        self._by_vni[plug.vni] = plug
        self._fabric.put_interface(plug.vni, plug.interface)

    def drop(self, vni: Vni) -> None:
        """Delete a plug; raises OverlayError if the disk rejects the write."""
        documents.PLUGS.drop(self._state, str(vni))
        self._by_vni.pop(vni, None)
        self._fabric.put_interface(vni, "")
