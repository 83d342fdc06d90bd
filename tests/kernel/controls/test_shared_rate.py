"""Shared rates on real interfaces: who gets how much of it, and repair."""

from __future__ import annotations

import errno
import re
import socket
from collections import Counter
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.state import (
    TRUSTED,
    MarkRow,
    SandboxState,
    SharedRateRow,
)
from overlay.errors import OverlayError
from overlay.kernel import netns
from overlay.kernel.bpf import syscall
from overlay.kernel.controls.class_tree import BROKEN, LEAVES
from overlay.kernel.controls.shared_rate import require_shared_rates
from overlay.kernel.sandbox.sandbox import Sandbox
from overlay.lab.frames import checksum, packet_frame, udp
from overlay.model import parse_ip
from tests.kernel.controls.segment import FENCE, Segment

if TYPE_CHECKING:
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns
RATE = SharedRateRow("vxlan0", 2_000_000)
PAYLOAD = bytes(1000)
_FORCED_SEND_BUFFER = 32  # SO_SNDBUFFORCE, which Python lacks
COUNTED = 250  # datagrams: a second of the rate, and twice what may wait for one container


@pytest.fixture(params=[False, True], ids=["bridge", "fast path"])
def segment(request: pytest.FixtureRequest, world: World) -> Segment:
    """Return two hosts, with the fast path or without."""
    return Segment(world, fast=request.param)


def shares(segment: Segment, offered: dict[str, int]) -> Counter[str]:
    """Have containers .2 and .4 send faster than the rate; return how much of each arrives at .3.

    `offered`: how many datagrams each sends at a time, by its address.
    """
    places = {"10.32.0.2": segment.first, "10.32.0.4": segment.fourth}
    got: Counter[str] = Counter()
    with ExitStack() as stack:
        senders = {}
        for ip in offered:
            with netns.inside(segment.world.fd(places[ip])):
                senders[ip] = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with netns.inside(segment.world.fd(segment.second)):
            receiver = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        receiver.bind(("10.32.0.3", 7))
        for each in (receiver, *senders.values()):
            each.settimeout(0)
        for each in senders.values():  # else what waits in the queue would hold up its sender
            each.setsockopt(socket.SOL_SOCKET, _FORCED_SEND_BUFFER, 8 * 1024 * 1024)

        def has_seen_enough() -> bool:
            for _ in range(50):
                for ip, count in offered.items():
                    with suppress(BlockingIOError):
                        for _ in range(count):
                            senders[ip].sendto(PAYLOAD, ("10.32.0.3", 7))
                with suppress(BlockingIOError):
                    while True:
                        got[receiver.recvfrom(2000)[1][0]] += 1
            return got.total() >= COUNTED

        segment.world.wait_until(has_seen_enough, "datagrams", limit_s=60)
    return got


@pytest.mark.parametrize(("first", "fourth"), [(5, 0), (0, 1), (6, 7)])
def test_the_higher_priority_gets_the_larger_part(
    segment: Segment, first: int, fourth: int
) -> None:
    """And the lower one is not starved."""
    segment.put(RATE, MarkRow("p0", first), MarkRow("p1", fourth))
    got = shares(segment, {"10.32.0.2": 2, "10.32.0.4": 2})
    low, high = sorted(got.values())
    assert got["10.32.0.2" if first > fourth else "10.32.0.4"] == high, got
    assert high > 2 * low > 0, got


def test_containers_of_equal_priority_have_equal_parts(segment: Segment) -> None:
    """However much more one of them sends."""
    segment.put(RATE, MarkRow("p0", 3), MarkRow("p1", 3))
    sandbox = segment.hosts[0].sandbox
    assert sandbox.shared_rates.dropped(sandbox.socket) == 0
    got = shares(segment, {"10.32.0.2": 1, "10.32.0.4": 10})
    assert (sandbox.shared_rates.dropped(sandbox.socket) or 0) > 0
    assert got["10.32.0.4"] < 3 * got["10.32.0.2"], got


