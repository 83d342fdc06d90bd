"""Virtual addresses in a client's namespace: who answers, what is kept, what another breaks."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from overlay import limits
from overlay.kernel.services import client_table, leftovers, table_writer
from overlay.kernel.services.table_plan import TablePlanner
from overlay.model import ip_text
from tests.kernel.services.conftest import (
    NODE,
    OTHER_NODE,
    PORT,
    VIRTUAL,
    Backends,
    address,
    virtual_port,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kernel.services.conftest import Segment

pytestmark = pytest.mark.netns
SIX = range(2, 8)
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM


def ask(segment: Segment, backends: Backends, kind: int, size: int, port: int = 0) -> bytes:
    """Ask the virtual address once; return the answer."""
    client = segment.socket(1, kind, address(1, size), port)
    client.connect((ip_text(VIRTUAL[size]), PORT))
    if kind == UDP:
        client.send(b"?")
    answer = backends.answer(client)
    client.close()
    return answer


@pytest.mark.parametrize("size", [4, 16])
@pytest.mark.parametrize("kind", [TCP, UDP])
def test_six_backends_share_10000_connections(segment: Segment, kind: int, size: int) -> None:
    """Each within a tenth of its share, and each sees the client's own address.

    The source ports are given, so that the hash gives the same every time.
    """
    for number in SIX:
        segment.add(number)
    backends = Backends(segment, SIX, kind, size)
    segment.put(virtual_port(SIX, size, "tcp" if kind == TCP else "udp"))
    count = 10_000 if size == 4 else 1_000
    for port in range(20_000, 20_000 + count):
        ask(segment, backends, kind, size, port)
    backends.close()

    assert backends.asked.total() == count
    if count == 10_000:
        assert all(1_500 <= asked <= 1_834 for asked in backends.asked.values())
    assert backends.asked.keys() == set(SIX)
    assert {ip for ip, _ in backends.clients} == {ip_text(address(1, size))}


@pytest.mark.parametrize("size", [4, 16])
def test_one_client_keeps_its_backend(segment: Segment, size: int) -> None:
    """With affinity, whatever its port."""
    for number in SIX:
        segment.add(number)
    backends = Backends(segment, SIX, TCP, size)
    segment.put(virtual_port(SIX, size, affinity=True))
    for _ in range(20):
        ask(segment, backends, TCP, size)
    backends.close()

    assert len(backends.asked) == 1


@pytest.mark.parametrize("size", [4, 16])
def test_the_client_is_its_own_backend(segment: Segment, size: int) -> None:
    """Over its loopback, in both directions."""
    backends = Backends(segment, range(1, 2), TCP, size)
    segment.put(virtual_port((1,), size))

    assert ask(segment, backends, TCP, size) == b"1"
    backends.close()


@pytest.mark.parametrize("size", [4, 16])
def test_the_virtual_address_answers_pings(segment: Segment, size: int) -> None:
    """By a backend; without one it is refused."""
    segment.add(2)
    segment.put(virtual_port((2,), size))

    def is_answered() -> bool:  # a loaded machine may take longer than a ping waits
        return segment.world.pings(segment.names[1], ip_text(VIRTUAL[size])) == 1

    segment.world.wait_until(is_answered, "an answer")
    segment.put(virtual_port((), size))
    assert segment.world.pings(segment.names[1], ip_text(VIRTUAL[size])) == 0


@pytest.mark.parametrize("size", [4, 16])
def test_nobody_answers_at_once(segment: Segment, size: int) -> None:
    """Neither without a backend nor on another port does a client wait for a time-out."""
    segment.put(virtual_port((), size), virtual_port((2,), size, "udp"))
    for port in (PORT, PORT + 1):
        with pytest.raises(ConnectionRefusedError):
            segment.socket(1, TCP, address(1, size)).connect((ip_text(VIRTUAL[size]), port))
    client = segment.socket(1, UDP, address(1, size))
    client.connect((ip_text(VIRTUAL[size]), PORT + 1))
    with pytest.raises(PermissionError):  # of a packet that a rule refuses where it is sent
        client.send(b"?")


def test_a_port_unreachable_reaches_the_client(segment: Segment) -> None:
    """As an ICMP error of the backend, translated back."""
    segment.add(2)
    segment.put(virtual_port((2,), 4, "udp"))
    client = segment.socket(1, UDP, address(1, 4))
    client.connect((ip_text(VIRTUAL[4]), PORT))
    client.send(b"?")
    with pytest.raises(ConnectionRefusedError):
        client.recv(64)


@pytest.mark.parametrize("size", [4, 16])
def test_fragments_arrive(segment: Segment, size: int) -> None:
    """A datagram larger than a frame, and its answer."""
    segment.add(2)
    segment.put(virtual_port((2,), size, "udp"))
    server = segment.socket(2, UDP, address(2, size), 8080)
    client = segment.socket(1, UDP, address(1, size))
    client.connect((ip_text(VIRTUAL[size]), PORT))
    client.send(b"q" * 8_000)
    question, asker = server.recvfrom(65_536)
    server.sendto(question.upper(), asker)

    assert client.recv(65_536) == b"Q" * 8_000


def test_a_connection_outlives_the_table_change(segment: Segment) -> None:
    """Its backend takes no new ones any more."""
    for number in (2, 3):
        segment.add(number)
    server = segment.socket(2, TCP, address(2, 4), 8080)
    server.listen()
    segment.put(virtual_port((2,)))
    client = segment.socket(1, TCP, address(1, 4))
    client.connect((ip_text(VIRTUAL[4]), PORT))
    accepted, _ = server.accept()
    segment.put(virtual_port((3,)))
    client.send(b"still")
    with accepted:
        assert accepted.recv(64) == b"still"


def test_an_unchanged_table_is_adopted(segment: Segment) -> None:
    """The next agent finds it, and changes nothing, unless services have changed meanwhile."""
    ports = virtual_port(SIX), virtual_port(SIX, 16, "udp", affinity=True)
    segment.put(*ports)
    first = segment.written
    segment.restart()
    assert not segment.put(*ports)
    again = segment.written
    assert first is not None
    assert again is not None
    assert first.state == again.state

    segment.restart()
    segment.put(ports[0])
    listed = segment.world.run(segment.names[1], "nft", "list", "ruleset")
    assert "fd09::100" not in listed


def test_what_another_alters_is_put_back(segment: Segment) -> None:
    """Also if an agent starts after that; rules that are not overlayd's are left alone."""
    name, inside = client_table.table_of(NODE).name, segment.names[1]
    segment.put(virtual_port(SIX))
    segment.world.run(inside, "nft", "add", "table", "inet", "others")
    assert not segment.put(virtual_port(SIX))
    for started in (False, True):
        for damage in (
            f"add element inet {name} addresses {{ 10.9.0.7 }}",
            f"delete table inet {name}",
        ):
            segment.world.run(inside, "nft", *damage.split())
            if started:
                segment.restart()
            assert segment.put(virtual_port(SIX)) != started
            listed = segment.world.run(inside, "nft", "list", "ruleset")
            assert "10.9.0.100 . tcp . 80" in listed
            assert "10.9.0.7 }" not in listed
            assert not segment.put(virtual_port(SIX))
    assert "inet others" in segment.world.run(inside, "nft", "list", "tables")


