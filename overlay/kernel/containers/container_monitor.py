"""Tell which containers' network namespaces have changed (netlink(7), rtnetlink(7)).

A namespace without a name has an id for each container's namespace. A netlink socket in it, with
NETLINK_LISTEN_ALL_NSID, gets the notifications of them all, each with the id; it keeps none of them
alive, and the process's end leaves nothing. That takes CAP_NET_BROADCAST.

Owns: the ids, and whose notifications wait: of links, addresses and routes, and of nftables' rules.
Of settings (sysctls) there are none. Does not: read what they say.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
from collections.abc import Collection, Iterable
from contextlib import ExitStack, suppress
from typing import Final, TypeAlias

from overlay import limits
from overlay.errors import OverlayError
from overlay.kernel import netns
from overlay.kernel.netlink import codec
from overlay.kernel.netlink.codec import attribute
from overlay.kernel.netlink.socket import LostNotificationsError, NetlinkSocket, namespace_id
from overlay.kernel.sandbox.kernel_support import effective_capabilities

_Identity: TypeAlias = tuple[int, int]

_CAP_NET_BROADCAST: Final = 11  # linux/capability.h
_SOL_NETLINK: Final = 270  # linux/netlink.h
_NETLINK_ADD_MEMBERSHIP: Final = 1
_NETLINK_LISTEN_ALL_NSID: Final = 8
_NETLINK_NETFILTER: Final = 12
_SO_RCVBUFFORCE: Final = 33  # asm-generic/socket.h
_NETNSA_NSID: Final = 1  # linux/net_namespace.h
_NETNSA_FD: Final = 3
_ID: Final = struct.Struct("=i")
_ANCILLARY_SIZE: Final = socket.CMSG_SPACE(_ID.size)
_ANY_ID: Final = _ID.pack(-1)  # the kernel chooses
_GROUPS: Final = (
    codec.RTNLGRP_LINK,
    codec.RTNLGRP_IPV4_IFADDR,
    codec.RTNLGRP_IPV6_IFADDR,
    codec.RTNLGRP_IPV4_ROUTE,
    codec.RTNLGRP_IPV6_ROUTE,
)
_RULE_GROUPS: Final = (7,)  # NFNLGRP_NFTABLES, linux/netfilter/nfnetlink.h


class ContainerMonitor:
    """Watches the namespaces of some containers.

    Wait until `fileno` is readable, then call `changed`. All else is for the kernel thread.
    """

    def __init__(self) -> None:
        self._followed: dict[int, _Identity] = {}  # by id
        self.strangers_heard = 0  # calls of `changed` that found others' notifications
        with ExitStack() as undo, netns.temporary() as netns_fd:
            self._ids = undo.enter_context(NetlinkSocket(netns_fd))
            self._waiting = undo.enter_context(select.epoll())
            with netns.inside(netns_fd):
                events = undo.enter_context(_listen(socket.NETLINK_ROUTE, _GROUPS))
                self._events = {events.fileno(): events}
                with suppress(OSError):  # a kernel without nftables
                    rules = undo.enter_context(_listen(_NETLINK_NETFILTER, _RULE_GROUPS))
                    self._events[rules.fileno()] = rules
            for descriptor in self._events:
                self._waiting.register(descriptor, select.EPOLLIN)
            self._open = undo.pop_all()

    @classmethod
    def open(cls) -> ContainerMonitor | None:
        """Return a monitor; None if this process may not be told, or the host is short of memory.

        Whoever hears nothing has to look.
        """
        if not effective_capabilities() >> _CAP_NET_BROADCAST & 1:
            return None
        try:
            return cls()
        except OSError:
            return None

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when notifications wait."""
        return self._waiting.fileno()

    def close(self) -> None:
        """Stop watching."""
        self._open.close()

    def follow(self, containers: Iterable[tuple[str, _Identity]]) -> set[_Identity]:
        """Watch some containers as well, each by its path and identity.

        Returns them without those that could not be opened; one that has ended is not among these.
        To follow one again is right: its namespace may have ended, and another have its identity.
        """
        found = set()
        for path, identity in containers:
            with suppress(OverlayError, OSError):
                netns_fd = netns.open_same(path, identity)
                if netns_fd is not None:
                    with netns.closing(netns_fd):
                        self._followed[self._id_of(netns_fd)] = identity
                found.add(identity)
        return found

    def keep(self, identities: Collection[_Identity]) -> None:
        """Watch none but these; the kernel tells of others as long as the monitor is open."""
        kept = self._followed.items()
        self._followed = {number: each for number, each in kept if each in identities}

    def changed(self) -> set[_Identity]:
        """Return the containers of which notifications wait; never blocks.

        Raises LostNotificationsError after the kernel has dropped some: any may have changed.
        """
        found: set[int] = set()
        followed = self._followed  # the kernel thread may replace it
        lost = [not _read(self._events[each], found) for each, _ in self._waiting.poll(0)]
        self.strangers_heard += not found <= followed.keys()
        if any(lost):
            raise LostNotificationsError
        return {followed[number] for number in found if number in followed}

    def _id_of(self, netns_fd: int) -> int:
        """Return the id of a namespace, which gets one if it has none."""
        found = namespace_id(self._ids, netns_fd)
        if found < 0:
            body = attribute(_NETNSA_NSID, _ANY_ID) + attribute(_NETNSA_FD, _ID.pack(netns_fd))
            self._ids.request((codec.RTM_NEWNSID, 0, bytes(4) + body))
            found = namespace_id(self._ids, netns_fd)
        return found


def sender_in(ancillary: Iterable[tuple[int, int, bytes]]) -> set[int]:
    """Return the id of the namespace that a message is of; nothing for the socket's own."""
    return {
        _ID.unpack(data)[0]
        for level, kind, data in ancillary
        if (level, kind) == (_SOL_NETLINK, _NETLINK_LISTEN_ALL_NSID)
    }


def _read(events: socket.socket, found: set[int]) -> bool:
    """Add the namespaces of which notifications wait; return False if the kernel dropped some."""
    is_whole = True
    for _ in range(limits.CONTAINER_CHANGES_READ_MAX):
        try:
            # Of the message a single byte: the rest is cut off.
            _, ancillary, _, _ = events.recvmsg(1, _ANCILLARY_SIZE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            break
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            is_whole = False  # and the kernel drops all others until none waits
        else:
            found |= sender_in(ancillary)
    return is_whole


def _listen(protocol: int, groups: Iterable[int]) -> socket.socket:
    events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    try:
        events.setsockopt(_SOL_NETLINK, _NETLINK_LISTEN_ALL_NSID, 1)
        # Half of what the kernel makes of it, socket(7).
        size = limits.CONTAINER_CHANGES_BUFFER_SIZE // 2
        events.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
        events.bind((0, 0))
        for group in groups:
            events.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
    except BaseException:
        events.close()
        raise
    return events
