"""The UDP transport: moves datagrams and time between the event loop and the protocol node.

Owns: the UDP socket, the one timer, the loop-lag measurement. Does not: interpret messages.
Datagrams are read in a bounded loop per readiness event: asyncio's own datagram endpoint reads one
per turn of the loop and is nine times slower.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import ipaddress
import math
import socket
import sys
from collections import deque
from collections.abc import Iterable
from typing import TypeAlias

from overlay import limits
from overlay.core.dataplane.underlay_filter import ArrivalPath
from overlay.core.events import DuplicateIdentity, Event, ForgottenBy, OtherVersion
from overlay.core.node import Node
from overlay.core.protocol.interfaces import Codec
from overlay.errors import ConflictError, OverlayError, RemoteError
from overlay.model import Ip, NodeId
from overlay.signals import Signal
from overlay.wire.admission.messages import is_join_kind
from overlay.wire.codec.datagram import OTHER_VERSION, Datagram, UdpEndpoint, read_kind
from overlay.wire.identity.keyring import ClusterKey
from overlay.wire.session.opened_datagram import OpenedDatagram
from overlay.wire.session.sessions import Sessions

_LAG_LOGGED_S = 0.1
# ip(7), ipv6(7) and linux/in.h: use the interface's MTU, and ignore ICMP messages that say
# "fragmentation needed", which anyone can forge. No datagram is larger than every link carries.
_PATH_MTU_OF_INTERFACE = 4
_PATH_MTU_OPTION = {
    socket.AF_INET: (socket.IPPROTO_IP, 10),  # IP_MTU_DISCOVER
    socket.AF_INET6: (socket.IPPROTO_IPV6, 23),  # IPV6_MTU_DISCOVER
}
# Each datagram comes with the index of its interface: in_pktinfo begins with it, in6_pktinfo has
# the address first.
_IP_PKTINFO, _IPV6_PKTINFO = 8, 50
_PACKET_INFO_OPTION = {
    socket.AF_INET: (socket.IPPROTO_IP, _IP_PKTINFO),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 49),  # IPV6_RECVPKTINFO
}
_INDEX_IN = {_IP_PKTINFO: slice(0, 4), _IPV6_PKTINFO: slice(16, 20)}
_CONTROL_SIZE = socket.CMSG_SPACE(20)
_Control: TypeAlias = list[tuple[int, int, bytes]]  # as recvmsg(2) returns it


class Transport:
    """Feeds the node with datagrams and time, and sends its messages.

    Signals, each emitted on the event loop:
    `event_occurred`: an event of the node or of its sessions, in order;
    `session_opened`: the peer of a session that was just established;
    `key_received`: a cluster key, and the member that sent it;
    `path_used`: the interface and address through which a member's datagram came, each at
    most every `ARRIVAL_PATH_RENEWAL_S`;
    `join_datagram_received`: a datagram of the join handshake, from a host that is no member yet;
    a handler may raise RemoteError, whose reason is counted as a drop.
    """

    def __init__(
        self, node: Node, sessions: Sessions, codec: Codec, endpoint: tuple[Ip, int]
    ) -> None:
        self.event_occurred: Signal[[Event]] = Signal()
        self.session_opened: Signal[[NodeId]] = Signal()
        self.key_received: Signal[[NodeId, ClusterKey]] = Signal()
        self.path_used: Signal[[ArrivalPath]] = Signal()
        self.join_datagram_received: Signal[[bytes]] = Signal()
        self.node = node
        self.sessions = sessions
        self.drops: collections.Counter[str] = collections.Counter()
        self.received = 0
        self.sent = 0
        self.lag = LoopLag()
        self._codec = codec
        self._loop = asyncio.get_running_loop()
        self._port = endpoint[1]
        self._socket = bind_socket(endpoint)
        self._buffer = bytearray(limits.DATAGRAM_SIZE_MAX + 1)
        self._timer: asyncio.TimerHandle | None = None
        self._flush_due = False
        self._paths: dict[tuple[NodeId, ArrivalPath], float] = {}  # when announced last

    def start(self) -> None:
        """Start reading datagrams and running the timer."""
        self._loop.add_reader(self._socket, self._on_readable)
        self.flush()

    def close(self) -> None:
        """Close the socket and cancel the timer; the node itself is untouched."""
        self._loop.remove_reader(self._socket)
        self._socket.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def rebind(self, address: Ip) -> None:
        """Switch to another address; raises OverlayError, and keeps the old one, if bind fails."""
        opened = bind_socket((address, self._port))
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._socket = opened
        self._loop.add_reader(self._socket, self._on_readable)

    def now(self) -> float:
        """Return the node's time: seconds of the event loop's clock."""
        return self._loop.time()

    # --- in -----------------------------------------------------------------------------

    def _on_readable(self) -> None:
        view = memoryview(self._buffer)
        buffers = [self._buffer]
        now = self.now()
        for _ in range(limits.RECEIVE_BATCH_COUNT):
            if self.now() - now > limits.RECEIVE_BATCH_S:
                break  # expensive datagrams must not starve timers and the API
            try:
                size, control, _, source = self._socket.recvmsg_into(buffers, _CONTROL_SIZE)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                # A queued ICMP error (port unreachable) surfaces here and carries no news.
                continue
            self.received += 1
            data = bytes(view[:size])
            place = UdpEndpoint(
                Ip(ipaddress.ip_address(source[0].partition("%")[0]).packed), source[1]
            )
            try:
                self._handle_datagram(data, place, control, now)
            except RemoteError as error:
                self.drops[error.reason] += 1
                if error.reason == OTHER_VERSION:
                    self._note_version(data[0], place)
        self.flush()

    def _note_version(self, version: int, source: UdpEndpoint) -> None:
        """Report a member's address from which datagrams of another version come."""
        node_id = self.sessions.member_at(source)
        if node_id is not None:
            self.event_occurred.emit(OtherVersion(node_id, version))

    def _handle_datagram(
        self, data: bytes, source: UdpEndpoint, control: _Control, now: float
    ) -> None:
        if is_join_kind(read_kind(data)):
            admitted, cookies = self.sessions.admit(data, source, now)
            self.send(cookies)
            if admitted:
                self.join_datagram_received.emit(admitted)
            return
        opened = self.sessions.open(data, source, now)
        self.send(opened.replies)
        if opened.payload is not None:
            self._note_path(opened.sender, source.address, control, now)
        self._handle_opened(opened, now)

    def _handle_opened(self, opened: OpenedDatagram, now: float) -> None:
        if opened.dropped:
            self.drops[opened.dropped] += 1
        if opened.is_banned:
            self.event_occurred.emit(ForgottenBy(opened.sender))
        if opened.key is not None:
            self.key_received.emit(opened.sender, opened.key)
        if opened.duplicate is not None:
            twin = opened.duplicate
            self.event_occurred.emit(DuplicateIdentity(twin.node_id, twin.address))
        if opened.card is not None:
            self.node.add_peer(opened.card, now)
            self.session_opened.emit(opened.card.node_id)
        if opened.payload is None:
            return
        for message in self._codec.decode(opened.payload):
            try:
                self.node.receive(message, opened.sender, now)
            except RemoteError as error:
                # One bad message must not discard the good ones beside it.
                self.drops[error.reason] += 1

    def _note_path(self, sender: NodeId, address: Ip, control: _Control, now: float) -> None:
        """Announce the interface through which a member's datagrams come from its own address."""
        for _, kind, data in control:
            interface = int.from_bytes(data[_INDEX_IN[kind]], sys.byteorder)
            path = (sender, ArrivalPath(interface, address))
            announced_at = self._paths.get(path, -math.inf)
            is_due = now - announced_at >= limits.ARRIVAL_PATH_RENEWAL_S
            card = self.node.store.card(sender) if is_due else None
            if card is not None and card.address == address:
                if len(self._paths) >= limits.ARRIVAL_PATHS_MAX:
                    self._paths.clear()
                self._paths[path] = now
                self.path_used.emit(path[1])

    # --- out ----------------------------------------------------------------------------

    def flush_soon(self) -> None:
        """Flush once in this turn of the loop, however often this is called."""
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Emit the node's events, send its messages and arm the timer."""
        self._flush_due = False
        if self._socket.fileno() < 0:
            return
        now = self.now()
        while (event := self.node.next_event()) is not None:
            self.event_occurred.emit(event)
        for outgoing in self.node.outbox.drain(self.node.membership):
            self.send(self.sessions.seal(outgoing.to, outgoing.payload, now))
        self._arm(now)

    def send_join_hello(self, address: Ip, port: int) -> None:
        """Start a session with an address whose node is not known."""
        self.send(self.sessions.first_hello(address, port, self.now()))

    def send_key(self, to: NodeId) -> None:
        """Send this node's newest cluster key to a member."""
        self.send(self.sessions.send_key(to, self.now()))

    def keys_changed(self) -> None:
        """Send the datagrams that waited for a key of the keyring."""
        self.send(self.sessions.keys_changed(self.now()))

    def send(self, datagrams: Iterable[Datagram]) -> None:
        """Send datagrams as they are; losses are not reported."""
        for datagram in datagrams:
            target = (str(ipaddress.ip_address(bytes(datagram.address))), datagram.port)
            # A full socket buffer or a downed interface loses a datagram, as any network may.
            with contextlib.suppress(OSError):
                self._socket.sendto(datagram.data, target)
                self.sent += 1

    def _arm(self, now: float) -> None:
        due = self.sessions.next_timer()
        node_due = self.node.next_timer()
        if node_due is not None:
            due = min(due, node_due)
        # A timer that was due before it was set is not late: lag counts from now.
        when = max(due, now)
        if self._timer is not None:
            if self._timer.when() == when:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._on_timer, when)

    def _on_timer(self, due: float) -> None:
        now = self.now()
        # It runs again even if an exception ends this; else `flush` replaces it.
        again = now + limits.CALLBACK_AGAIN_S
        self._timer = self._loop.call_at(again, self._on_timer, again)
        lag_s = now - due
        self.lag.note(lag_s, now)
        if lag_s > _LAG_LOGGED_S:
            self.node.observe_lag(lag_s, now)
        self.node.handle_timer(now)
        if now >= self.sessions.next_timer():
            self.send(self.sessions.handle_timer(now))
        self.flush()