def classes(segment: Segment) -> set[int]:
    """Return the priorities of which something has left the first host since the queue was made."""
    told = segment.world.run(
        segment.hosts[0].sandbox.name, "tc", "-s", "class", "show", "dev", "vxlan0"
    )
    sent = re.findall(r"class htb 6f78:(1[0-9a-f]{2}) .*\n Sent (\d+) bytes", told)
    return {(int(minor, 16) - 0x100) // LEAVES for minor, size in sent if int(size)}


@pytest.mark.parametrize(
    ("kind", "mark", "expected"),
    [
        *((kind, mark, mark) for kind in ("10.32.0.", "fe80::") for mark in (1, 4, 7)),
        ("10.32.0.", TRUSTED, 3),
        ("fe80::", TRUSTED, 3),
        ("not IP", 2, 2),
        ("not IP", 7, 6),  # the buffer's number is that of 6
    ],
)
def test_a_frame_is_in_the_class_of_its_priority(
    segment: Segment, kind: str, mark: int, expected: int
) -> None:
    """Whatever it carries; a trusted container chooses by the packet's own DSCP."""
    segment.put(RATE, MarkRow("p0", mark), MarkRow("p1", 0))
    target, source = segment.macs[3], segment.macs[2]
    if kind == "not IP":
        frame = target + source + FENCE.to_bytes(2, "big") + bytes(64)
    else:
        raw = udp(parse_ip(f"{kind}2"), parse_ip(f"{kind}3"), (5000, 5001), bytes(64))
        if kind == "fe80::":
            raw = (6 << 28 | 3 << 25).to_bytes(4, "big") + raw[4:]
        else:
            head = raw[:1] + bytes([3 << 5]) + raw[2:10] + bytes(2) + raw[12:20]
            raw = head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + raw[20:]
        frame = packet_frame(target, source, raw)
    segment.send(segment.first, frame)
    segment.world.wait_until(lambda: expected in classes(segment), "the frame")
    assert classes(segment) <= {0, expected}


def test_what_stays_on_the_host_does_not_share(segment: Segment) -> None:
    """Only the VXLAN device has a queue; without the rate it has none either."""
    segment.put(RATE)
    sandbox = segment.hosts[0].sandbox.name
    shown = segment.world.run(sandbox, "tc", "qdisc", "show")
    assert [line.split()[4] for line in shown.splitlines() if "htb" in line] == ["vxlan0"]
    segment.put()
    assert "htb" not in segment.world.run(sandbox, "tc", "qdisc", "show")
    assert "fifo" not in segment.world.run(sandbox, "tc", "qdisc", "show")
    host = segment.hosts[0].sandbox
    assert host.shared_rates.dropped(host.socket) is None


@pytest.mark.parametrize("bits", [64_000, 1_234_568, 10**9, 32 * 10**9])
def test_a_written_rate_is_read_and_changes_in_place(world: World, bits: int) -> None:
    """From the lowest to the highest."""
    segment = Segment(world, fast=False)
    segment.put(RATE)
    sandbox = segment.hosts[0].sandbox.name
    before = segment.world.run(sandbox, "tc", "-s", "qdisc", "show", "dev", "vxlan0")
    segment.put(SharedRateRow("vxlan0", bits))
    after = segment.world.run(sandbox, "tc", "-s", "qdisc", "show", "dev", "vxlan0")
    handles = [{line for line in text.splitlines() if "bfifo" in line} for text in (before, after)]
    names = [{line.split(" limit")[0] for line in each} for each in handles]
    assert names[0] == names[1], "the queues are those of before"


@pytest.mark.parametrize(
    "damage",
    [
        "qdisc del dev vxlan0 root",
        "qdisc replace dev vxlan0 root handle 1: tbf rate 5mbit burst 1mb latency 1ms",
        "class change dev vxlan0 classid 6f78:1 htb rate 1gbit",
        "class change dev vxlan0 classid 6f78:123 parent 6f78:12 htb rate 1mbit ceil 2mbit prio 0",
        "class add dev vxlan0 parent 6f78: classid 6f78:999 htb rate 1gbit",
        "qdisc del dev vxlan0 parent 6f78:123",
        "filter del dev vxlan0 parent 6f78:",
    ],
)
def test_an_altered_rate_is_noticed_and_put_again(world: World, damage: str) -> None:
    """By a notification where the rate as a whole is lost, and in any case by reading."""
    segment = Segment(world, fast=False)
    segment.put(RATE)
    sandbox = segment.hosts[0].sandbox
    monitor = sandbox.monitor()
    try:
        segment.world.run(sandbox.name, "tc", *damage.split())
        rates = {row for row in sandbox.read().rows if isinstance(row, SharedRateRow)}
        assert RATE not in rates
        desired = SandboxState(segment.hosts[0].desired().links, frozenset({RATE}))
        told = monitor.contradictions(desired)
    finally:
        monitor.close()
    noticed = "the shared rate of vxlan0 was altered" in told
    assert noticed == (":123" not in damage and ":999" not in damage), told
    segment.put(RATE)


def test_the_rate_of_an_earlier_agent_is_put_again(world: World) -> None:
    """Its program is another; the queue stays."""
    segment = Segment(world, fast=False)
    segment.put(RATE)
    host = segment.hosts[0]
    name = host.sandbox.name
    host.sandbox.close()
    with netns.inside(segment.world.fd(host.name)):
        host.sandbox = Sandbox.open(name, create=False)
    assert SharedRateRow("vxlan0", BROKEN) in host.sandbox.read().rows
    before = set(segment.world.run(name, "tc", "qdisc", "show", "dev", "vxlan0").splitlines())
    segment.put(RATE)
    after = set(segment.world.run(name, "tc", "qdisc", "show", "dev", "vxlan0").splitlines())
    assert {each for each in after if "fifo" in each} == {each for each in before if "fifo" in each}


@pytest.mark.usefixtures("world")
def test_a_kernel_without_it_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """In words, with the modules; this kernel has it."""
    require_shared_rates()

    def refuse(_code: bytes, _name: str) -> int:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(syscall, "load", refuse)
    with pytest.raises(OverlayError) as caught:
        require_shared_rates()
    assert caught.value.what == "this kernel cannot have containers share a rate"
    assert "sch_htb" in caught.value.hint
