from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.operations import PutRow
from overlay.core.dataplane.state import (
    AddressRow,
    BridgeFdbRow,
    FdbRow,
    FloodRow,
    GroupRow,
    NeighborRow,
    Row,
    SandboxState,
)
from overlay.kernel.netlink import codec, neighbor_rows
from overlay.kernel.sandbox import row_applier
from overlay.model import Ip, Mac, mac_for, parse_ip

if TYPE_CHECKING:
    from tests.kernel.conftest import Host, World


MAC = Mac(b"\2\0\0\0\0\x05")
INDEX = 7
V6 = " fd560000000000000000000000000012"


@pytest.mark.parametrize(
    ("row", "put", "delete", "body"),
    [
        (
            FdbRow("vxlan0", MAC, parse_ip("192.168.56.12")),
            (codec.RTM_NEWNEIGH, codec.NLM_F_CREATE | codec.NLM_F_REPLACE),
            codec.RTM_DELNEIGH,
            "07000000 07000000 8000 02 00  0a000200 020000000005 0000  08000100 c0a8380c",
        ),
        (
            FloodRow("vxlan0", parse_ip("fd56::12")),
            (codec.RTM_NEWNEIGH, codec.NLM_F_CREATE | codec.NLM_F_APPEND),
            codec.RTM_DELNEIGH,
            "07000000 07000000 8000 02 00  0a000200 000000000000 0000  14000100" + V6,
        ),
        (
            GroupRow(Mac(bytes.fromhex("01005e010203")), "vxlan0", parse_ip("192.168.56.12")),
            (codec.RTM_NEWNEIGH, codec.NLM_F_CREATE | codec.NLM_F_APPEND),
            codec.RTM_DELNEIGH,
            "07000000 07000000 8000 02 00  0a000200 01005e010203 0000  08000100 c0a8380c",
        ),
        (
            BridgeFdbRow("vxlan0", MAC),
            (codec.RTM_NEWNEIGH, codec.NLM_F_CREATE | codec.NLM_F_REPLACE),
            codec.RTM_DELNEIGH,
            "07000000 07000000 0200 14 00  0a000200 020000000005 0000",
        ),
        (
            NeighborRow("br0", parse_ip("10.32.0.3"), MAC),
            (codec.RTM_NEWNEIGH, codec.NLM_F_CREATE | codec.NLM_F_REPLACE),
            codec.RTM_DELNEIGH,
            "02000000 07000000 8000 00 00  08000100 0a200003  0a000200 020000000005 0000",
        ),
        (
            AddressRow("br0", parse_ip("10.32.0.1"), 16),
            (codec.RTM_NEWADDR, codec.NLM_F_CREATE | codec.NLM_F_REPLACE),
            codec.RTM_DELADDR,
            "02100000 07000000  08000200 0a200001  08000100 0a200001",
        ),
    ],
)
def test_bytes(row: Row, put: tuple[int, int], delete: int, body: str) -> None:
    """Each row's request has the bytes that the kernel's headers define."""
    assert neighbor_rows.put(row, INDEX) == (*put, bytes.fromhex(body))
    assert neighbor_rows.delete(row, INDEX) == (delete, 0, bytes.fromhex(body))


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
        assert set(neighbor_rows.decode_neighbors(buffers, names, {})) == own
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
