"""Rows as the kernel dumps them, by layout and one by one, few and very many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.operations import PutRow
from overlay.core.dataplane.state import (
    BridgeFdbRow,
    FdbRow,
    NeighborRow,
    Row,
    SandboxState,
)
from overlay.kernel.netlink import codec, neighbor_dumps, neighbor_rows
from overlay.kernel.sandbox import row_applier
from overlay.model import Ip, Mac, mac_for, parse_ip

if TYPE_CHECKING:
    from tests.kernel.conftest import Host, World


def fill(host: Host, count: int, base: str, vtep: str) -> set[Row]:
    """Return three rows for each of `count` remote endpoints."""
    first = int.from_bytes(parse_ip(base), "big")
    found: set[Row] = set()
    for number in range(count):
        ip = Ip((first + number).to_bytes(len(parse_ip(base)), "big"))
        mac = mac_for(host.vni, ip)
        found |= {
            FdbRow("vxlan0", mac, parse_ip(vtep)),
            BridgeFdbRow("vxlan0", mac),
            NeighborRow("br0", ip, mac),
        }
    return found


@pytest.mark.netns
@pytest.mark.parametrize(
    ("underlay", "gateway", "length", "base", "vtep"),
    [
        ("192.168.56.11", "10.32.0.1", 16, "10.32.0.2", "192.168.56.12"),
        ("fd56::11", "fd10:32::1", 64, "fd10:32::2", "fd56::12"),
    ],
    ids=["IPv4", "IPv6"],
)
def test_fast_and_general_decoders_agree(
    world: World, underlay: str, gateway: str, length: int, base: str, vtep: str
) -> None:
    """A dump decoded by layout gives the same rows as the general decoder."""
    host = world.host(underlay, gateway, length)
    host.floods.append(parse_ip(vtep))
    assert host.converge() == []
    wanted = fill(host, 50, base, vtep)
    state = SandboxState(host.desired().links, host.desired().rows | wanted)
    assert host.sandbox.apply(diff(state, host.sandbox.read(), prune=True)) == []

    index = host.sandbox.link_index("vxlan0")
    names = {index: "vxlan0", host.sandbox.link_index("br0"): "br0"}
    for request in (neighbor_rows.fdb_dump(index), neighbor_rows.NEIGHBOR_DUMP):
        messages = host.sandbox.socket.dump(codec.RTM_GETNEIGH, request)
        buffers = host.sandbox.socket.dump_buffers(codec.RTM_GETNEIGH, request)
        one_by_one = {neighbor_rows.decode_neighbor(message, names, {}) for message in messages}
        own = {row for row in one_by_one if row is not None}
        assert set(neighbor_dumps.decode_neighbors(buffers, names, {})) == own
        assert own & wanted
    assert host.sandbox.read() == state


@pytest.mark.netns
def test_tens_of_thousands_of_rows(world: World) -> None:
    """30,000 rows are programmed at once, and are read back as planned."""
    host = world.host()
    assert host.converge() == []
    wanted = fill(host, 10_000, "10.32.0.2", "192.168.56.12")
    state = SandboxState(host.desired().links, host.desired().rows | wanted)

    assert host.sandbox.apply(diff(state, host.sandbox.read(), prune=True)) == []
    assert diff(state, host.sandbox.read(), prune=True) == []


@pytest.mark.netns
def test_very_many_rows_are_applied_in_parts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them are there, and the one that fails in a later part is the one that is named."""
    monkeypatch.setattr(row_applier, "_ENCODED_TOGETHER_MAX", 7)
    host = world.host()
    host.floods.append(parse_ip("192.168.56.12"))
    assert host.converge() == []
    state = host.desired()
    wanted = fill(host, 20, "10.32.0.2", "192.168.56.12")
    nowhere = NeighborRow("br7", parse_ip("10.32.0.99"), Mac(b"\2" * 6))
    failures = host.sandbox.apply([*map(PutRow, sorted(wanted, key=repr)), PutRow(nowhere)])

    assert [each.operation for each in failures] == [PutRow(nowhere)]
    assert host.sandbox.read().rows == state.rows | wanted
