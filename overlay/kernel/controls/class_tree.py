"""The queue of a shared rate: a tree of HTB classes (tc-htb(8)) at one interface.

The root class has the rate. Below it each priority has a class with a small guaranteed part of it,
and that has leaves, among which its containers are spread. A leaf may borrow all that is left;
of those that want to, the ones with the highest priority are served first, and equal ones take
turns. HTB calls the highest priority 0.

Owns: the messages that make and change this tree, and comparing what the kernel has with it.
Does not: choose the leaf of a packet (`shared_rate`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from overlay.core.dataplane.controls.priority import HIGHEST
from overlay.kernel.bpf import tc_filters
from overlay.kernel.netlink import codec
from overlay.kernel.netlink.codec import NetlinkMessage, Request, attribute, attributes
from overlay.kernel.netlink.socket import NetlinkSocket

HANDLE: Final = 0x6F780000  # overlayd's; other root disciplines are replaced
BROKEN: Final = -1
"""In place of a rate that was read: the tree is incomplete or altered."""
LEAVES: Final = 16  # of each priority
_ROOT_CLASS, _INNER, _FIRST_LEAF = 0x001, 0x010, 0x100
_GUARANTEE: Final = 32  # a priority is sure of this part of the rate: all together of a quarter

# linux/pkt_sched.h
_HEADER: Final = struct.Struct("=BxxxiIII")  # family, index, handle, parent, info
_KIND, _OPTIONS = 1, 2
_ROOT: Final = 0xFFFFFFFF
_HTB_PARAMETERS, _HTB_INIT = 1, 2
_GLOBAL: Final = struct.Struct("=IIIII")  # version, rate to quantum, default class, debug, packets
_VERSION, _RATE_TO_QUANTUM = 3, 10
_RATE: Final = struct.Struct("=BBHhHI")  # cell log, link layer, overhead, align, mpu, bytes/s
_ETHERNET: Final = 1  # without a link layer the kernel requires a table of costs by size
_CLASS: Final = struct.Struct("=IIIII")  # buffer, buffer of the ceiling, quantum, level, priority
_U32: Final = struct.Struct("=I")
_STATISTICS, _OF_QUEUE = 7, 3  # TCA_STATS2, TCA_STATS_QUEUE (linux/gen_stats.h)
_QUEUE: Final = struct.Struct("=IIIII")  # length, backlog, drops, requeues, overlimits
_TICK_NS: Final = 64
_TICKS_MAX: Final = 2**32 - 1

# What may leave at once at the full rate, and in one turn of a leaf: a packet at least. How much
# may wait at a leaf: two of the largest packets at least, which TCP hands over unsegmented.
_BURST_S, _BURST_SIZE_MIN = 0.005, 16 * 1024
_TURN_S, _TURN_SIZE_MIN, _TURN_SIZE_MAX = 0.01, 1600, 64 * 1024
_WAIT_S, _WAIT_SIZE_MIN = 0.1, 128 * 1024
_PACKET_SIZE: Final = 1600


class _Class(NamedTuple):
    """A class as the kernel reports it; what counts for leaves only is 0 for others."""

    parent: int
    rate: int  # bytes per second
    ceiling: int
    quantum: int = 0  # bytes
    order: int = 0  # 0 is served first


def leaf(priority: int, number: int = 0) -> int:
    """Return the identifier of a leaf: its classid."""
    return HANDLE | (_FIRST_LEAF + LEAVES * priority + number)


def _classes(bits: int) -> dict[int, _Class]:
    """Return the classes of a rate by identifier, parents first."""
    rate = bits // 8
    inner, own = max(1, rate // _GUARANTEE), max(1, rate // _GUARANTEE // LEAVES)
    turn = min(max(_TURN_SIZE_MIN, int(rate * _TURN_S)), _TURN_SIZE_MAX)
    root = HANDLE | _ROOT_CLASS
    found = {root: _Class(HANDLE, rate, rate)}
    for priority in range(HIGHEST + 1):
        parent = HANDLE | (_INNER + priority)
        found[parent] = _Class(root, inner, rate)
        for number in range(LEAVES):
            found[leaf(priority, number)] = _Class(parent, own, rate, turn, HIGHEST - priority)
    return found


def _limit(bits: int) -> int:
    """Return how many bytes may wait at a leaf."""
    return max(_WAIT_SIZE_MIN, int(bits / 8 * _WAIT_S))


# --- Writing ---------------------------------------------------------------------------


def create(index: int) -> Request:
    """Return the request that makes the queue of an interface a tree without classes."""
    glob = _GLOBAL.pack(_VERSION, _RATE_TO_QUANTUM, leaf(0) & 0xFFFF, 0, 0)
    head = _HEADER.pack(0, index, HANDLE, _ROOT, 0)
    options = attribute(_OPTIONS, attribute(_HTB_INIT, glob))
    body = head + attribute(_KIND, b"htb\0") + options
    return (codec.RTM_NEWQDISC, codec.NLM_F_CREATE | codec.NLM_F_REPLACE, body)


def delete(index: int) -> Request:
    """Return the request that removes the tree, with its classes and filters."""
    return (codec.RTM_DELQDISC, 0, _HEADER.pack(0, index, HANDLE, _ROOT, 0))


def put_classes(index: int, bits: int) -> Iterator[Request]:
    """Return the requests that make or change all classes; nothing that waits is lost."""
    for identifier, each in _classes(bits).items():
        yield _put_class(index, identifier, each)
        if each.quantum:
            yield _put_queue(index, identifier, _limit(bits))


def _put_class(index: int, identifier: int, each: _Class) -> Request:
    burst = max(_BURST_SIZE_MIN, int(each.ceiling * _BURST_S))
    own = _PACKET_SIZE if each.quantum else burst
    options = (
        _RATE.pack(0, _ETHERNET, 0, 0, 0, each.rate)
        + _RATE.pack(0, _ETHERNET, 0, 0, 0, each.ceiling)
        + _CLASS.pack(
            _ticks(own, each.rate), _ticks(burst, each.ceiling), each.quantum, 0, each.order
        )
    )
    head = _HEADER.pack(0, index, identifier, each.parent, 0)
    parameters = attribute(_OPTIONS, attribute(_HTB_PARAMETERS, options))
    body = head + attribute(_KIND, b"htb\0") + parameters
    return (codec.RTM_NEWTCLASS, codec.NLM_F_CREATE | codec.NLM_F_REPLACE, body)


def _put_queue(index: int, identifier: int, limit: int) -> Request:
    head = _HEADER.pack(0, index, 0, identifier, 0)
    body = head + attribute(_KIND, b"bfifo\0") + attribute(_OPTIONS, _U32.pack(limit))
    return (codec.RTM_NEWQDISC, codec.NLM_F_CREATE | codec.NLM_F_REPLACE, body)


def _ticks(size: int, rate: int) -> int:
    return min(size * 1_000_000_000 // rate // _TICK_NS, _TICKS_MAX)


# --- Reading ---------------------------------------------------------------------------


def read(socket: NetlinkSocket) -> dict[int, int]:
    """Return the rates of all trees in bits per second, by index of the interface.

    `BROKEN` for one that is not as it was made.
    """
    queues = [*socket.dump(codec.RTM_GETQDISC, tc_filters.QDISC_DUMP)]
    found = {}
    for index in {tc_filters.index_of(each) for each in queues if is_tree(each)}:
        body = _HEADER.pack(0, index, 0, 0, 0)
        seen = dict(map(_class_of, socket.dump(codec.RTM_GETTCLASS, body)))
        bits = 8 * seen.get(HANDLE | _ROOT_CLASS, _Class(0, 0, 0)).rate
        waiting = dict(_limits(index, queues))
        whole = dict.fromkeys((key for key in seen if seen[key].quantum), _limit(bits))
        found[index] = bits if bits and seen == _classes(bits) and waiting == whole else BROKEN
    return found


def dropped(socket: NetlinkSocket) -> int:
    """Return how many frames all trees have dropped since they were made."""
    queues = filter(is_tree, socket.dump(codec.RTM_GETQDISC, tc_filters.QDISC_DUMP))
    return sum(map(_drops_of, queues))


def _drops_of(message: NetlinkMessage) -> int:
    found = attributes(message.buffer, message.start + _HEADER.size, message.end)
    statistics = found.get(_STATISTICS, b"")
    queue = attributes(statistics, 0, len(statistics)).get(_OF_QUEUE, b"")
    return int(_QUEUE.unpack_from(queue)[2]) if len(queue) >= _QUEUE.size else 0


def is_tree(message: NetlinkMessage) -> bool:
    """Return whether a message is about the root queue of an interface, and it is a tree."""
    _, _, handle, parent, _ = _HEADER.unpack_from(message.buffer, message.start)
    return bool(parent == _ROOT and handle == HANDLE)


def root_rate(message: NetlinkMessage) -> int:
    """Return the rate in a message about a tree's root class, in bits per second.

    Returns 0 for another class.
    """
    identifier, each = _class_of(message)
    return 8 * each.rate if identifier == HANDLE | _ROOT_CLASS else 0


def _class_of(message: NetlinkMessage) -> tuple[int, _Class]:
    _, _, identifier, parent, _ = _HEADER.unpack_from(message.buffer, message.start)
    found = attributes(message.buffer, message.start + _HEADER.size, message.end)
    inside = attributes(options := found.get(_OPTIONS, b""), 0, len(options))
    parameters = inside.get(_HTB_PARAMETERS, b"")
    if len(parameters) < 2 * _RATE.size + _CLASS.size:
        return identifier, _Class(parent, 0, 0)
    rate, ceiling = (_RATE.unpack_from(parameters, at)[5] for at in (0, _RATE.size))
    _, _, quantum, _, order = _CLASS.unpack_from(parameters, 2 * _RATE.size)
    own = HANDLE if parent == _ROOT else parent
    is_leaf = identifier & 0xFFFF >= _FIRST_LEAF
    return identifier, _Class(own, rate, ceiling, *((quantum, order) if is_leaf else ()))


def _limits(index: int, queues: Iterable[NetlinkMessage]) -> Iterator[tuple[int, int]]:
    """Yield how much may wait at each leaf of an interface that has its own queue."""
    for each in queues:
        _, where, _, parent, _ = _HEADER.unpack_from(each.buffer, each.start)
        found = attributes(each.buffer, each.start + _HEADER.size, each.end)
        if where == index and parent & 0xFFFF0000 == HANDLE and found.get(_KIND) == b"bfifo\0":
            yield parent, _U32.unpack_from(found.get(_OPTIONS, bytes(4)))[0]
