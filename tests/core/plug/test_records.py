"""The records of plugs: what a host declares, and what others read of it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from overlay import limits
from overlay.core.declared.kinds import PLUG_KIND
from overlay.core.declared.objects import PlacedObject
from overlay.core.plug.probe import ETHERTYPE, probe_frame, probe_mac
from overlay.core.plug.records import Machine, MachinesSeen, Plug, PlugRecord, decode, in_buckets
from overlay.core.protocol.records import DeclaredObject
from overlay.model import Ip, Mac, NodeId, Vni, parse_ip

NODE, OTHER = NodeId(b"a" * 16), NodeId(b"b" * 16)
VNI = Vni(9000001)
PLUG = Plug(VNI, "eth2.100", "lab", is_active=True, is_leased=True, is_ready=True, term=3)
MACHINES = (
    Machine(Mac(b"\x52\x54\0\0\0\1"), parse_ip("10.32.0.200")),
    Machine(Mac(b"\x52\x54\0\0\0\1"), parse_ip("fd32::200")),
)


def placed(body: bytes, name: str, origin: NodeId = NODE) -> PlacedObject:
    """Return a declared object in a node's log."""
    return PlacedObject(origin, DeclaredObject(PLUG_KIND, name, 1, body))


@pytest.mark.parametrize("record", [PLUG, MachinesSeen(VNI, 7, MACHINES), MachinesSeen(VNI, 0, ())])
def test_records_come_back_as_they_were(record: PlugRecord) -> None:
    """They fit into a declared object, and nothing is lost."""
    body = record.body()

    assert len(body) <= limits.DECLARED_BODY_SIZE_MAX
    assert decode(placed(body, record.object_name(NODE))) == record


def test_each_wire_of_a_host_has_its_record() -> None:
    """Neither replaces the other's, nor what was seen behind them."""
    names = {replace(PLUG, segment=each).object_name(NODE) for each in ("lab", "hall", "default")}
    names |= {MachinesSeen(VNI, at, ()).object_name(NODE) for at in range(limits.PLUG_BUCKETS)}

    assert len(names) == 3 + limits.PLUG_BUCKETS


def test_nobody_writes_for_another_host() -> None:
    """A record under another host's name counts for nothing."""
    assert decode(placed(PLUG.body(), PLUG.object_name(OTHER))) is None
    assert decode(placed(PLUG.body(), PLUG.object_name(NODE), OTHER)) is None


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [0, "eth2", "default", True, True, True, 1],
        [9, "e" * 16, "default", True, True, True, 1],
        [9, "eth2", "no name!", True, True, True, 1],
        [9, "eth2", "default", 1, True, True, 1],
        [9, "eth2", "default", True, True, True, -1],
        [9, 64, ""],
        [9, 0, "AAAA"],
        [9, 0, "!"],
        [9, 0, "UlQAAAABBAogAMg"],
        [9, 0, "AQAAAAABBAogAMg="],
        "text",
    ],
)
def test_what_no_agent_writes_is_no_record(fields: object) -> None:
    """Such as a multicast MAC, half an address, or a number where a name belongs."""
    assert decode(placed(json.dumps(fields).encode(), "plug-9-x")) is None


def test_many_machines_fill_records_of_a_bounded_size() -> None:
    """A change rewrites one of them; what does not fit is left to flooding."""
    many = [
        Machine(
            Mac(b"\x52\x54\0\0" + number.to_bytes(2, "big")),
            Ip(b"\n\0" + number.to_bytes(2, "big")),
        )
        for number in range(1024)
    ]
    records = in_buckets(VNI, many)
    fewer = in_buckets(VNI, many[1:])

    assert len(records) <= limits.PLUG_BUCKETS
    assert all(len(each.body()) <= limits.DECLARED_BODY_SIZE_MAX for each in records)
    assert sum(len(each.machines) for each in records) == len(many)
    assert len({*records} - {*fewer}) == 1
    assert sum(len(each.machines) for each in in_buckets(VNI, [*many, *ipv6()])) < 3 * len(many)


def ipv6() -> list[Machine]:
    """Return more machines than records can hold."""
    return [
        Machine(Mac(b"\x52\x54\0\1" + number.to_bytes(2, "big")), Ip(number.to_bytes(16, "big")))
        for number in range(2048)
    ]


def test_probes_say_whose_they_are() -> None:
    """Of each host, network and wire another unicast MAC, in a whole Ethernet frame."""
    macs = {
        probe_mac(node, vni, segment)
        for node in (NODE, OTHER)
        for vni in (VNI, Vni(5))
        for segment in ("default", "lab")
    }

    assert len(macs) == 8
    for mac in macs:
        frame = probe_frame(mac)
        assert not mac[0] & 1
        assert frame[6:12] == mac
        assert int.from_bytes(frame[12:14], "big") == ETHERTYPE
        assert len(frame) == 60
