"""The file is valid pcapng: tests/pcapng_reader.py, another program, reads it back."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from overlay.core.capture import pcapng
from overlay.core.protocol.capture import CapturedFrame
from overlay.model import Mac
from tests.pcapng_reader import read

MAC = Mac(bytes.fromhex("020000000001"))
TIME_NS = 1_764_390_000_123_456_789
FRAME = bytes.fromhex("0200000000020200000000010800") + bytes.fromhex(
    "4500001c00010000400166bb0a2000020a2000030800f7fd00010001"
)


def capture() -> bytes:
    """Return a file with a frame on each of two interfaces, the second one cut."""
    return b"".join(
        (
            pcapng.section("a capture, ü", "overlayd 1", "Linux 6"),
            pcapng.interface("vm1/web/eth0", "web on vm1", MAC, 65_535, "icmp", "fast"),
            pcapng.interface("vm2/db/eth0", "db on vm2", MAC, 65_535, "", ""),
            pcapng.packet(0, CapturedFrame(TIME_NS, True, len(FRAME), FRAME), "vm1: web sends"),
            pcapng.packet(1, CapturedFrame(TIME_NS + 5, False, 1500, FRAME[:41]), "vm2"),
            pcapng.statistics(1, TIME_NS + 9, 12, 11, "lost"),
        )
    )


def test_a_file_reads_back() -> None:
    """Names, comments, times to the nanosecond, directions, sizes, counts."""
    found = read(capture())

    assert (found.comment, found.application, found.system) == (
        "a capture, ü",
        "overlayd 1",
        "Linux 6",
    )
    first, second = found.interfaces
    assert (first.name, first.description, first.comment) == ("vm1/web/eth0", "web on vm1", "fast")
    assert (first.mac, first.resolution, first.expression) == (bytes(MAC), 9, "icmp")
    assert (second.name, second.comment, second.expression) == ("vm2/db/eth0", "", "")
    sent, received = found.packets
    assert (sent.interface, sent.time_ns, sent.data) == (0, TIME_NS, FRAME)
    assert (sent.comment, sent.direction) == ("vm1: web sends", "out")
    assert (received.interface, received.time_ns, received.data) == (1, TIME_NS + 5, FRAME[:41])
    assert (received.size, received.direction) == (1500, "in")
    assert found.statistics == [(1, 12, 11, "lost")]


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="scripts/setup installs tcpdump")
def test_tcpdump_reads_it(tmp_path: Path) -> None:
    """Debian's, with libpcap."""
    path = tmp_path / "one.pcapng"
    path.write_bytes(capture())
    done = subprocess.run(
        ["tcpdump", "-n", "-r", path], capture_output=True, text=True, check=True, timeout=60
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert "10.32.0.2 > 10.32.0.3: ICMP echo request, id 1, seq 1" in lines[0]
    assert "10.32.0.2 > 10.32.0.3" in lines[1]  # cut off


def test_a_long_text_is_cut() -> None:
    """An option's length has 16 bits."""
    assert len(read(pcapng.section("x" * 70_000, "a", "b")).comment) == 65_535
