"""The rows of machines outside, from the records of all hosts; and what must not come from there.

Owns: which host's plug leads to a machine. Does not: write records.
"""

from __future__ import annotations

from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.records.directory import Directory
from overlay.agent.records.plug_catalog import PlacedMachine, PlacedPlug, PlugCatalog
from overlay.core.dataplane.gateways import gateway_macs
from overlay.core.dataplane.planning.segments import Segments
from overlay.core.fabric import FabricMac, FabricNeighbor, FabricRows
from overlay.model import Ip, Mac, Network, NodeId, Vni


class OutsideRows:
    """Publishes to the data plane what is behind plugs, whenever that changes."""

    def __init__(self, directory: Directory, catalog: PlugCatalog, reconciler: Reconciler) -> None:
        self._directory = directory
        self._catalog = catalog
        self._reconciler = reconciler

    def publish(self) -> None:
        """Compare with what was published before, and announce the networks that changed."""
        found: dict[Vni, FabricRows] = {}
        for vni in sorted({placed.plug.vni for placed in self._catalog.plugs()}):
            network = self._directory.network_by_vni(vni)
            if network is not None and self._reconciler.is_open(vni):
                rows = self._rows(network)
                if rows:
                    found[vni] = rows
        self._reconciler.fabric.put_plugged(found)

    def _rows(self, network: Network) -> FabricRows:
        active = {each.origin for each in self._in_charge(network.vni)}
        machines: dict[Mac, PlacedMachine] = {}
        neighbors: dict[Ip, Mac] = {}
        seen = self._catalog.machines(network.vni)
        # A machine of a host that is dead may be behind another's plug by now.
        for each in sorted(seen, key=lambda each: not self._catalog.is_live(each.origin)):
            if each.origin in active and is_on_segment(network, each.machine.ip):
                machines.setdefault(each.machine.mac, each)
                neighbors.setdefault(each.machine.ip, each.machine.mac)
        vteps = {origin: self._vtep(network, origin) for origin in active}
        macs = {
            FabricMac(network.vni, mac, vtep)
            for mac, each in machines.items()
            if (vtep := vteps[each.origin]) is not None
        }
        return FabricRows(
            frozenset(macs),
            frozenset(FabricNeighbor(network.vni, ip, mac) for ip, mac in neighbors.items()),
        )

    def _in_charge(self, vni: Vni) -> list[PlacedPlug]:
        """Return of each segment the plug that is active; a live host's, else that of before."""
        found: dict[str, PlacedPlug] = {}
        for each in self._catalog.plugs(vni):
            if each.plug.is_active:
                known = found.setdefault(each.plug.segment, each)
                if self._rank(each) > self._rank(known):
                    found[each.plug.segment] = each
        return list(found.values())

    def _rank(self, placed: PlacedPlug) -> tuple[bool, int]:
        return self._catalog.is_live(placed.origin), placed.plug.term

    def _vtep(self, network: Network, origin: NodeId) -> Ip | None:
        card = self._directory.card(origin)
        return None if card is None else self._reconciler.vtep_of(network, card)


def is_on_segment(network: Network, ip: Ip) -> bool:
    """Return whether an address is one that machines on the first segment can have."""
    return Segments(network).of(ip) == 0


def protected(network: Network, directory: Directory) -> tuple[set[Mac], set[Ip]]:
    """Return the MACs and addresses of gateways and endpoints, which nobody outside may use."""
    macs, ips = set(gateway_macs(network)), {subnet.gateway for subnet in network.subnets}
    for placed in directory.all_endpoints(network.vni):
        macs.add(placed.endpoint.mac)
        ips.update(placed.endpoint.ips)
    return macs, ips
