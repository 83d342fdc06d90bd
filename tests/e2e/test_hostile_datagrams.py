"""Forged datagrams from the underlay, sent to real agents: they change nothing."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from overlay import limits
from overlay.lab import host_process, lab
from overlay.lab.driver import AgentDriver, connect, end_all, endpoints, join_all, wait_until
from overlay.lab.fixtures import LabCluster, attach
from overlay.lab.forged_frames import socket_in
from overlay.lab.frames import udp
from overlay.model import Ip, parse_ip
from overlay.wire.codec import datagram
from overlay.wire.codec.datagram import COOKIE, DATA, HELLO, JOIN, JOIN_HELLO, RESPONSE

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
PORT = limits.GOSSIP_PORT_DEFAULT
COUNT = 40
_IP_HEADER_SIZE, _HEAD_SIZE = 20, 42  # IPv4; and with Ethernet and UDP around it
CHANCE = random.Random(4789)


class Stage(LabCluster):
    """Two members, and a third host that is not a member and sends under any address."""

    def prepare(self, outsider: AgentDriver) -> None:
        """Open the stranger's sockets, and record the members' datagrams."""
        self.mouth = socket_in(outsider.host, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self.ears = socket_in(outsider.host, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.ears.bind(("eth1", 3))
        self.wire = socket_in(self.host(1).host, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.wire.bind(("eth1", 3))
        self.outsider = parse_ip(outsider.address)
        self.recorded = self.record()

    def close(self) -> None:
        """Close all sockets."""
        for each in (self.mouth, self.ears, self.wire):
            each.close()

    def address(self, number: int) -> Ip:
        """Return a member's underlay address."""
        return parse_ip(self.host(number).address)

    def send(self, data: bytes, source: Ip) -> None:
        """Send a datagram to vm1 under any address."""
        packet = udp(source, self.address(1), (PORT, PORT), data)
        self.mouth.sendto(packet, (self.host(1).address, 0))

    def record(self) -> list[bytes]:
        """Return the next datagrams of their session that vm2 sends to vm1."""
        found: list[bytes] = []
        self.wire.settimeout(10.0)
        while len(found) < COUNT // 4:
            frame = self.wire.recv(65536)
            is_gossip = (
                frame[12:14] == b"\x08\x00"
                and frame[23] == socket.IPPROTO_UDP
                and frame[26:30] == self.address(2)
                and frame[30:34] == self.address(1)
                and frame[36:38] == struct.pack(">H", PORT)
            )
            if is_gossip and frame[_HEAD_SIZE + datagram.KIND_AT] == DATA:
                length = int.from_bytes(frame[38:40], "big") - 8
                found.append(frame[_HEAD_SIZE : _HEAD_SIZE + length])
        return found

    def drops(self) -> dict[str, int]:
        """Return vm1's dropped datagrams, by reason."""
        shown: dict[str, int] = self.host(1).get("/v1/status")["drops"]
        return shown

    def answers(self) -> list[bytes]:
        """Return the datagrams that members have sent to the stranger since the last call."""
        found: list[bytes] = []
        self.ears.setblocking(False)
        while True:
            try:
                frame, (_, _, kind, _, _) = self.ears.recvfrom(65536)
            except BlockingIOError:
                return found
            if kind != socket.PACKET_OUTGOING and frame[30:34] == self.outsider:
                found.append(frame)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """Return two members with a container each, and the stranger."""
    assert not host_process.running(), "a lab is up on this machine: overlayd lab down"
    drivers: list[AgentDriver] = []
    try:
        drivers = connect(lab.make(3))
        made = Stage(drivers[:2])
        join_all(made.drivers)
        made.populate()
        wait_until(made.all_healthy, "all are well")
        made.prepare(drivers[2])
        yield made
        made.close()
    finally:
        end_all(drivers)


def flipped(data: bytes, at: int) -> bytes:
    """Return a datagram with one bit of one byte inverted."""
    return data[:at] + bytes([data[at] ^ 1 << CHANCE.randrange(8)]) + data[at + 1 :]


def made_up(kind: int) -> bytes:
    """Return a datagram of a kind with random bytes behind."""
    return bytes([datagram.VERSION, kind]) + CHANCE.randbytes(400)


