"""A netlink socket that handles many messages quickly (netlink(7)).

Owns: sending and receiving messages: batches, dumps, notifications.
Does not: interpret them.

pyroute2's own sockets do not fit: in 0.9.7 each holds an asyncio loop (8 descriptors for one
socket), a call takes 300 us, a socket for another namespace forks, and an interrupted dump is not
reported. Its message classes are used outside hot paths.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Self, TypeVar

from overlay import failpoint, limits
from overlay.errors import OverlayError
from overlay.kernel import netns
from overlay.kernel.netlink import codec
from overlay.kernel.netlink.codec import (
    ERROR,
    HEADER,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    RTM_GETNSID,
    NetlinkMessage,
    NetlinkRefusal,
    Request,
    attribute,
    attributes,
    messages_in,
    refusal_in,
)

T = TypeVar("T")

# linux/netlink.h
_SOL_NETLINK: Final = 270
_NETLINK_ADD_MEMBERSHIP: Final = 1
_NETLINK_CAP_ACK: Final = 10
_NETLINK_EXT_ACK: Final = 11
_NETLINK_GET_STRICT_CHK: Final = 12
_NETNSA_NSID, _NETNSA_FD = 1, 3  # linux/net_namespace.h
_SIOCGSKNS: Final = 0x894C  # linux/sockios.h: a descriptor of a socket's namespace
_DUMP_ENDS: Final = (NLMSG_DONE, NLMSG_ERROR)
# Failpoints before a batch, by the type of its first message.
_FAILPOINTS: Final = {
    codec.RTM_NEWLINK: "netlink.new-link",
    codec.RTM_DELLINK: "netlink.delete-link",
    codec.RTM_NEWADDR: "netlink.new-address",
    codec.RTM_DELADDR: "netlink.delete-address",
    codec.RTM_NEWROUTE: "netlink.new-route",
    codec.RTM_DELROUTE: "netlink.delete-route",
    codec.RTM_NEWNEIGH: "netlink.new-neighbour",
    codec.RTM_DELNEIGH: "netlink.delete-neighbour",
    codec.RTM_NEWRULE: "netlink.new-rule",
    codec.RTM_DELRULE: "netlink.delete-rule",
    codec.RTM_NEWQDISC: "netlink.new-filter",
    codec.RTM_NEWTFILTER: "netlink.new-filter",
    codec.RTM_DELQDISC: "netlink.delete-filter",
    codec.RTM_DELTFILTER: "netlink.delete-filter",
}

# One send is one kernel buffer: 64 KiB is well below the socket's send buffer, and the refusals of
# one batch (less than 1 KiB each, as the kernel counts them) fit the receive buffer.
_BATCH_SIZE_MAX: Final = 64 * 1024
_BATCH_COUNT_MAX: Final = 1024
_BUFFER_SIZE: Final = 4 * 1024 * 1024
# Twice what the kernel puts into one buffer (32 KiB, af_netlink.c), and less than what the C
# library maps and unmaps for each call (`agent.main.return_large_blocks`).
_RECEIVE_SIZE: Final = 64 * 1024
_DISCARDED_MAX: Final = 65_536  # more than a receive buffer holds
_DUMP_ATTEMPTS: Final = 5
_REPLY_TIMEOUT_S: Final = 30


class TornDumpError(OverlayError):
    """Every attempt to dump a table was interrupted (NLM_F_DUMP_INTR).

    `seen` holds the buffers of all attempts. A torn dump can miss or repeat an entry, but contains
    none that never existed.
    """

    def __init__(self) -> None:
        super().__init__(
            "the kernel's tables changed while they were read",
            why=f"{_DUMP_ATTEMPTS} attempts in a row",
            hint="the agent retries automatically",
        )
        self.seen: list[bytes] = []


class LargeDumpError(OverlayError):
    """A dump is larger than its reader allows."""

    def __init__(self, size_max: int) -> None:
        super().__init__(
            "there is too much in the kernel's tables of this network namespace to read it",
            why=f"more than {size_max // 1024} KiB in one of them",
            hint="root there may have added links, addresses, routes, sockets or rules",
        )


class LostNotificationsError(Exception):
    """The kernel dropped notifications (ENOBUFS, netlink(7)).

    The caller must read everything again.
    """


class NetlinkError(OSError):
    """The kernel refused a single request."""


class NetlinkSocket:
    """A blocking netlink socket in the namespace where it was opened."""

    def __init__(
        self,
        netns_fd: int | None = None,
        *,
        groups: Sequence[int] = (),
        protocol: int = socket.NETLINK_ROUTE,
        dump_size_max: int | None = None,
        receive_size: int = _BUFFER_SIZE,
    ) -> None:
        """Open the socket. `dump_size_max` bounds each dump, in bytes.

        Twice `receive_size`, as the kernel counts bytes, may wait, socket(7).
        """
        self._protocol = protocol
        self._dump_size_max = dump_size_max
        self._socket = _open_in(netns_fd, protocol, receive_size)
        for group in groups:
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
        self._sequence = 0

    @classmethod
    def in_container(cls, netns_fd: int, *, protocol: int = socket.NETLINK_ROUTE) -> Self:
        """Open a socket in a namespace whose tables others fill: its dumps are bounded."""
        return cls(netns_fd, protocol=protocol, dump_size_max=limits.CONTAINER_DUMP_SIZE_MAX)

    def fileno(self) -> int:
        """Return the file descriptor, for an event loop to wait on."""
        return self._socket.fileno()

    @property
    def port_id(self) -> int:
        """Return the kernel's number for this socket, unique in its namespace."""
        return int(self._socket.getsockname()[0])

    def close(self) -> None:
        """Close the socket; closing it again does nothing."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def transact(self, requests: Sequence[Request]) -> list[NetlinkRefusal]:
        """Send the requests in order, in batches.

        Returns those that the kernel refused. A refused request does not stop those after it.
        Raises OSError if the socket fails.
        """
        refusals: list[NetlinkRefusal] = []
        start = 0
        while start < len(requests):
            failpoint.failpoint(_FAILPOINTS.get(requests[start][0], "netlink.other"))
            start = self._send_batch(requests, start, refusals)
        return refusals

    def request(self, *requests: Request, harmless: Container[int] = ()) -> None:
        """Send the requests in order, in batches.

        Raises NetlinkError with the kernel's text for the first that it refused with another error
        number than the harmless ones; the others were sent as well.
        """
        for refusal in self.transact(requests):
            if refusal.errno not in harmless:
                raise NetlinkError(refusal.errno, str(refusal))

    def _send_batch(
        self, requests: Sequence[Request], start: int, out: list[NetlinkRefusal]
    ) -> int:
        """Send one batch, from the request `start` on.

        Returns the start of the next. Only the last message requests an acknowledgement: the kernel
        processes requests in order and always reports refusals, so the last reply means that all
        others were processed. One acknowledgement per message would double the cost.
        """
        pack = HEADER.pack
        first = self._sequence + 1
        parts: list[bytes] = []
        size = 0
        index = start
        end = min(len(requests), start + _BATCH_COUNT_MAX)
        sequence = first
        while index < end and size < _BATCH_SIZE_MAX:
            kind, flags, body = requests[index]
            length = 16 + len(body)
            index += 1
            flags |= NLM_F_REQUEST
            parts.append(pack(length, kind, flags, sequence, 0))
            parts.append(body)
            padding = -length & 3
            if padding:
                parts.append(b"\0" * padding)
            size += length + padding
            sequence += 1
        last = sequence - 1
        position = -3 if padding else -2
        parts[position] = pack(length, kind, flags | NLM_F_ACK, last, 0)
        self._sequence = last
        self._socket.sendall(b"".join(parts))
        while True:
            for number, refusal in self._replies():
                if refusal is not None and first <= number <= last:
                    out.append(refusal._replace(position=start + number - first))
                if number == last:
                    return index

    def atomically(self, requests: Sequence[Request]) -> list[NetlinkRefusal]:
        """Send one nfnetlink transaction, including its begin and end messages.

        The kernel applies all of it or nothing (NFNL_MSG_BATCH_BEGIN,
        linux/netfilter/nfnetlink.h). Returns the refusals; position 0 is the transaction itself.
        """
        first, last = self._sequence + 1, self._sequence + len(requests) - 1
        self._sequence = last + 1
        parts: list[bytes] = []
        for number, (kind, flags, body) in enumerate(requests, first):
            reply_flags = flags | NLM_F_REQUEST | (NLM_F_ACK if number == last else 0)
            padding = b"\0" * (-len(body) & 3)
            parts += (HEADER.pack(16 + len(body), kind, reply_flags, number, 0), body, padding)
        self._socket.sendall(b"".join(parts))
        refusals: list[NetlinkRefusal] = []
        while True:
            for number, refusal in self._replies():
                if refusal is not None and first <= number <= last:
                    refusals.append(refusal._replace(position=number - first))
                if number == last or (number == first and refusal is not None):
                    return refusals

    def _replies(self) -> Iterator[tuple[int, NetlinkRefusal | None]]:
        buffer = self._socket.recv(_RECEIVE_SIZE)
        for kind, flags, sequence, start, end in messages_in(buffer):
            if kind == NLMSG_ERROR:
                yield sequence, refusal_in(buffer, flags, start, end)

    def get(self, request: Request) -> list[NetlinkMessage]:
        """Send one query and return the replies.

        Raises NetlinkError if it is refused.
        """
        kind, flags, body = request
        sequence = self._send_one(kind, flags | NLM_F_ACK, body)
        found: list[NetlinkMessage] = []
        while True:
            buffer = self._socket.recv(_RECEIVE_SIZE)
            for reply, marks, number, start, end in messages_in(buffer):
                if number != sequence:
                    continue
                if reply != NLMSG_ERROR:
                    found.append(NetlinkMessage(reply, buffer, start, end))
                    continue
                refusal = refusal_in(buffer, marks, start, end)
                if refusal is not None:
                    raise NetlinkError(refusal.errno, str(refusal))
                return found

    def dump(self, kind: int, body: bytes) -> list[NetlinkMessage]:
        """Return all messages of a dump; raises as `dump_buffers` does."""
        return messages_of(self.dump_buffers(kind, body))

    def dump_buffers(self, kind: int, body: bytes) -> list[bytes]:
        """Return a dump as buffers of whole messages, without NLMSG_DONE.

        A dump interrupted by a change is repeated. Raises TornDumpError if every attempt was
        interrupted, LargeDumpError if it is too large, NetlinkError if the kernel refuses.
        """
        seen: list[bytes] = []

        def dump() -> list[bytes]:
            first = len(seen)
            seen.extend(self.dump_stream(kind, body))
            return seen[first:]

        try:
            return whole(dump)
        except TornDumpError as error:
            error.seen = seen
            raise

    def dump_stream(self, kind: int, body: bytes) -> Iterator[bytes]:
        """Yield the buffers of one dump as they come, so that none of a large one has to be kept.

        Raises TornDumpError at its end if a change interrupted it, LargeDumpError if it is too
        large, NetlinkError if the kernel refuses.
        """
        # pyroute2 0.9.7 never reports NLM_F_DUMP_INTR; a torn dump can miss entries.
        wanted = self._send_one(kind, NLM_F_DUMP, body)
        torn, left = 0, self._dump_size_max
        unpack = HEADER.unpack_from
        while True:
            buffer = self._socket.recv(_RECEIVE_SIZE)
            position, size = 0, len(buffer)
            if left is not None:
                left -= size
                if left < 0:
                    self._abandon_dump()
                    raise LargeDumpError(self._dump_size_max or 0)
            sequence = wanted
            while position < size:
                length, reply, flags, sequence, _ = unpack(buffer, position)
                if sequence != wanted:
                    break  # replies to an abandoned request; a buffer holds those of one only
                torn |= flags
                if reply in _DUMP_ENDS:
                    (result,) = ERROR.unpack_from(buffer, position + 16)
                    if result:
                        raise NetlinkError(-result, os.strerror(-result))
                    yield buffer[:position]
                    if torn & NLM_F_DUMP_INTR:
                        raise TornDumpError
                    return
                position += (length + 3) & ~3
            if sequence == wanted:
                yield buffer

    def _abandon_dump(self) -> None:
        """Replace the socket by another one there: it refuses a dump while one has not ended."""
        netns_fd = fcntl.ioctl(self._socket, _SIOCGSKNS)
        with netns.closing(netns_fd), self._socket:
            self._socket = _open_in(netns_fd, self._protocol, _BUFFER_SIZE)

    def _send_one(self, kind: int, flags: int, body: bytes) -> int:
        self._sequence += 1
        header = HEADER.pack(16 + len(body), kind, flags | NLM_F_REQUEST, self._sequence, 0)
        self._socket.sendall(header + body)
        return self._sequence

    def notifications(self, count_max: int) -> list[NetlinkMessage]:
        """Return waiting notifications of at most `count_max` reads.

        Never blocks. Raises LostNotificationsError once after the kernel has dropped some: those
        that still wait are discarded then, because the kernel drops all others until none waits.
        """
        found: list[NetlinkMessage] = []
        for _ in range(count_max):
            try:
                buffer = self._socket.recv(_RECEIVE_SIZE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    self._discard_waiting()
                    raise LostNotificationsError from None
                raise
            found.extend(
                NetlinkMessage(kind, buffer, start, end)
                for kind, _, _, start, end in messages_in(buffer)
            )
        return found

    def _discard_waiting(self) -> None:
        for _ in range(_DISCARDED_MAX):
            try:
                self._socket.recv(1, socket.MSG_DONTWAIT)  # of each message: the rest is cut off
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise


def whole(read: Callable[[], T]) -> T:
    """Return what a function reads by `dump_stream`; one that changes interrupt is repeated.

    Raises TornDumpError if every attempt was interrupted.
    """
    for _ in range(_DUMP_ATTEMPTS - 1):
        with suppress(TornDumpError):
            return read()
    return read()


def messages_of(buffers: list[bytes]) -> list[NetlinkMessage]:
    """Return the messages in the buffers of a dump."""
    return [
        NetlinkMessage(kind, buffer, start, end)
        for buffer in buffers
        for kind, _, _, start, end in messages_in(buffer)
    ]


def _open_in(netns_fd: int | None, protocol: int, receive_size: int) -> socket.socket:
    if netns_fd is None:
        return _open_raw(protocol, receive_size)
    with netns.inside(netns_fd):
        return _open_raw(protocol, receive_size)


def _open_raw(protocol: int, receive_size: int) -> socket.socket:
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    raw = socket.socket(socket.AF_NETLINK, kind, protocol)
    for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
        raw.setsockopt(_SOL_NETLINK, option, 1)
    sizes = ((socket.SO_RCVBUF, 33, receive_size), (socket.SO_SNDBUF, 32, _BUFFER_SIZE))
    for name, forced, size in sizes:
        try:
            raw.setsockopt(socket.SOL_SOCKET, forced, size)  # SO_RCVBUFFORCE, SND..
        except PermissionError:
            raw.setsockopt(socket.SOL_SOCKET, name, size)
    # The kernel replies within the send call; the timeout only bounds a wait caused by a bug.
    limit = struct.pack("@ll", _REPLY_TIMEOUT_S, 0)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    raw.bind((0, 0))
    return raw


def namespace_id(socket_inside: NetlinkSocket, netns_fd: int) -> int:
    """Return another namespace's id in the socket's namespace.

    Returns -1 if it has none yet. See RTM_GETNSID, linux/net_namespace.h.
    """
    body = bytes(4) + attribute(_NETNSA_FD, struct.pack("=I", netns_fd))
    for message in socket_inside.get((RTM_GETNSID, 0, body)):
        value = attributes(message.buffer, message.start + 4, message.end).get(_NETNSA_NSID)
        if value is not None:
            return int(ERROR.unpack(value)[0])
    return -1
