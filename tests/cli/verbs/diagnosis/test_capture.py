"""`capture`: what it asks, shows, writes and returns; e2e tests capture real packets."""

from __future__ import annotations

import base64
import json
import os
import shlex
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
from overlay import limits
from overlay.core.capture.address_filter import with_addresses
from overlay.core.capture.classic_bpf import ALL, Program
from overlay.core.protocol.capture import CapturedFrame
from overlay.kernel.capture import container_tap
from overlay.kernel.capture.container_tap import TapPlace
from overlay.model import Mac, parse_ip
from tests.pcapng_reader import read

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent, Run

TIME_NS = 1_764_390_000_000_000_000
MACS = bytes.fromhex("020000000002020000000001")
TAP: dict[str, Any] = {
    "name": "web", "node": "vm1", "network": "blue", "vni": 9000001, "vtep": "192.168.56.11",
    "ips": ["10.32.0.2"], "ifname": "eth0", "mac": "02:00:00:00:00:01",
    "namespace": {"path": "/x", "device": 1, "inode": 2}, "matched": ["10.32.128.2"],
}  # fmt: skip
FAR: dict[str, Any] = {
    "name": "db", "node": "vm2", "node_state": "alive", "network": "blue", "vni": 9000001,
    "vtep": "192.168.56.12", "ips": ["10.32.128.2"], "mac": "02:00:00:00:00:02",
}  # fmt: skip
FOUND: dict[str, Any] = {
    "schema": "overlayd.capture/v1", "taps": [TAP], "far": FAR, "way": "fast",
    "peer": {"name": "db", "kind": "container", "node": "vm2", "node_state": "alive",
             "ips": ["10.32.128.2"]},
    "addresses": [
        {"ip": "10.32.0.2", "name": "web", "node": "vm1", "vtep": "192.168.56.11"},
        {"ip": "10.32.128.2", "name": "db", "node": "vm2", "vtep": "192.168.56.12"},
    ],
}  # fmt: skip