def test_a_table_that_another_fills_is_replaced_unread(
    segment: Segment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root in a container may add millions of elements, or of rules."""
    monkeypatch.setattr(limits, "CONTAINER_DUMP_SIZE_MAX", 16 * 1024)
    name, inside = client_table.table_of(NODE).name, segment.names[1]
    listed = ", ".join(f"10.{number >> 8}.{number & 255}.7" for number in range(1_500))
    rule = f"add rule inet {name} sent ip daddr 10.8.0.1 drop\n"
    many = tmp_path / "many"
    for text in (f"add element inet {name} addresses {{ {listed} }}", rule * 300):
        segment.put(virtual_port(SIX))
        many.write_text(text)
        segment.world.run(inside, "nft", "-f", str(many))
        plan = TablePlanner(NODE).plan([virtual_port(SIX)])
        assert not table_writer.is_intact(segment.path, segment.identity, segment.table, plan)
        assert segment.put(virtual_port(SIX))
        assert "10.1.1.7" not in segment.world.run(inside, "nft", "list", "ruleset")
        assert table_writer.is_intact(segment.path, segment.identity, segment.table, plan)


def test_without_services_there_is_no_table(segment: Segment) -> None:
    """Nothing is left in the container."""
    segment.put(virtual_port((2,)))
    assert "overlayd_services" in segment.world.run(segment.names[1], "nft", "list", "ruleset")
    segment.put()
    assert segment.world.run(segment.names[1], "nft", "list", "ruleset") == ""


def test_a_reset_finds_every_table(segment: Segment) -> None:
    """A node's own, or those of all nodes; in each namespace."""
    segment.put(virtual_port((2,)))
    assert list(leftovers.remove_tables(OTHER_NODE)) == []
    (removed,) = leftovers.remove_tables(NODE)
    assert removed.startswith(f"nftables table {client_table.table_of(NODE).name} of ")
    assert segment.world.run(segment.names[1], "nft", "list", "ruleset") == ""


def test_nft_lists_what_leads_where(segment: Segment) -> None:
    """An operator sees virtual addresses and backends."""
    segment.put(virtual_port((2,)), virtual_port((2,), 16, "udp"))
    listed = segment.world.run(segment.names[1], "nft", "list", "ruleset")

    assert "10.9.0.100 . tcp . 80 . 0x00000000 : 10.9.0.2 . 8080" in listed
    assert "fd09::100 . udp . 80 . 0x00000000 : fd09::2 . 8080" in listed