def bind_socket(endpoint: tuple[Ip, int]) -> socket.socket:
    """Return the UDP socket of an underlay address and port; raises OverlayError."""
    address, port = endpoint
    text = str(ipaddress.ip_address(bytes(address)))
    family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
    opened = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, limits.SOCKET_BUFFER_SIZE)
    opened.setsockopt(*_PATH_MTU_OPTION[family], _PATH_MTU_OF_INTERFACE)
    opened.setsockopt(*_PACKET_INFO_OPTION[family], 1)
    try:
        opened.bind((text, port))
    except OSError as error:
        opened.close()
        if error.errno == 98:  # EADDRINUSE
            raise ConflictError(
                f"UDP port {port} on {text} is in use by another program",
                hint=f"'ss -ulpn sport = :{port}' shows which; a new cluster can use another "
                "port: overlayd join --gossip-port N",
            ) from error
        raise OverlayError(
            f"cannot bind the gossip socket to {text} port {port}",
            why=str(error.strerror),
            hint="Choose the underlay address with --underlay ADDRESS|INTERFACE",
        ) from error
    return opened


LAG_WINDOW_S = 60


class LoopLag:
    """The largest lag of each of the last 60 seconds, in seconds."""

    def __init__(self) -> None:
        self._worst: deque[tuple[int, float]] = deque(maxlen=LAG_WINDOW_S)

    def note(self, lag_s: float, now: float) -> None:
        """Record one measurement, in seconds."""
        second = int(now)
        if self._worst and self._worst[-1][0] == second:
            lag_s = max(lag_s, self._worst.pop()[1])
        self._worst.append((second, lag_s))

    def max_s(self, now: float) -> float:
        """Return the largest lag of the last minute, in seconds."""
        return max((lag for second, lag in self._worst if second > now - LAG_WINDOW_S), default=0.0)