def echo(number: int, at_ns: int = 0) -> CapturedFrame:
    """Return an echo request of web, captured at some time."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 84, 1, 0, 64, 1, 0)
    ends = parse_ip("10.32.0.2") + parse_ip("10.32.128.2")
    icmp = struct.pack("!BBHHH", 8, 0, 0, 7, number) + bytes(56)
    data = MACS + b"\x08\x00" + head + ends + icmp
    return CapturedFrame(TIME_NS + at_ns, True, len(data), data)


def line(state: str = "capturing", *frames: CapturedFrame, **changed: Any) -> bytes:
    """Return one line of GET /v1/capture/far."""
    found = {
        "state": state, "ifname": "eth0", "clock_ahead_ns": 2_000_000, "clock_error_ns": 300_000,
        "dropped": 0, "lost": 0,
        "frames": [{"time_ns": each.time_ns, "outgoing": False, "size": each.size,
                    "data": base64.b64encode(each.data).decode()} for each in frames],
    }  # fmt: skip
    return json.dumps({**found, **changed}).encode() + b"\n"


class FakeTap:
    """A tap that has some frames at once, and later none."""

    ifname = "eth0"
    dropped = 0
    received = 0

    def __init__(self, place: TapPlace, program: Program) -> None:
        self.place = place
        self.program = program
        self.waiting: list[CapturedFrame] = []
        self.is_gone = False
        self.when_empty: Callable[[], None] = lambda: None  # told of the first look in vain
        self._ends = socket.socketpair()
        self._ends[1].send(b"x")

    def fileno(self) -> int:
        """Return the descriptor that is waited for."""
        return self._ends[0].fileno()

    def frames(self, _count: int) -> list[CapturedFrame]:
        """Return what is there."""
        found, self.waiting = self.waiting, []
        if not found:
            when_empty, self.when_empty = self.when_empty, lambda: None
            when_empty()
        return found

    def read_counts(self) -> None:
        """Count nothing."""

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        for end in self._ends:
            end.close()


@pytest.fixture
def later() -> list[Callable[[], None]]:
    """Return the list whose first function is called once everything was read."""
    return []


@pytest.fixture
def taps(
    monkeypatch: pytest.MonkeyPatch, agent: FakeAgent, later: list[Callable[[], None]]
) -> list[FakeTap]:
    """Capture without packets, as root; return the taps that were opened."""
    agent.answer("GET /v1/capture", {**FOUND, "far": None})
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    opened: list[FakeTap] = []

    def open_tap(place: TapPlace, program: Program, **_: object) -> FakeTap:
        tap = FakeTap(place, program)
        tap.waiting = [echo(1), echo(2)]
        if later:
            tap.when_empty = later[0]
        opened.append(tap)
        return tap

    monkeypatch.setattr(container_tap, "open_tap", open_tap)
    monkeypatch.setattr(container_tap, "is_gone", lambda _, tap: tap.is_gone)
    return opened


def test_a_line_says_what_passed(overlayd: Run, taps: list[FakeTap]) -> None:
    """With the host, the container and the direction; stderr says how it ended."""
    done = overlayd("capture", "web", "--count", "2")

    assert done.code == 0
    first, second = done.out.splitlines()
    assert first.split()[1:4] == ["vm1", "web", "sends"]
    assert first.endswith("10.32.0.2 > 10.32.128.2 icmp echo request id 7 seq 1 length 64")
    assert "seq 2" in second
    assert "2 packets" in done.err
    assert "2 packets were captured" in done.err
    assert taps[0].place == TapPlace("/x", (1, 2), "eth0", Mac(MACS[6:]))
    assert taps[0].program == with_addresses((parse_ip("10.32.128.2"),), ALL)


def test_json_has_one_object_a_frame(overlayd: Run, taps: list[FakeTap]) -> None:
    """And a summary at the end."""
    done = overlayd("capture", "web", "--count", "1", "--json")

    frame, summary = map(json.loads, done.out.splitlines())
    assert frame["schema"] == "overlayd.capture-frame/v1"
    assert (frame["direction"], frame["vni"], frame["vtep"]) == ("out", 9000001, "192.168.56.11")
    assert (frame["peer_vtep"], frame["protocol"]) == ("192.168.56.12", "icmp")
    assert (frame["source"], frame["size"]) == ("10.32.0.2", 98)
    assert summary["schema"] == "overlayd.capture-summary/v1"
    assert summary["interfaces"][0]["captured"] == 1
    assert len(taps) == 1


def test_both_ends_are_merged_by_time(
    overlayd: Run, agent: FakeAgent, taps: list[FakeTap], tmp_path: Path
) -> None:
    """By corrected times; the file has each host's own, and says how the clocks differ."""
    late, early = echo(3, 2_000_000 + 10), echo(4, 2_000_000 - 10)  # of a clock 2 ms ahead
    agent.answer("GET /v1/capture", FOUND)
    agent.answer("GET /v1/capture/far", line("capturing", late, early))
    path = tmp_path / "o.pcapng"
    done = overlayd("capture", "web", "--peer", "db", "--both-ends", "-w", str(path))

    assert done.code == 0, done.err
    assert "the agent of this host has stopped" in done.err, "the fake one, after its line"
    found = read(path.read_bytes())
    assert [each.name for each in found.interfaces] == ["vm1/web/eth0", "vm2/db/eth0"]
    assert "2.000 ms ahead of that of vm1, give or take 0.300 ms" in found.interfaces[1].comment
    assert "fast path" in found.interfaces[0].comment
    assert [(each.interface, each.data[-58:-56]) for each in found.packets] == [
        (1, b"\0\4"), (0, b"\0\1"), (0, b"\0\2"), (1, b"\0\3"),
    ]  # fmt: skip
    assert [each.comment for each in found.packets[:2]] == [
        "vm2: db receives; VNI 9000001, VTEP 192.168.56.11 to 192.168.56.12",
        "vm1: web sends; VNI 9000001, VTEP 192.168.56.11 to 192.168.56.12",
    ]
    assert [each[:3] for each in found.statistics] == [(0, 2, 0), (1, 2, 0)]
    assert path.stat().st_mode & 0o777 == 0o600
    assert taps[0].program[-1:] == ALL
    asked = next(each for each in agent.asked if each.line == "GET /v1/capture/far")
    assert asked.query["snap"] == [str(limits.CAPTURE_PEER_SNAP_MAX)]


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ("forbidden", "capture_from_peers = true"),
        ("silent", "does not answer"),
        ("no-packet-sockets", "CAP_NET_RAW"),
        ("unknown-ends", "overlayd trace web db"),
    ],
)
def test_a_far_end_that_fails_leaves_this_one(
    overlayd: Run, agent: FakeAgent, taps: list[FakeTap], state: str, text: str
) -> None:
    """With a warning, and exit code 4."""
    agent.answer("GET /v1/capture", FOUND)
    agent.answer("GET /v1/capture/far", line(state))
    done = overlayd("capture", "web", "--peer", "db", "--both-ends", "--count", "2")

    assert done.code == 4
    assert text in done.err
    assert len(done.out.splitlines()) == 2
    assert len(taps) == 1


