"""Membership instances on a simulated network with loss and partitions."""

from __future__ import annotations

import heapq
import itertools
import random
import struct
from collections.abc import Callable, Collection

import pytest
from overlay import limits
from overlay.core.membership.machine import Membership
from overlay.core.protocol.member import MemberChanged, MembershipEvent
from overlay.core.protocol.messages import (
    Ack,
    MemberState,
    Message,
    Nack,
    Ping,
    PingRequest,
    Rumours,
)
from overlay.core.protocol.outbox import Outbox
from overlay.core.protocol.settings import ProtocolSettings
from overlay.model import NodeId

EPOCH = 1 << 20


class TableCodec:
    """Encodes a message as its index in a table, padded to its real size."""

    def __init__(self) -> None:
        self.table: list[Message] = []

    def encode(self, message: Message) -> bytes:
        """Return as many bytes as the real encoding has."""
        size = 6 + 46 * len(message.rumours) if isinstance(message, Rumours) else 32
        self.table.append(message)
        return struct.pack(">IH", len(self.table) - 1, size).ljust(size, b".")

    def decode(self, payload: bytes) -> list[Message]:
        """Return the encoded messages."""
        messages = []
        while payload:
            index, size = struct.unpack_from(">IH", payload)
            messages.append(self.table[index])
            payload = payload[size:]
        return messages


def name(number: int) -> NodeId:
    """Return the identity of the node with that number."""
    return NodeId(number.to_bytes(16, "big"))


class Host:
    """One node on the network, its membership and its events."""

    def __init__(self, net: Net, number: int, epoch: int) -> None:
        self.node_id = name(number)
        self.epoch = epoch
        self.outbox = Outbox(net.codec)
        self.membership = Membership(
            self.node_id,
            epoch * EPOCH,
            net.settings,
            random.Random(net.rng.getrandbits(64)),
            self.outbox,
            root_of=lambda _: 0,
            now=net.now,
        )
        self.events: list[tuple[float, MembershipEvent]] = []
        self.armed: float | None = None
        self.is_up = True

    def state_of(self, other: Host) -> MemberState | None:
        """Return the state that this host holds for another."""
        return self.membership.state_of(other.node_id)


