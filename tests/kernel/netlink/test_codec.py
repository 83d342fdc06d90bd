from __future__ import annotations

import errno
import os
import struct
import threading
from collections import deque
from typing import TYPE_CHECKING, cast

import pytest
from overlay.core.dataplane.link_state import Bridge
from overlay.core.dataplane.state import FloodRow
from overlay.kernel.netlink import codec, link_decoder, link_requests, row_requests
from overlay.kernel.netlink.codec import NetlinkRefusal
from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket, TornDumpError
from overlay.model import Ip, Mac, parse_ip

if TYPE_CHECKING:
    import socket

    from tests.kernel.conftest import Host, World

DONE = 3
ERROR = 2


class Wire:
    """Simulates the kernel: returns a list of datagrams for each request."""

    def __init__(self, *answers: list[list[tuple[int, int, bytes]]]) -> None:
        self.answers = deque(answers)
        self.waiting: deque[bytes] = deque()
        self.sent: list[bytes] = []

    def sendall(self, request: bytes) -> None:
        """Accept a request and prepare its replies."""
        self.sent.append(request)
        (sequence,) = struct.unpack_from("=I", request, 8)
        for datagram in self.answers.popleft():
            self.waiting.append(
                b"".join(
                    struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body
                    for kind, flags, body in datagram
                )
            )

    def recv(self, _size: int) -> bytes:
        """Return the next datagram."""
        return self.waiting.popleft()

    def close(self) -> None:
        """Do nothing."""


def socket_on(wire: Wire) -> NetlinkSocket:
    """Return a socket whose kernel is `wire`."""
    made = NetlinkSocket()
    made._socket.close()
    made._socket = cast("socket.socket", wire)
    return made


ROW = (codec.RTM_NEWNEIGH, 2, bytes(12))
TORN_ROW = (codec.RTM_NEWNEIGH, 2 | codec.NLM_F_DUMP_INTR, bytes(12))
END = (DONE, 2, bytes(4))
TORN_END = (DONE, 2 | codec.NLM_F_DUMP_INTR, bytes(4))


@pytest.mark.parametrize(
    "torn",
    [[[ROW, TORN_ROW], [END]], [[TORN_ROW], [ROW], [END]], [[ROW], [TORN_END]]],
    ids=["in the middle", "at the start", "at the end"],
)
def test_an_interrupted_dump_is_repeated(torn: list[list[tuple[int, int, bytes]]]) -> None:
    """A dump that the kernel marks as interrupted is requested again."""
    wire = Wire(torn, [[ROW, ROW], [END]])
    assert len(socket_on(wire).dump(codec.RTM_GETNEIGH, b"")) == 2
    assert len(wire.sent) == 2


def test_a_dump_that_is_always_interrupted_fails() -> None:
    """After five interrupted attempts a dump raises an error."""
    wire = Wire(*([[[TORN_ROW], [END]]] * 5))
    with pytest.raises(TornDumpError):
        socket_on(wire).dump(codec.RTM_GETNEIGH, b"")
    assert len(wire.sent) == 5


def test_refused_dump() -> None:
    """A dump that the kernel refuses raises its error."""
    refusal = (ERROR, 0, struct.pack("=i", -errno.ENODEV) + bytes(16))
    with pytest.raises(NetlinkError) as caught:
        socket_on(Wire([[refusal]])).dump(codec.RTM_GETNEIGH, b"")
    assert caught.value.errno == errno.ENODEV


def test_end_in_the_same_datagram() -> None:
    """The end mark may share a datagram with messages.

    It is not a message itself.
    """
    wire = Wire([[ROW, ROW, END]])
    assert [message.kind for message in socket_on(wire).dump(codec.RTM_GETNEIGH, b"")] == [
        codec.RTM_NEWNEIGH
    ] * 2


