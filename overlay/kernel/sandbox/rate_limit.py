"""Rate limits of ports: token buckets for both directions.

Packets that a port sends go to its container: a token bucket is the port's root queueing discipline
(tc-tbf(8)). Packets that it receives have no queue, so they are redirected (tc-mirred(8)) through
an ifb device, one per port, whose queue is such a bucket; from there they continue as if the port
had just received them. So packets of both directions are delayed before any are dropped, with which
TCP copes far better than with policing. Container and bridge are unaffected.

Owns: reading and writing these queues, devices and filters as rows.
Does not: decide which rows are wanted; that is the planner's task.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from overlay import failpoint
from overlay.core.dataplane.link_state import PORT_PREFIX
from overlay.core.dataplane.operations import DeleteRow
from overlay.core.dataplane.state import RateRow
from overlay.errors import OverlayError
from overlay.kernel import netns
from overlay.kernel.bpf import tc_filters
from overlay.kernel.netlink import codec, link_requests
from overlay.kernel.netlink.codec import NetlinkMessage, Request, attribute, attributes
from overlay.kernel.netlink.link_lookup import find_link
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.kernel.row_operations import RefusedOperation, RowOperation, apply_each

SHAPER_PREFIX: Final = "sh"
"""Prefix of the ifb devices' names; the rest comes from the port's name."""
_BROKEN: Final = -1  # in a row that was read: a limit exists, but is incomplete or altered

# linux/pkt_sched.h, linux/pkt_cls.h, linux/tc_act/tc_mirred.h
_HEADER: Final = struct.Struct("=BxxxiIII")  # family, index, handle, parent, info
_TCA_KIND, _TCA_OPTIONS = 1, 2
_ROOT: Final = 0xFFFFFFFF
_HANDLE: Final = 0x6F760000  # overlayd's; other root disciplines are not touched
_TBF_PARAMETERS, _TBF_BURST = 1, 6
_RATE: Final = struct.Struct("=BBHhHI")  # cell log, link layer, overhead, align, mpu, bytes/s
_ETHERNET: Final = 1  # without a link layer the kernel requires a table of costs by size
_INGRESS: Final = 0xFFFFFFF2
_INFO: Final = 0x6F77 << 16 | 0x0300  # overlayd's priority, any protocol
_U32_SELECTOR, _U32_ACTION = 5, 7
_SELECTOR: Final = struct.pack("=BBBxHHhHI", 1, 0, 1, 0, 0, 0, 0, 0) + bytes(16)  # matches all
_ACTION_KIND, _ACTION_OPTIONS, _MIRRED_PARAMETERS = 1, 2, 2
_MIRRED: Final = struct.Struct("=IIiiiiI")  # index, capab, action, refs, binds, what, interface
_STOLEN, _REDIRECT = 4, 1
_U32: Final = struct.Struct("=I")

# A bucket holds 5 ms of its rate, but at least 16 KiB. Packets wait at most 100 ms for tokens; at
# low rates a few packets may wait longer.
_BURST_S, _BURST_SIZE_MIN = 0.005, 16 * 1024
_WAIT_S, _WAIT_SIZE_MIN = 0.1, 16 * 1024
_GONE: Final = frozenset({errno.ENOENT, errno.ENODEV, errno.EINVAL})


def shaper_name(port_name: str) -> str:
    """Return the name of a port's ifb device."""
    return SHAPER_PREFIX + port_name.removeprefix(PORT_PREFIX)


def port_of(shaper: str) -> str:
    """Return the name of the port that an ifb device belongs to."""
    return PORT_PREFIX + shaper.removeprefix(SHAPER_PREFIX)


def require() -> None:
    """Raise OverlayError unless this kernel can limit rates.

    Tested in a temporary namespace.
    """
    row = RateRow("lo", 1_000_000, 1_000_000)
    with netns.temporary() as netns_fd, NetlinkSocket(netns_fd) as inside:
        try:
            _put(row, 1, inside)
        except OSError as error:
            raise OverlayError(
                "this kernel cannot limit rates",
                why=error.strerror or str(error),
                hint="Load the modules ifb, sch_tbf, sch_ingress, cls_u32 and act_mirred "
                "(modprobe); slim kernels keep them in a package such as linux-modules-extra",
            ) from error


