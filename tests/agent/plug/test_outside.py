"""Which host's plug leads to a machine outside."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay.agent.plug.outside import OutsideRows, is_on_segment
from overlay.agent.records.plug_catalog import PlacedMachine, PlacedPlug
from overlay.core.fabric import FabricMac, FabricRows
from overlay.core.plug.records import Machine, Plug
from overlay.model import Ip, Mac, Network, NodeId, Subnet, Vni, parse_ip

BLUE = Network(
    Vni(7),
    "blue",
    (
        Subnet(parse_ip("10.7.0.0"), 24, parse_ip("10.7.0.1")),
        Subnet(parse_ip("10.8.0.0"), 24, parse_ip("10.8.0.1")),
        Subnet(parse_ip("fd07::"), 64, parse_ip("fd07::1")),
    ),
    NodeId(bytes(16)),
)
VM1, VM2 = NodeId(b"1" * 16), NodeId(b"2" * 16)
VTEPS = {VM1: parse_ip("192.0.2.1"), VM2: parse_ip("192.0.2.2")}
MACHINE = Machine(Mac(b"\x52\x54\0\0\0\1"), parse_ip("10.7.0.200"))
ACTIVE = Plug(BLUE.vni, "eth2", is_active=True, is_ready=True, term=1)


class Bench:
    """The machines that hosts have published, and the rows that follow."""

    def __init__(self) -> None:
        self.placed: list[PlacedPlug] = []
        self.seen: list[PlacedMachine] = []
        self.dead: set[NodeId] = set()
        self.published: dict[Vni, FabricRows] = {}
        directory = SimpleNamespace(
            network_by_vni=lambda _vni: BLUE, card=lambda origin: SimpleNamespace(origin=origin)
        )
        reconciler = SimpleNamespace(
            is_open=lambda _vni: True,
            vtep_of=lambda _network, card: VTEPS[card.origin],
            fabric=SimpleNamespace(put_plugged=self._publish),
        )
        self.rows = OutsideRows(cast("Any", directory), cast("Any", self), cast("Any", reconciler))

    def plugs(self, _vni: Vni | None = None) -> list[PlacedPlug]:
        """Return all plugs."""
        return self.placed

    def machines(self, _vni: Vni) -> list[PlacedMachine]:
        """Return all machines."""
        return self.seen

    def is_live(self, origin: NodeId) -> bool:
        """Return whether an agent runs."""
        return origin not in self.dead

    def vteps(self) -> list[Ip]:
        """Return the VTEPs that lead to a machine."""
        self.rows.publish()
        rows = self.published.get(BLUE.vni, FabricRows())
        return [row.vtep for row in rows.macs if row.mac == MACHINE.mac]

    def _publish(self, published: dict[Vni, FabricRows]) -> None:
        self.published = published


def test_a_machine_is_behind_the_active_plug() -> None:
    """Not where it was seen before that one opened."""
    bench = Bench()
    bench.placed = [PlacedPlug(VM1, replace(ACTIVE, is_active=False)), PlacedPlug(VM2, ACTIVE)]
    bench.seen = [PlacedMachine(VM1, MACHINE), PlacedMachine(VM2, MACHINE)]

    assert bench.vteps() == [VTEPS[VM2]]


def test_a_dead_host_is_in_charge_until_another_opens() -> None:
    """Its kernel forwards on for its lease; then the later activation counts."""
    bench = Bench()
    bench.placed = [PlacedPlug(VM1, ACTIVE)]
    bench.seen = [PlacedMachine(VM1, MACHINE)]
    bench.dead = {VM1}
    assert bench.vteps() == [VTEPS[VM1]]

    bench.placed += [PlacedPlug(VM2, replace(ACTIVE, term=2))]
    bench.seen += [PlacedMachine(VM2, MACHINE)]
    assert bench.vteps() == [VTEPS[VM2]]


def test_a_dead_hosts_other_wire_does_not_hold_its_machines() -> None:
    """It is still in charge of that wire, and what it saw does not say on which it was."""
    bench = Bench()
    bench.placed = [
        PlacedPlug(VM1, ACTIVE),
        PlacedPlug(VM1, replace(ACTIVE, segment="hall")),
        PlacedPlug(VM2, replace(ACTIVE, term=2)),
    ]
    bench.seen = [PlacedMachine(VM1, MACHINE), PlacedMachine(VM2, MACHINE)]
    bench.dead = {VM1}

    assert bench.vteps() == [VTEPS[VM2]]


def test_machines_on_several_wires_have_rows_at_once() -> None:
    """Of each wire one host is in charge."""
    bench = Bench()
    other = Machine(Mac(b"\x52\x54\0\0\0\2"), parse_ip("fd07::200"))
    bench.placed = [
        PlacedPlug(VM1, ACTIVE),
        PlacedPlug(VM2, replace(ACTIVE, segment="hall")),
    ]
    bench.seen = [PlacedMachine(VM1, MACHINE), PlacedMachine(VM2, other)]
    bench.rows.publish()

    assert bench.published[BLUE.vni].macs == {
        FabricMac(BLUE.vni, MACHINE.mac, VTEPS[VM1]),
        FabricMac(BLUE.vni, other.mac, VTEPS[VM2]),
    }


@pytest.mark.parametrize(
    ("ip", "is_on"),
    [
        ("10.7.0.200", True),
        ("fd07::200", True),
        ("10.7.0.1", False),
        ("10.8.0.200", False),
        ("192.0.2.7", False),
    ],
    ids=["IPv4", "IPv6", "gateway", "second segment", "elsewhere"],
)
def test_only_addresses_of_the_first_segment_count(ip: str, is_on: bool) -> None:
    """A router outside sends from every address there is."""
    assert is_on_segment(BLUE, parse_ip(ip)) is is_on