class Net:
    """Virtual time and a network between hosts, determined by the seed."""

    def __init__(
        self,
        count: int,
        *,
        seed: int = 1,
        loss: float = 0.0,
        delay_s: float = 0.005,
        settings: ProtocolSettings | None = None,
    ) -> None:
        self.settings = settings or ProtocolSettings()
        self.codec = TableCodec()
        self.rng = random.Random(seed)
        self.now = 0.0
        self.loss = loss
        self.delay_s = delay_s
        self.slow_s: dict[NodeId, float] = {}  # extra delay of datagrams to and from a host
        self.cut: Callable[[NodeId, NodeId], bool] = lambda _from, _to: False
        self.sent_bytes = 0
        self._due: list[tuple[float, int, NodeId, NodeId, bytes]] = []
        self._ties = itertools.count()
        self.hosts = {name(number): Host(self, number, 1) for number in range(count)}
        for host in self.hosts.values():
            for other in self.hosts.values():
                host.membership.add(other.node_id, 0.0, other.epoch * EPOCH)
            self._pump(host)

    def __getitem__(self, number: int) -> Host:
        return self.hosts[name(number)]

    def up(self) -> list[Host]:
        """Return the running hosts."""
        return [host for host in self.hosts.values() if host.is_up]

    def crash(self, number: int) -> None:
        """Stop a host without notice."""
        self[number].is_up = False

    def restart(self, number: int) -> None:
        """Restart a host without its state.

        It keeps its identity and peers, and has the next epoch.
        """
        host = Host(self, number, self[number].epoch + 1)
        for other in self.hosts.values():
            host.membership.add(other.node_id, self.now, other.epoch * EPOCH)
        self.hosts[host.node_id] = host
        self._pump(host)

    def leave(self, number: int) -> None:
        """Let a host leave: its card has announced it to all."""
        self.do(number, lambda membership: membership.leave())
        for host in self.up():
            if host is not self[number]:
                host.membership.mark_left(name(number), self[number].epoch * EPOCH, self.now)
                self._pump(host)

    def do(self, number: int, action: Callable[[Membership], None]) -> None:
        """Call the membership of a host."""
        action(self[number].membership)
        self._pump(self[number])

    def run(self, duration_s: float) -> None:
        """Let some time pass."""
        self.run_until(lambda: False, duration_s)

    def run_until(self, reached: Callable[[], bool], within_s: float) -> bool:
        """Let time pass until the condition holds; False at the time limit."""
        end = self.now + within_s
        if reached():
            return True
        while self._due and self._due[0][0] <= end:
            self.now, _, to, sender, payload = heapq.heappop(self._due)
            host = self.hosts[to]
            if not host.is_up or (not payload and host.armed != self.now):
                continue
            if payload:
                self._deliver(host, sender, payload)
            else:
                host.armed = None
                host.membership.handle_timer(self.now)
            self._pump(host)
            if reached():
                return True
        self.now = end
        return False

    def views(self, of: Host) -> set[MemberState | None]:
        """Return the states that the other running hosts hold for a host."""
        return {host.state_of(of) for host in self.up() if host is not of}

    def all_hold(self, of: Host, state: MemberState) -> bool:
        """Return whether all other running hosts hold `of` in that state."""
        return self.views(of) == {state}

    def deaths(self, of: Collection[NodeId]) -> list[tuple[float, NodeId, MembershipEvent]]:
        """Return when and where these nodes were declared dead."""
        return [
            (when, host.node_id, event)
            for host in self.hosts.values()
            for when, event in host.events
            if isinstance(event, MemberChanged)
            and event.after == MemberState.DEAD
            and event.node_id in of
        ]

    def in_harmony(self) -> bool:
        """Return whether all running hosts consider each other alive."""
        return all(self.views(host) <= {MemberState.ALIVE} for host in self.up())

    def _deliver(self, host: Host, sender: NodeId, payload: bytes) -> None:
        membership, now = host.membership, self.now
        for message in self.codec.decode(payload):
            match message:
                case Ping():
                    membership.receive_ping(message, sender, now)
                case Ack():
                    membership.receive_ack(message, sender, now)
                case PingRequest():
                    membership.receive_ping_request(message, sender, now)
                case Nack():
                    membership.receive_nack(message, sender, now)
                case Rumours():
                    membership.receive_rumours(message, sender, now)
                case _:
                    raise AssertionError(message)

    def _pump(self, host: Host) -> None:
        for to, payload in host.outbox.drain(host.membership):
            assert 0 < len(payload) <= limits.PAYLOAD_SIZE_MAX
            self.sent_bytes += len(payload) + limits.SESSION_HEADER_SIZE + limits.TAG_SIZE + 28
            if self.cut(host.node_id, to) or self.rng.random() < self.loss:
                continue
            slow_s = self.slow_s.get(host.node_id, 0) + self.slow_s.get(to, 0)
            when = self.now + self.delay_s * (0.5 + self.rng.random()) + slow_s
            heapq.heappush(self._due, (when, next(self._ties), to, host.node_id, payload))
        host.events += [(self.now, event) for event in host.membership.drain_events()]
        when_due = host.membership.next_timer()
        if when_due is None:
            host.armed = None
        elif host.armed is None or when_due != host.armed:
            host.armed = max(when_due, self.now)
            entry = (host.armed, next(self._ties), host.node_id, host.node_id, b"")
            heapq.heappush(self._due, entry)


@pytest.fixture(scope="session")
def new_net() -> type[Net]:
    """Return the class of these networks, of which each test makes its own."""
    return Net


@pytest.fixture(scope="session")
def codec() -> TableCodec:
    """Return a codec whose messages have their real sizes."""
    return TableCodec()
