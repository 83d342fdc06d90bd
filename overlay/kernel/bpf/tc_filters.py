"""tc filters that run a program on the frames that enter or leave by an interface.

Owns: the netlink messages of clsact and cls_bpf (tc-bpf(8), linux/pkt_cls.h). A filter holds its
program, and a program its maps, so they survive the agent.
Does not: send anything.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from overlay.kernel.netlink import codec
from overlay.kernel.netlink.codec import NetlinkMessage, Request, attribute, attributes

_HEADER: Final = struct.Struct("=BxxxiIII")  # family, index, handle, parent, info
HEADER_SIZE: Final = 20
QDISC_DUMP: Final = bytes(HEADER_SIZE)
_CLSACT_HANDLE: Final = 0xFFFF0000
_CLSACT_PARENT: Final = 0xFFFFFFF1
_INGRESS: Final = 0xFFFFFFF2  # TC_H_CLSACT, TC_H_MIN_INGRESS
_EGRESS: Final = 0xFFFFFFF3
_PRIORITY: Final = 0x6F76  # overlayd's; an operator's filters before and after it are kept
_PROTOCOL_ALL: Final = 0x0300  # ETH_P_ALL in network order
_FILTER_HANDLE: Final = 1
_TCA_KIND, _TCA_OPTIONS = 1, 2
_TCA_INGRESS_BLOCK, _TCA_EGRESS_BLOCK = 13, 14
_CLSACT: Final = b"clsact\0"
_HOOK_KINDS: Final = (_CLSACT, b"ingress\0")
_TCA_BPF_FD, _TCA_BPF_NAME, _TCA_BPF_FLAGS, _TCA_BPF_ID = 6, 7, 8, 11
_DIRECT_ACTION: Final = 1
_U32: Final = struct.Struct("=I")


def add_clsact(index: int) -> Request:
    """Return the request that adds the clsact hooks to an interface.

    EEXIST is harmless.
    """
    flags = codec.NLM_F_CREATE | codec.NLM_F_EXCL
    head = _HEADER.pack(0, index, _CLSACT_HANDLE, _CLSACT_PARENT, 0)
    return (codec.RTM_NEWQDISC, flags, head + attribute(_TCA_KIND, _CLSACT))


def delete_clsact(index: int) -> Request:
    """Return the request that removes the clsact hooks from an interface, with all filters."""
    head = _HEADER.pack(0, index, _CLSACT_HANDLE, _CLSACT_PARENT, 0)
    return (codec.RTM_DELQDISC, 0, head + attribute(_TCA_KIND, _CLSACT))


def put_filter(
    index: int,
    program_fd: int,
    name: str,
    *,
    leaving: bool = False,
    handle: int = _FILTER_HANDLE,
    priority: int = _PRIORITY,
) -> Request:
    """Return the request that attaches a program, or replaces that of the same handle."""
    options = (
        attribute(_TCA_BPF_FD, _U32.pack(program_fd))
        + attribute(_TCA_BPF_NAME, name.encode("ascii") + b"\0")
        + attribute(_TCA_BPF_FLAGS, _U32.pack(_DIRECT_ACTION))
    )
    info = priority << 16 | _PROTOCOL_ALL
    head = _HEADER.pack(0, index, handle, _parent(leaving=leaving), info)
    body = head + attribute(_TCA_KIND, b"bpf\0") + attribute(_TCA_OPTIONS, options)
    return (codec.RTM_NEWTFILTER, codec.NLM_F_CREATE | codec.NLM_F_REPLACE, body)


def put_classifier(index: int, parent: int, program_fd: int, name: str) -> Request:
    """Return the request that has a program choose the class of packets in a queue, `parent`."""
    options = attribute(_TCA_BPF_FD, _U32.pack(program_fd)) + attribute(
        _TCA_BPF_NAME, name.encode("ascii") + b"\0"
    )
    info = _PRIORITY << 16 | _PROTOCOL_ALL
    head = _HEADER.pack(0, index, _FILTER_HANDLE, parent, info)
    body = head + attribute(_TCA_KIND, b"bpf\0") + attribute(_TCA_OPTIONS, options)
    return (codec.RTM_NEWTFILTER, codec.NLM_F_CREATE | codec.NLM_F_REPLACE, body)


def delete_filter(
    index: int, *, leaving: bool = False, handle: int = _FILTER_HANDLE, priority: int = _PRIORITY
) -> Request:
    """Return the request that removes overlayd's filter from an interface."""
    info = priority << 16 | _PROTOCOL_ALL
    head = _HEADER.pack(0, index, handle, _parent(leaving=leaving), info)
    return (codec.RTM_DELTFILTER, 0, head + attribute(_TCA_KIND, b"bpf\0"))


