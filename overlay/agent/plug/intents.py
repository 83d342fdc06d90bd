"""The interfaces of this host that are plugged into networks, durable.

Owns: the documents on disk; the data plane is told of each. Does not: touch the kernel.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from overlay.agent.dataplane.fabric_table import FabricTable
from overlay.agent.state import documents
from overlay.agent.state.database import StateDatabase
from overlay.agent.state.documents import PluggedInterface
from overlay.core.dataplane.planning.inputs import LocalPlug
from overlay.core.dataplane.planning.segments import plug_name
from overlay.model import Vni


class PluggedInterfaces(Collection[PluggedInterface]):
    """This host's plugs; each needs the network's sandbox, also without containers."""

    def __init__(self, state: StateDatabase, fabric: FabricTable) -> None:
        self._state = state
        self._fabric = fabric
        self._plugs = {(plug.vni, plug.number): plug for plug in documents.PLUGS.load(state)}
        for vni in self.without_containers():
            self._tell(vni)

    def __contains__(self, plug: object) -> bool:
        return plug in self._plugs.values()

    def __iter__(self) -> Iterator[PluggedInterface]:
        return iter([plug for _, plug in sorted(self._plugs.items())])

    def __len__(self) -> int:
        return len(self._plugs)

    def of(self, vni: Vni) -> list[PluggedInterface]:
        """Return the plugs of a network, in the order of their numbers."""
        return [plug for plug in self if plug.vni == vni]

    def find(self, vni: Vni, interface: str) -> PluggedInterface | None:
        """Return the plug of an interface in a network, or None."""
        return next((plug for plug in self.of(vni) if plug.interface == interface), None)

    def free_number(self, vni: Vni) -> int:
        """Return the lowest number that no plug of a network has."""
        used = {plug.number for plug in self.of(vni)}
        return next(number for number in range(len(used) + 1) if number not in used)

    def needs_no_container(self, vni: Vni) -> bool:
        """Return whether an interface is plugged into a network."""
        return bool(self.of(vni))

    def without_containers(self) -> list[Vni]:
        """Return these networks, in order of VNI."""
        return sorted({plug.vni for plug in self})

    def put(self, plug: PluggedInterface) -> None:
        """Store a plug; raises OverlayError if the disk rejects the write."""
        documents.PLUGS.put(self._state, plug)
        self._plugs[plug.vni, plug.number] = plug
        self._tell(plug.vni)

    def drop(self, plug: PluggedInterface) -> None:
        """Delete a plug; raises OverlayError if the disk rejects the write."""
        documents.PLUGS.drop(self._state, documents.PLUGS.key(plug))
        self._plugs.pop((plug.vni, plug.number), None)
        self._tell(plug.vni)

    def _tell(self, vni: Vni) -> None:
        ports = (LocalPlug(plug_name(plug.number), plug.interface) for plug in self.of(vni))
        self._fabric.put_interfaces(vni, tuple(ports))