# --- Writing ---------------------------------------------------------------------------


def apply(
    operations: Iterable[RowOperation], socket: NetlinkSocket, index_of: Callable[[str], int]
) -> list[RefusedOperation]:
    """Apply operations on rate limits.

    Returns those that failed, with the error. A missing port is not a failure here: the port's own
    operation reports it.
    """

    def apply_one(operation: RowOperation) -> None:
        row = operation.row
        assert isinstance(row, RateRow)
        failpoint.failpoint("shaping")
        index = index_of(row.link)
        if isinstance(operation, DeleteRow):
            _remove_in_limit(index, socket)
            _remove_out_limit(row.link, index, socket)
        elif index:
            _put(row, index, socket)

    return apply_each(operations, apply_one)


def _put(row: RateRow, index: int, socket: NetlinkSocket) -> None:
    if row.in_bits:
        socket.request(_put_bucket(index, row.in_bits))
    else:
        _remove_in_limit(index, socket)
    if not row.out_bits:
        _remove_out_limit(row.link, index, socket)
        return
    name = shaper_name(row.link)
    socket.request(link_requests.create_device(name, "ifb"), harmless={errno.EEXIST})
    shaper = find_link(socket, name)
    for request in (link_requests.set_up(shaper), _put_bucket(shaper, row.out_bits)):
        socket.request(request)
    socket.request(tc_filters.add_clsact(index), harmless={errno.EEXIST})
    socket.request(_delete_redirect(index), harmless=_GONE)
    socket.request(_put_redirect(index, shaper))


def _remove_in_limit(index: int, socket: NetlinkSocket) -> None:
    if index:
        head = _HEADER.pack(0, index, _HANDLE, _ROOT, 0)
        socket.request((codec.RTM_DELQDISC, 0, head), harmless=_GONE)


def _remove_out_limit(port_name: str, index: int, socket: NetlinkSocket) -> None:
    if index:
        socket.request(_delete_redirect(index), harmless=_GONE)
    shaper = find_link(socket, shaper_name(port_name))
    if shaper:
        socket.request(link_requests.delete_link(shaper), harmless=_GONE)


def _sizes(bits_per_s: int) -> tuple[int, int]:
    """Return a bucket's depth and its queue's limit, in bytes."""
    depth = max(_BURST_SIZE_MIN, int(bits_per_s / 8 * _BURST_S))
    return depth, depth + max(_WAIT_SIZE_MIN, int(bits_per_s / 8 * _WAIT_S))


