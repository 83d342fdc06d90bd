"""Run the programs that choose a backend at connect(2), and say what leads where.

They run at the root of the control groups, so for each program of the host, and know containers by
their network namespace. They end with the agent: then the clients' tables, which are always there,
translate new connections; those that were begun need neither.

Owns: the maps and the links. Does not: know instructions (`connect_program`).
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from overlay import limits
from overlay.core.services.maglev import has_backends, sharing_at, slots_of
from overlay.core.services.values import VirtualPort
from overlay.kernel import netns
from overlay.kernel.bpf import syscall
from overlay.kernel.services import connect_program as program
from overlay.kernel.services import waiting_sockets
from overlay.kernel.services.connection_moves import Move
from overlay.model import Ip, NodeId

_SO_NETNS_COOKIE: Final = 71  # linux/socket.h, since Linux 5.14
_INITIAL_CGROUP_NAMESPACE: Final = 0xEFFFFFFB  # linux/proc_ns.h
_Identity = tuple[int, int]


@dataclass(slots=True, eq=False)
class _Ring:
    """The backends of a port, under a number, and how many keys lead to them."""

    port: VirtualPort
    number: int
    uses: int = 0


class ConnectHook:
    """The programs of one agent. Raises OSError with the reason where there can be none."""

    def __init__(self, node_id: NodeId) -> None:
        self._node_id = node_id
        self._rings: dict[int, _Ring] = {}  # by the id of the port, which is large to compare
        self._last_ring = 0
        self._cookies: dict[_Identity, int] = {}
        self._led: dict[_Identity, dict[bytes, _Ring]] = {}
        with ExitStack() as opened:
            self._ports = _map(opened, program.KEY_SIZE, 4, limits.SERVICE_CONNECT_PORTS_MAX)
            self._rings_map = _map(opened, 4, program.RING_SIZE, limits.SERVICE_CONNECT_RINGS_MAX)
            self._notes = syscall.create_socket_map(program.NOTE.size, "overlayd_asked")
            opened.callback(os.close, self._notes)
            with netns.closing(netns.own_fd()) as own:
                waiting_sockets.sockets(own, (4,), self._notes)  # that the kernel can tell
            self._link(opened)
            self._opened = opened.pop_all()

    def _link(self, opened: ExitStack) -> None:
        root = os.open(_cgroup_root(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for size, where in syscall.CONNECT.items():
                code = program.program(size, self._ports, self._rings_map, self._notes)
                loaded = syscall.load(code, f"ovs_{self._node_id[:3].hex()}", connect=where)
                try:
                    opened.callback(os.close, syscall.link(loaded, root, where))
                finally:
                    os.close(loaded)
        finally:
            os.close(root)

    def close(self) -> None:
        """End the programs; connections that were begun go on."""
        self._opened.close()

    def lead(self, path: str, identity: _Identity, ports: Iterable[VirtualPort]) -> None:
        """Have the sockets of a container led to the backends of these ports, and no others.

        `path` is where its namespace is; a port that has not changed is the same object. UDP, and
        ports with affinity, are left to the client's table, as are those beyond the bounds. Raises
        OSError, OverlayError.
        """
        cookie = self._cookie(path, identity)
        if cookie is None:
            self.forget(identity)
            return
        led = self._led.setdefault(identity, {})
        wanted = {
            program.key_of(cookie, each.ip, each.port): each
            for each in ports
            if each.protocol == "tcp" and not each.affinity and has_backends(each)
        }
        for key in led.keys() - wanted.keys():
            self._stop(led, key)
        for key, port in wanted.items():
            if key not in led or led[key].port is not port:
                self._start(led, key, port)

    def forget(self, identity: _Identity) -> None:
        """Drop a container that is gone, or reaches no virtual address any more."""
        led = self._led.get(identity, {})
        for key in list(led):
            self._stop(led, key)
        self._led.pop(identity, None)
        self._cookies.pop(identity, None)

    def unanswered(
        self, path: str, identity: _Identity, ports: Mapping[tuple[Ip, int], VirtualPort | None]
    ) -> list[Move]:
        """Return a container's connections that nobody answers, and who may instead; None: nobody.

        `ports` are those that have lost a backend, as they are now, by address and port. Other
        connections are left out, such as those that were begun by a backend's own address. Raises
        OSError, OverlayError.
        """
        fd = netns.open_same(path, identity) if ports else None
        if fd is None:
            return []
        with netns.closing(fd):
            waiting = waiting_sockets.sockets(fd, {len(ip) for ip, _ in ports}, self._notes)
        found: list[Move] = []
        for each in waiting:
            asked = program.noted(each.note) if each.note else None
            if asked is not None and asked in ports:
                port = ports[asked]
                left = sharing_at(port, self._node_id) if port is not None else ()
                takers = {(one.ip, one.port) for one in left if not one.is_resting}
                if (each.target, each.target_port) not in takers:
                    slots = slots_of(left)
                    at = each.source_port % max(1, len(slots))
                    found.append((each, slots[at] if slots else None))
        return found

    def _start(self, led: dict[bytes, _Ring], key: bytes, port: VirtualPort) -> None:
        """Have a key lead to a port's backends; to none where it would be one too many."""
        try:
            ring = self._ring(port)
        except OSError as error:
            if error.errno != errno.E2BIG:
                raise
            if key in led:
                self._stop(led, key)
            return
        former = led.get(key)
        try:
            syscall.update(self._ports, key, program.RING_NUMBER.pack(ring.number))
            led[key] = ring
            ring.uses += 1
            if former is not None:
                self._release(former)
        except OSError as error:
            if error.errno != errno.E2BIG:
                raise
        finally:
            if not ring.uses:
                self._drop(ring)

    def _stop(self, led: dict[bytes, _Ring], key: bytes) -> None:
        syscall.delete(self._ports, key)
        self._release(led.pop(key))

    def _release(self, ring: _Ring) -> None:
        ring.uses -= 1
        if not ring.uses:
            self._drop(ring)

    def _drop(self, ring: _Ring) -> None:
        syscall.delete(self._rings_map, program.RING_NUMBER.pack(ring.number))
        self._rings.pop(id(ring.port), None)

    def _ring(self, port: VirtualPort) -> _Ring:
        """Return the ring with a port's backends, which many containers share."""
        if id(port) not in self._rings:
            number = self._last_ring + 1
            ring = program.ring_of(sharing_at(port, self._node_id))
            syscall.update(self._rings_map, program.RING_NUMBER.pack(number), ring)
            self._rings[id(port)] = _Ring(port, number)
            self._last_ring = number
        return self._rings[id(port)]

    def _cookie(self, path: str, identity: _Identity) -> int | None:
        """Return the number by which the kernel knows a namespace; None if it is gone.

        Another one may have the identity of one that is gone, but never its number.
        """
        fd = netns.open_same(path, identity)
        if fd is None:
            return None
        with netns.closing(fd), netns.inside(fd), socket.socket(type=socket.SOCK_DGRAM) as inside:
            found = inside.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, program.COOKIE.size)
        (cookie,) = program.COOKIE.unpack(found)
        if self._cookies.get(identity) != cookie:
            self.forget(identity)
            self._cookies[identity] = cookie
        return int(cookie)


def _map(opened: ExitStack, key_size: int, value_size: int, entries_max: int) -> int:
    made = syscall.create_map(key_size, value_size, entries_max, "overlayd_led")
    opened.callback(os.close, made)
    return made


def _cgroup_root() -> str:
    """Return where the root of the control groups is, of version 2. Raises OSError without one."""
    if Path("/proc/self/ns/cgroup").stat().st_ino != _INITIAL_CGROUP_NAMESPACE:
        raise OSError(errno.EOPNOTSUPP, "the agent sees only a part of the control groups")
    # Where users may mount (fusermount), they name directories by any bytes.
    for line in Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines():
        mounted, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 ") and mounted.split()[3] == "/":
            return mounted.split()[4]
    raise OSError(errno.ENOENT, "no control groups of version 2 are mounted")
