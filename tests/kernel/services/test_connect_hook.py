"""Backends chosen at connect(2): who answers, what is left to the table, what nobody answers."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from overlay import limits
from overlay.kernel import netns
from overlay.kernel.netlink.socket import LargeDumpError
from overlay.kernel.services import table_writer
from overlay.kernel.services.connect_hook import ConnectHook
from overlay.model import Ip, ip_text, parse_ip
from tests.kernel.services.conftest import (
    NODE,
    PORT,
    TARGET_PORT,
    VIRTUAL,
    Backends,
    address,
    virtual_port,
)

if TYPE_CHECKING:
    from overlay.core.services.values import VirtualPort
    from tests.kernel.services.conftest import Segment

pytestmark = [pytest.mark.netns, pytest.mark.kernels]
SIX = range(2, 8)
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM


@pytest.fixture
def hook() -> Iterator[ConnectHook]:
    """Return the programs of a node."""
    made = ConnectHook(NODE)
    yield made
    made.close()


def lead(hook: ConnectHook, segment: Segment, *ports: VirtualPort) -> None:
    """Have the client reach these ports, by the table and at connect(2)."""
    hook.lead(segment.path, segment.identity, ports)
    segment.put(*ports)


def ask(segment: Segment, backends: Backends, size: int, kind: int = TCP) -> tuple[Ip, bytes]:
    """Ask the virtual address; return where the socket is connected to, and the answer."""
    client = segment.socket(1, kind, address(1, size))
    client.connect((ip_text(VIRTUAL[size]), PORT))
    connected = parse_ip(client.getpeername()[0])
    if kind == UDP:
        client.send(b"?")
    answer = backends.answer(client)
    client.close()
    return connected, answer


@pytest.mark.parametrize("size", [4, 16])
def test_six_backends_share_the_connections(segment: Segment, hook: ConnectHook, size: int) -> None:
    """Each within a third of its share of 3,000; the socket is connected to the backend itself."""
    for number in SIX:
        segment.add(number)
    backends = Backends(segment, SIX, TCP, size)
    lead(hook, segment, virtual_port(SIX, size))
    for _ in range(3_000):
        connected, answer = ask(segment, backends, size)
        assert connected == address(int(answer), size)
    backends.close()

    assert all(333 <= backends.asked[number] <= 667 for number in SIX), backends.asked
    assert {ip for ip, _ in backends.clients} == {ip_text(address(1, size))}


@pytest.mark.parametrize("left", ["udp", "affinity", "one too many", "none"])
def test_the_table_does_the_rest(
    segment: Segment, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections that the programs do not know reach a backend by translation."""
    if left == "one too many":
        monkeypatch.setattr(limits, "SERVICE_CONNECT_RINGS_MAX", 1)
    hook = ConnectHook(NODE)
    segment.add(2)
    kind = UDP if left == "udp" else TCP
    backends = Backends(segment, range(2, 3), kind, 4)
    other = virtual_port((2,), 16)
    protocol = "udp" if left == "udp" else "tcp"
    mine = virtual_port((2,), 4, protocol, affinity=left == "affinity")  # type: ignore[arg-type]
    lead(hook, segment, other, mine)
    connected = ask(segment, backends, 4, kind)[0]
    hook.close()
    backends.close()

    assert connected == (address(2, 4) if left == "none" else VIRTUAL[4])


def test_each_namespace_has_its_own_services(segment: Segment, hook: ConnectHook) -> None:
    """Virtual addresses of different networks may be equal."""
    for number in (2, 3, 4):
        segment.add(number)
    backends = Backends(segment, range(3, 5), TCP, 4)
    lead(hook, segment, virtual_port((3,)))
    other = segment.names[2]
    place = str(netns.path_of(other)), netns.identity(segment.world.fd(other))
    hook.lead(*place, [virtual_port((4,))])
    asking = segment.socket(2, TCP, address(2, 4))
    asking.connect((ip_text(VIRTUAL[4]), PORT))
    answer = backends.answer(asking)
    connected = ask(segment, backends, 4)[0]
    backends.close()

    assert answer == b"4"
    assert connected == address(3, 4)


def test_connections_outlive_changes_and_the_agent(segment: Segment, hook: ConnectHook) -> None:
    """A backend that goes takes no new ones; without programs the table translates them."""
    for number in (2, 3):
        segment.add(number)
    first = segment.socket(2, TCP, address(2, 4), TARGET_PORT)
    first.listen()
    lead(hook, segment, virtual_port((2,)))
    client = segment.socket(1, TCP, address(1, 4))
    client.connect((ip_text(VIRTUAL[4]), PORT))
    accepted, _ = first.accept()
    backends = Backends(segment, range(3, 4), TCP, 4)
    lead(hook, segment, virtual_port((3,)))
    assert ask(segment, backends, 4) == (address(3, 4), b"3")
    hook.close()
    assert ask(segment, backends, 4) == (VIRTUAL[4], b"3")
    backends.close()

    with accepted:
        client.send(b"still")
        assert accepted.recv(64) == b"still"