def _put_bucket(index: int, bits_per_s: int) -> Request:
    depth, limit = _sizes(bits_per_s)
    rate = _RATE.pack(0, _ETHERNET, 0, 0, 0, bits_per_s // 8)
    parameters = rate + bytes(_RATE.size) + struct.pack("=III", limit, 0, 0)
    options = attribute(_TBF_PARAMETERS, parameters) + attribute(_TBF_BURST, _U32.pack(depth))
    head = _HEADER.pack(0, index, _HANDLE, _ROOT, 0)
    body = head + attribute(_TCA_KIND, b"tbf\0") + attribute(_TCA_OPTIONS, options)
    return (codec.RTM_NEWQDISC, codec.NLM_F_CREATE | codec.NLM_F_REPLACE, body)


def _put_redirect(index: int, shaper: int) -> Request:
    mirred = attribute(_MIRRED_PARAMETERS, _MIRRED.pack(0, 0, _STOLEN, 0, 0, _REDIRECT, shaper))
    action = attribute(_ACTION_KIND, b"mirred\0") + attribute(_ACTION_OPTIONS, mirred)
    options = attribute(_U32_SELECTOR, _SELECTOR) + attribute(_U32_ACTION, attribute(1, action))
    head = _HEADER.pack(0, index, 0, _INGRESS, _INFO)
    body = head + attribute(_TCA_KIND, b"u32\0") + attribute(_TCA_OPTIONS, options)
    return (codec.RTM_NEWTFILTER, codec.NLM_F_CREATE | codec.NLM_F_EXCL, body)


def _delete_redirect(index: int) -> Request:
    return (codec.RTM_DELTFILTER, 0, _HEADER.pack(0, index, 0, _INGRESS, _INFO))


# --- Reading ---------------------------------------------------------------------------


def read(socket: NetlinkSocket, names: Mapping[int, str]) -> set[RateRow]:
    """Return the limits in force, in bits per second.

    An incomplete one is negative. `names` are all links of the sandbox by index. An ifb device
    without its port is returned as a limit of that port.
    """
    shapers = {name: index for index, name in names.items() if name.startswith(SHAPER_PREFIX)}
    dumped = socket.dump(codec.RTM_GETQDISC, tc_filters.QDISC_DUMP)
    buckets = {index: bits for index, bits in map(bucket_of, dumped) if bits}
    if not shapers and not buckets:
        return set()
    found = set()
    for index, name in names.items():
        if not name.startswith(PORT_PREFIX):
            continue
        shaper = shapers.pop(shaper_name(name), 0)
        in_bits, out_bits = buckets.get(index, 0), 0
        if shaper:
            whole = _redirect(socket, index) == shaper
            out_bits = buckets.get(shaper, _BROKEN) if whole else _BROKEN
        if in_bits or out_bits:
            found.add(RateRow(name, in_bits, out_bits))
    found.update(RateRow(port_of(name), 0, _BROKEN) for name in shapers)
    return found


def bucket_of(message: NetlinkMessage) -> tuple[int, int]:
    """Return the interface and rate of overlayd's bucket.

    The rate is 0 for any other discipline.
    """
    _, index, handle, parent, _ = _HEADER.unpack_from(message.buffer, message.start)
    if handle != _HANDLE or parent != _ROOT:
        return index, 0
    found = attributes(message.buffer, message.start + _HEADER.size, message.end)
    options = found.get(_TCA_OPTIONS, b"")
    parameters = attributes(options, 0, len(options)).get(_TBF_PARAMETERS)
    if found.get(_TCA_KIND) != b"tbf\0" or parameters is None:
        return index, _BROKEN
    bits = 8 * _RATE.unpack_from(parameters)[5]
    (limit,) = _U32.unpack_from(parameters, 2 * _RATE.size)
    return index, bits if limit == _sizes(bits)[1] else _BROKEN


def _redirect(socket: NetlinkSocket, index: int) -> int:
    """Return the index of a port's redirection target; 0 if there is none."""
    for message in socket.dump(codec.RTM_GETTFILTER, tc_filters.filter_dump(index)):
        _, _, _, _, info = _HEADER.unpack_from(message.buffer, message.start)
        found = attributes(message.buffer, message.start + _HEADER.size, message.end)
        inner = found.get(_TCA_OPTIONS, b"")
        for kind in (_U32_ACTION, 1, _ACTION_OPTIONS, _MIRRED_PARAMETERS):
            inner = attributes(inner, 0, len(inner)).get(kind, b"")
        if info == _INFO and len(inner) >= _MIRRED.size:
            return int(_MIRRED.unpack_from(inner)[6])
    return 0


# --- Watching --------------------------------------------------------------------------


def contradiction(
    message: NetlinkMessage, name: str, wanted: Callable[[str], RateRow | None]
) -> str | None:
    """Return how a notification contradicts a limit; None if it does not.

    `name` is that of the interface, `wanted` returns a port's limit. The agent's own changes are
    notified too.
    """
    gone = message.kind in {codec.RTM_DELQDISC, codec.RTM_DELTFILTER}
    _, _, _, parent, info = _HEADER.unpack_from(message.buffer, message.start)
    if parent != _ROOT and not gone:
        return None  # the most frequent case: hooks of the fast path
    row = wanted(port_of(name) if name.startswith(SHAPER_PREFIX) else name)
    if row is None:
        return None
    if parent == _ROOT:
        bits = row.in_bits if name == row.link else row.out_bits
        _, notified = bucket_of(message)
        wrong = bits and (notified == bits if gone else notified != bits)
        return f"the rate of {name} was altered" if wrong else None
    whole = row.out_bits and (info == _INFO or parent != _INGRESS)
    return f"the redirection of {name} is gone" if whole else None