def test_attributes_stop_at_an_invalid_length() -> None:
    """An attribute shorter than its own header ends the parsing.

    Padding is skipped.
    """
    good = codec.attribute(3, b"abcde") + codec.attribute(0x8000 | 4, b"x")
    assert codec.attributes(good + bytes(8), 0, len(good) + 8) == {3: b"abcde", 4: b"x"}


@pytest.mark.netns
def test_refusals_of_a_batch(two_hosts: tuple[Host, Host]) -> None:
    """In a batch of thousands each refusal has its position.

    The others are applied.
    """
    host, _ = two_hosts
    index = host.sandbox.link_index("vxlan0")
    batch = [
        row_requests.put(FloodRow("vxlan0", Ip((0x0A000001 + number).to_bytes(4, "big"))), index)
        for number in range(3000)
    ]
    wrong = row_requests.put(FloodRow("vxlan0", parse_ip("fd00::1")), index)
    for position in (0, 1500, 2999):
        batch[position] = wrong
    refusals = host.sandbox.socket.transact(batch)

    assert [refusal.position for refusal in refusals] == [0, 1500, 2999]
    assert {refusal.errno for refusal in refusals} == {errno.EAFNOSUPPORT}
    assert len(host.sandbox.read().rows) == len(host.desired().rows) + 2997


@pytest.mark.netns
def test_all_refused(two_hosts: tuple[Host, Host]) -> None:
    """A batch of which every message is refused overflows no buffer."""
    host, _ = two_hosts
    index = host.sandbox.link_index("vxlan0")
    wrong = row_requests.put(FloodRow("vxlan0", parse_ip("fd00::1")), index)
    assert len(host.sandbox.socket.transact([wrong] * 5000)) == 5000


@pytest.mark.netns
def test_the_kernels_text(world: World) -> None:
    """A refusal carries the kernel's own text if there is one."""
    with NetlinkSocket(world.fd(world.namespace("a"))) as socket:
        request = link_requests.get_link("none0")
        with pytest.raises(NetlinkError) as caught:
            socket.get(request)
        assert caught.value.errno == errno.ENODEV
        socket.request(link_requests.create_bridge(Bridge("br0", Mac(b"\2\0\0\0\0\1"), 1450)))
        (refusal,) = socket.transact([link_requests.set_mtu(2, 10**9)])
        assert isinstance(refusal, NetlinkRefusal)
        assert "mtu" in str(refusal).lower()
    assert str(NetlinkRefusal(0, errno.EPERM, "")) == os.strerror(errno.EPERM)


@pytest.mark.netns
def test_reading_while_others_write(world: World, two_hosts: tuple[Host, Host]) -> None:
    """A read either has every permanent port, or raises TornDumpError."""
    host, _ = two_hosts
    sandbox = host.sandbox.name
    for number in range(60):  # so many that a dump of links takes several datagrams
        veth = ("type", "veth", "peer", f"peer{number}")
        world.run(sandbox, "ip", "link", "add", f"keep{number}", *veth)
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            world.run(sandbox, "ip", "link", "add", "brief0", "type", "bridge")
            world.run(sandbox, "ip", "link", "del", "brief0")

    writer = threading.Thread(target=churn)
    writer.start()
    torn = 0
    try:
        for _ in range(60):
            try:
                found = host.sandbox.read().links
            except TornDumpError:
                torn += 1
            else:
                assert {f"keep{number}" for number in range(60)} <= found.keys()
    finally:
        stop.set()
        writer.join()
    assert torn < 60


@pytest.mark.netns
def test_link_dump_is_decoded(world: World) -> None:
    """The loopback is decoded: index 1, up, no kind, no master."""
    with NetlinkSocket(world.fd(world.namespace("a"))) as socket:
        (message, *_) = socket.dump(codec.RTM_GETLINK, link_decoder.DUMP_BODY)
    found = link_decoder.decode(message)

    assert (found.index, found.name, found.up, found.kind, found.master) == (1, "lo", True, "", 0)