def test_a_container_that_is_gone_is_forgotten(segment: Segment, hook: ConnectHook) -> None:
    """As is one that has no virtual addresses any more; another of its identity has none."""
    segment.add(2)
    backends = Backends(segment, range(2, 3), TCP, 4)
    lead(hook, segment, virtual_port((2,)))
    hook.forget(segment.identity)
    assert ask(segment, backends, 4) == (VIRTUAL[4], b"2")
    hook.lead("/run/netns/nobody", segment.identity, [virtual_port((2,))])
    assert ask(segment, backends, 4) == (VIRTUAL[4], b"2")
    backends.close()


def begun(segment: Segment, target: Ip, port: int) -> socket.socket:
    """Return a socket that waits for an answer from a container that is gone."""
    client = segment.socket(1, TCP, address(1, len(target)))
    client.setblocking(False)
    assert client.connect_ex((ip_text(target), port)) == errno.EINPROGRESS
    client.setblocking(True)
    client.settimeout(20)
    return client


def lose(segment: Segment, size: int) -> None:
    """Let nothing answer at container 2's address, not even that it is not there."""
    lost = ("lladdr", "02:00:00:00:00:02", "dev", "eth0", "nud", "permanent")
    segment.world.run(segment.names[1], "ip", "neigh", "add", ip_text(address(2, size)), *lost)


@pytest.mark.parametrize("size", [4, 16])
def test_a_syn_that_nobody_answers_finds_another(
    segment: Segment, hook: ConnectHook, size: int
) -> None:
    """The table has one more translation for a while; connections to the backend itself stay."""
    segment.add(3)
    lose(segment, size)
    lead(hook, segment, virtual_port((2,), size))
    client = begun(segment, VIRTUAL[size], PORT)
    direct = begun(segment, address(2, size), TARGET_PORT)
    backends = Backends(segment, range(3, 4), TCP, size)
    left = virtual_port((3,), size)
    lead(hook, segment, left)
    moves = hook.unanswered(segment.path, segment.identity, {(left.ip, left.port): left})
    assert [(each.source_port, to) for each, to in moves] == [
        (client.getsockname()[1], left.backends[0])
    ]
    assert segment.written is not None
    table, written = segment.table, segment.written
    for _ in range(2):  # once more: the backend that took over might go as well
        written = table_writer.move(segment.path, segment.identity, table, written, moves)
    segment.world.wait_until(lambda: backends.serve().total() > 0, "the next SYN")
    backends.close()

    assert client.recv(64) == b"3"
    with pytest.raises(OSError, match="not connected"):
        direct.getpeername()
    again = table_writer.ensure(segment.path, segment.identity, table, written.plan, written)
    assert again == (written, False), "the table was read, or written anew"
    assert table_writer.is_intact(segment.path, segment.identity, table, written.plan)


def test_no_container_costs_another_its_notes(segment: Segment, hook: ConnectHook) -> None:
    """However many connections it begins: each is noted at its own socket."""
    segment.add(3)
    other = segment.world.fd(segment.names[3])
    lose(segment, 4)
    lead(hook, segment, virtual_port((2,)))
    hook.lead(str(netns.path_of(segment.names[3])), netns.identity(other), [virtual_port((3,))])
    client = begun(segment, VIRTUAL[4], PORT)
    with netns.inside(other):
        for _ in range(20_000):
            with socket.socket() as refused:
                refused.setblocking(False)
                refused.connect_ex((ip_text(VIRTUAL[4]), PORT))
    left = virtual_port((3,))
    moves = hook.unanswered(segment.path, segment.identity, {(left.ip, left.port): left})

    assert [(each.source_port, to) for each, to in moves] == [
        (client.getsockname()[1], left.backends[0])
    ]


def test_without_a_backend_a_connection_ends(segment: Segment, hook: ConnectHook) -> None:
    """At once, as no other would answer."""
    lose(segment, 4)
    lead(hook, segment, virtual_port((2,)))
    client = begun(segment, VIRTUAL[4], PORT)
    none = virtual_port(())
    lead(hook, segment, none)
    moves = hook.unanswered(segment.path, segment.identity, {(none.ip, none.port): none})
    assert segment.written is not None
    place = segment.path, segment.identity, segment.table
    table_writer.move(*place, segment.written, moves)

    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNABORTED


def test_too_many_waiting_sockets_are_not_read(
    segment: Segment, hook: ConnectHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs in a container may open hundreds of thousands: theirs wait for their backend."""
    lose(segment, 4)
    lead(hook, segment, virtual_port((2,)))
    for _ in range(50):
        begun(segment, VIRTUAL[4], PORT)
    none = virtual_port(())
    monkeypatch.setattr(limits, "CONTAINER_DUMP_SIZE_MAX", 2048)
    with pytest.raises(LargeDumpError):
        hook.unanswered(segment.path, segment.identity, {(none.ip, none.port): none})
    monkeypatch.undo()
    assert hook.unanswered(segment.path, segment.identity, {(none.ip, none.port): none})


def test_any_name_of_a_mount_is_read(tmp_path: Path) -> None:
    """Users may mount where `fusermount` is installed; one such mount ended each agent's start."""
    place = os.fsencode(tmp_path) + b"/\xff\xfe"
    Path(os.fsdecode(place)).mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    try:
        ConnectHook(NODE).close()
    finally:
        subprocess.run(["umount", place], check=True)