def test_a_capture_ends_with_its_container(
    overlayd: Run, taps: list[FakeTap], later: list[Callable[[], None]]
) -> None:
    """It says so."""
    later.append(lambda: setattr(taps[0], "is_gone", True))
    done = overlayd("capture", "web")
    assert done.code == 0
    assert "web has ended" in done.err


def test_a_capture_ends_with_its_time(overlayd: Run, taps: list[FakeTap]) -> None:
    """Also if nothing comes."""
    done = overlayd("capture", "web", "--seconds", "0.2")
    assert (done.code, len(taps)) == (0, 1)
    assert done.err.rstrip().endswith("; 0.2 s are over")


def test_ctrl_c_ends_it_cleanly(
    overlayd: Run, taps: list[FakeTap], later: list[Callable[[], None]], tmp_path: Path
) -> None:
    """The file is complete."""
    path = tmp_path / "o.pcapng"
    later.append(lambda: os.kill(os.getpid(), signal.SIGINT))
    done = overlayd("capture", "web", "-w", str(path))

    assert done.code == 0
    assert "interrupted" in done.err
    found = read(path.read_bytes())
    assert len(found.packets) == 2
    assert found.statistics
    assert len(taps) == 1


def test_a_file_does_not_grow_beyond_its_bound(
    overlayd: Run, taps: list[FakeTap], tmp_path: Path
) -> None:
    """By more than a packet."""
    path = tmp_path / "o.pcapng"
    done = overlayd("capture", "web", "-w", str(path), "--max-size", "500")
    assert "the file has 500 bytes" in done.err
    assert len(read(path.read_bytes()).packets) == 1
    assert len(taps) == 1


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("web --both-ends", "--both-ends needs --peer"),
        ("web --filter 'tcp prot 80'", "invalid filter"),
        ("web --seconds 0", "invalid number of seconds"),
        ("web --seconds nan", "invalid number of seconds"),
        ("web --count 0", "invalid count"),
        ("web --max-size 5X", "invalid size"),
        ("web --max-size ''", "invalid size"),
        ("web --snap 0", "invalid size"),
        ("web -w - --json", "both write to stdout"),
        ("", "missing: ENDPOINT"),
    ],
)
def test_wrong_input_is_refused(overlayd: Run, taps: list[FakeTap], words: str, text: str) -> None:
    """Before anything is opened."""
    done = overlayd("capture", *shlex.split(words))
    assert done.code == 2, done.err
    assert text in done.err
    assert not taps


def test_a_file_that_cannot_be_written_is_an_error(overlayd: Run, taps: list[FakeTap]) -> None:
    """With the reason."""
    done = overlayd("capture", "web", "-w", "/nowhere/o.pcapng")
    assert (done.code, "No such file" in done.err) == (1, True)
    assert len(taps) == 1


def test_others_than_root_may_not(
    overlayd: Run, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is asked."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = overlayd("capture", "web")
    assert (done.code, "only root may capture" in done.err) == (1, True)
    assert agent.asked == []
