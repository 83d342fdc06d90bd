"""The shadow in a real kernel; iproute2 writes the rows that FRR would."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from overlay.core.evpn.announcement import OwnMac, OwnNeighbor, OwnRow
from overlay.core.fabric import FabricFlood, FabricMac, FabricNeighbor, FabricRows
from overlay.errors import NotFoundError
from overlay.kernel import netns, reset
from overlay.kernel.evpn.shadow import Shadow, shadow_name
from overlay.model import Mac, Vni, parse_ip

if TYPE_CHECKING:
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns

VNI, NEXT = Vni(4100), Vni(4101)
LOCAL, LEAF, MOVED = (parse_ip(f"10.9.0.{host}") for host in (3, 2, 7))
MAC, FOREIGN = Mac(bytes.fromhex("020000000303")), Mac(bytes.fromhex("020000000202"))
IP, IP6, FOREIGN_IP = parse_ip("10.32.0.3"), parse_ip("fd00::3"), parse_ip("10.32.0.2")
OWN: frozenset[OwnRow] = frozenset(
    {OwnMac(VNI, MAC), OwnNeighbor(VNI, IP, MAC), OwnNeighbor(VNI, IP6, MAC)}
)
AT_LEAF = FabricRows(
    frozenset({FabricMac(VNI, FOREIGN, LEAF)}),
    frozenset({FabricNeighbor(VNI, FOREIGN_IP, FOREIGN)}),
    frozenset({FabricFlood(VNI, LEAF)}),
)


@pytest.fixture
def shadow(world: World) -> Iterator[Shadow]:
    """Return a shadow with one segment."""
    made = Shadow.open(world.claim("shadow"), create=True)
    made.prepare(LOCAL)
    made.use_segments(frozenset({VNI}), LOCAL, 4789)
    yield made
    made.close()


def learn(world: World, shadow: Shadow, rows: FabricRows, *, away: bool = False) -> None:
    """Write rows as zebra does, or delete them."""
    verb = "del" if away else "replace"
    for vni, mac, vtep in rows.macs:
        place = (mac.hex(":"), "dev", f"vx{vni}")
        to = ("dst", ".".join(map(str, vtep)))
        marks = () if away else ("extern_learn",)
        world.run(shadow.name, "bridge", "fdb", verb, *place, *to, "self", *marks)
        world.run(shadow.name, "bridge", "fdb", verb, *place, "master", *marks)
    for vni, ip, mac in rows.neighbors:
        text = ".".join(map(str, ip))
        known = ("lladdr", mac.hex(":"), "nud", "noarp", "extern_learn")
        words = ("ip", "neigh", verb, text, "dev", f"br{vni}", *(() if away else known))
        world.run(shadow.name, *words)
    for vni, vtep in rows.floods:
        flood = ("00:00:00:00:00:00", "dev", f"vx{vni}", "dst", ".".join(map(str, vtep)))
        world.run(shadow.name, "bridge", "fdb", "del" if away else "append", *flood, "self")


def test_a_new_shadow_announces_nothing(shadow: Shadow) -> None:
    """Neither its devices' own MACs nor the kernel's own rows count."""
    table = shadow.read()

    assert (table.own(), table.fabric()) == (frozenset(), FabricRows())


def test_what_is_written_reads_back(shadow: Shadow) -> None:
    """Both families, by notifications and by a dump alike; and after deletion."""
    shadow.put(OWN)
    assert shadow.read().own() == OWN
    shadow.mark_stale()
    assert shadow.read().own() == OWN

    shadow.delete(OWN)
    shadow.delete(OWN)  # gone already: no error

    assert shadow.read().own() == frozenset()


def test_rows_of_others_are_followed(world: World, shadow: Shadow) -> None:
    """As they come and go, without reading everything again."""
    shadow.read()

    learn(world, shadow, AT_LEAF)
    assert shadow.read().fabric() == AT_LEAF
    shadow.mark_stale()
    assert shadow.read().fabric() == AT_LEAF
    learn(world, shadow, AT_LEAF, away=True)

    assert shadow.read().fabric() == FabricRows()


def test_a_mac_that_moves_has_one_place(world: World, shadow: Shadow) -> None:
    """From here to the fabric, as FRR rewrites the row, and back with a row that stays behind."""
    shadow.put(OWN)
    shadow.read()
    there = FabricRows(frozenset({FabricMac(VNI, MAC, LEAF)}))

    learn(world, shadow, there)
    table = shadow.read()
    assert OwnMac(VNI, MAC) not in table.own()
    assert table.fabric().macs == there.macs
    shadow.put([OwnMac(VNI, MAC)])
    table = shadow.read()
    assert OwnMac(VNI, MAC) in table.own()
    assert table.fabric().macs == frozenset()
    shadow.mark_stale()

    assert shadow.read().fabric().macs == frozenset()


def test_another_agent_finds_the_shadow(world: World, shadow: Shadow) -> None:
    """Rows stay, and the devices are those of before."""
    shadow.put(OWN)
    learn(world, shadow, AT_LEAF)
    before = world.run(shadow.name, "ip", "-o", "link")

    again = Shadow.open(shadow.name, create=False)
    again.prepare(LOCAL)
    again.use_segments(frozenset({VNI}), LOCAL, 4789)
    table = again.read()
    again.close()

    assert (table.own(), table.fabric()) == (OWN, AT_LEAF)
    assert world.run(shadow.name, "ip", "-o", "link") == before


def test_segments_come_and_go(world: World, shadow: Shadow) -> None:
    """With their rows; and all are made again for another VTEP address."""
    shadow.put(OWN)
    shadow.use_segments(frozenset({VNI, NEXT}), LOCAL, 4789)
    assert shadow.read().own() == OWN

    shadow.use_segments(frozenset({NEXT}), LOCAL, 4789)
    assert shadow.read().own() == frozenset()
    shadow.prepare(MOVED)
    shadow.use_segments(frozenset({NEXT}), MOVED, 4789)

    assert "local 10.9.0.7" in world.run(shadow.name, "ip", "-d", "link", "show", "vx4101")
    addresses = world.run(shadow.name, "ip", "-o", "-4", "address", "show", "dev", "lo")
    assert "10.9.0.7/32" in addresses
    assert "10.9.0.3/32" not in addresses


def test_next_hops_resolve_without_a_default_route(world: World, shadow: Shadow) -> None:
    """FRR resolves no next hop by a default route."""
    routes = world.run(shadow.name, "ip", "route")

    assert "0.0.0.0/1 dev nh0" in routes
    assert "128.0.0.0/1 dev nh0" in routes
    assert "default" not in routes


def test_a_shadow_is_removed(shadow: Shadow) -> None:
    """By the agent; opening it again finds nothing."""
    name = shadow.name

    shadow.destroy()

    assert not netns.exists(name)
    with pytest.raises(NotFoundError):
        Shadow.open(name, create=False)


def test_a_reset_removes_it(shadow: Shadow) -> None:
    """Without an agent, by its mark."""
    reset.remove_everything(among=lambda name: name == shadow.name)

    assert not netns.exists(shadow.name)


def test_its_name_is_no_containers() -> None:
    """Commands that take a container never offer it."""
    from overlay.kernel.sandbox.container_namespace import (  # noqa: PLC0415
        NETWORK_SANDBOX_NAME,
        SANDBOX_NAME,
    )

    assert SANDBOX_NAME.fullmatch(shadow_name("3f9c21"))
    assert not NETWORK_SANDBOX_NAME.fullmatch(shadow_name("3f9c21"))
    assert SANDBOX_NAME.fullmatch("ov-00002a-3f9c21")