def for_its_session(like: bytes) -> bytes:
    """Return a datagram for a valid one's session, with random bytes behind its header."""
    return like[:8] + CHANCE.randbytes(8 + 300)


Deed = Callable[[bytes], bytes]
DEEDS: dict[str, tuple[Deed, str]] = {
    "replayed": (lambda data: data, "replayed"),
    "cut to its header": (lambda data: data[:47], "too-short"),
    "empty": (lambda _data: b"", "too-short"),
    "cut by one": (lambda data: data[:-1], "unauthenticated"),
    "longer by one": (lambda data: data + b"\0", "unauthenticated"),
    "too long": (lambda data: data + bytes(1201 - len(data)), "too-long"),
    "a flipped bit in the box": (lambda data: flipped(data, 40), "unauthenticated"),
    "a flipped bit in the tag": (lambda data: flipped(data, len(data) - 1), "unauthenticated"),
    "a flipped bit in the header": (lambda data: flipped(data, 3), "unauthenticated"),
    "another counter": (lambda data: flipped(data, 15), "unauthenticated"),
    "forged data": (for_its_session, "unauthenticated"),
    "another version": (lambda data: b"\x07" + data[1:], "other-version"),
    "no known kind": (lambda data: data[:1] + b"\x63" + data[2:], "unknown-kind"),
    "a forged join": (lambda _data: made_up(JOIN), "wrong-receiver"),
    "a forged hello": (lambda _data: made_up(HELLO), "wrong-receiver"),
    "a forged admission": (lambda _data: made_up(JOIN_HELLO), "wrong-receiver"),
    "a cookie that nobody asked for": (lambda _data: made_up(COOKIE), "cookie-not-asked"),
    # The last ones: vm1 may renew its session with the seeming sender.
    "a response that nobody asked for": (lambda _data: made_up(RESPONSE), "late-response"),
    "data of no session": (lambda _data: made_up(DATA), "no-session"),
}


@pytest.mark.parametrize("deed", DEEDS)
def test_it_changes_nothing_and_is_counted(stage: Stage, deed: str) -> None:
    """From the stranger's and from a member's address, it is dropped by reason and unanswered."""
    change, reason = DEEDS[deed]
    stage.answers()
    taken = stage.recorded
    known = endpoints(stage.host(1))
    before = stage.drops()
    for data in taken:
        stage.send(change(data), stage.outsider)
        stage.send(change(data), stage.address(2))
    wait_until(
        lambda: stage.drops().get(reason, 0) - before.get(reason, 0) == 2 * len(taken),
        f"{2 * len(taken)} times {reason}; dropped before: {before}",
    )

    assert stage.answers() == []
    assert endpoints(stage.host(1)) == known
    wait_until(stage.all_healthy, "all are well")


def test_a_flood_stops_nothing(stage: Stage) -> None:
    """30,000 forged datagrams come from ever new addresses and from a member's.

    Packets flow, an attach is confirmed, memory stays constant, and no handshake is parsed.
    """
    one = stage.host(1)
    memory = resident_kib(one)
    before = stage.drops()
    kinds = (HELLO, JOIN, JOIN_HELLO, RESPONSE, DATA)
    one.run("ip", "netns", "add", "late")
    with stage.both_ways() as verdicts:
        for number in range(15_000):
            source = Ip(b"\xac\x10" + number.to_bytes(2, "big"))
            stage.send(made_up(kinds[number % 5]), source)
            stage.send(made_up(kinds[number % 5]), stage.address(2))
            if number == 7_500:
                address = attach(one, "late")
    wait_until(stage.all_healthy, "all are well")

    assert all(each.lost == 0 for each in verdicts), verdicts
    assert ("late", address, one.host.name) in endpoints(stage.host(2))
    assert stage.drops()["wrong-receiver"] > before.get("wrong-receiver", 0)
    assert resident_kib(one) - memory < 20 * 1024
    one.post("/v1/detach", target="netns:late")


def resident_kib(driver: AgentDriver) -> int:
    """Return the resident memory of a host's agent."""
    lines = Path(f"/proc/{driver.pid()}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