def filter_dump(index: int, *, leaving: bool = False, parent: int = 0) -> bytes:
    """Return the body of a dump request for an interface's filters, or those of its queue."""
    return _HEADER.pack(0, index, 0, parent or _parent(leaving=leaving), 0)


def _parent(*, leaving: bool) -> int:
    return _EGRESS if leaving else _INGRESS


class TcHooks(NamedTuple):
    """The hooks of an interface, as a queueing discipline.

    That of before clsact, `ingress`, has none for what is sent. Filters in a block that several
    interfaces share belong to none of them.
    """

    interface: int  # by index
    has_egress: bool
    is_shared: bool


def hooks_in(message: NetlinkMessage) -> TcHooks | None:
    """Return the hooks in a message; None for another queueing discipline."""
    found = attributes(message.buffer, message.start + HEADER_SIZE, message.end)
    kind = found.get(_TCA_KIND)
    if kind not in _HOOK_KINDS:
        return None
    is_shared = _TCA_INGRESS_BLOCK in found or _TCA_EGRESS_BLOCK in found
    return TcHooks(index_of(message), kind == _CLSACT, is_shared)


def index_of(message: NetlinkMessage) -> int:
    """Return the interface index of a filter or qdisc message."""
    index: int = _HEADER.unpack_from(message.buffer, message.start)[1]
    return index


def parent_of(message: NetlinkMessage) -> int:
    """Return the parent handle of a filter or qdisc message."""
    parent: int = _HEADER.unpack_from(message.buffer, message.start)[3]
    return parent


def is_filter(message: NetlinkMessage) -> bool:
    """Return whether a message of a dump is a filter, and not overlayd's list of some.

    Others' lists count: in some kinds a filter has no handle either.
    """
    _, _, handle, _, info = _HEADER.unpack_from(message.buffer, message.start)
    return bool(handle) or info != _PRIORITY << 16 | _PROTOCOL_ALL


class RunningFilter(NamedTuple):
    """One of overlayd's filters, as the kernel reports it."""

    handle: int
    name: str
    program: int  # its id


def running_program(message: NetlinkMessage, priority: int = _PRIORITY) -> int:
    """Return the id of the program that overlayd's filter runs.

    Returns 0 for any other filter.
    """
    found = running_filter(message, priority)
    return found.program if found is not None and found.handle == _FILTER_HANDLE else 0


def running_filter(message: NetlinkMessage, priority: int = _PRIORITY) -> RunningFilter | None:
    """Return the filter in a message; None if it is not at a priority of overlayd's."""
    _, _, handle, _, info = _HEADER.unpack_from(message.buffer, message.start)
    if info != priority << 16 | _PROTOCOL_ALL or not handle:
        return None
    found = attributes(message.buffer, message.start + HEADER_SIZE, message.end)
    options = found.get(_TCA_OPTIONS, b"")
    inside = attributes(options, 0, len(options))
    name = inside.get(_TCA_BPF_NAME, b"").rstrip(b"\0").decode("ascii", "replace")
    program = inside.get(_TCA_BPF_ID, bytes(4))
    return RunningFilter(handle, name, int(_U32.unpack(program)[0]))
