"""The programs at shortcuts' ends in the host's namespace, which send to remote containers.

A `HookRow` of a shortcut that is leaving names such a program. Ports send by a shortcut only while
it runs: their maps say so (`Wire`), and with which addresses.
"""

from __future__ import annotations

import errno
import string
from collections.abc import Iterable, Mapping
from typing import Final

from overlay.core.dataplane.link_state import SHORTCUT_PREFIX
from overlay.core.dataplane.operations import DeleteRow
from overlay.core.dataplane.state import HookRow, Row
from overlay.core.dataplane.tunnel_devices import DEVICE_BASES
from overlay.kernel import netns
from overlay.kernel.bpf import tc_filters
from overlay.kernel.bpf.fast_path import FastPath
from overlay.kernel.bpf.remote.maps import Wire
from overlay.kernel.netlink import codec, link_decoder, link_requests
from overlay.kernel.netlink.link_lookup import find_link
from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket
from overlay.kernel.row_operations import RefusedOperation, RowOperation, apply_each
from overlay.kernel.shortcut.pair import ShortcutPairs

_GONE: Final = frozenset({errno.ENOENT, errno.ENODEV, errno.EINVAL})


def split(
    operations: Iterable[RowOperation],
) -> tuple[list[RowOperation], list[RowOperation]]:
    """Return the operations on other rows, and those on such programs."""
    others: list[RowOperation] = []
    senders: list[RowOperation] = []
    for operation in operations:
        (senders if _is_sender(operation.row) else others).append(operation)
    return others, senders


def _is_sender(row: Row) -> bool:
    return isinstance(row, HookRow) and row.is_leaving and row.link.startswith(SHORTCUT_PREFIX)


def apply(
    fast: FastPath | None, operations: Iterable[RowOperation], pairs: ShortcutPairs
) -> list[RefusedOperation]:
    """Apply operations on such rows; return those that failed, with the error.

    A missing shortcut is no failure: its own operation reports it.
    """

    def apply_one(operation: RowOperation) -> None:
        row = operation.row
        assert isinstance(row, HookRow)
        if fast is not None:
            # The row of an earlier agent's program has no segment; its link has.
            fast.remote.disconnect(int(row.link.removeprefix(SHORTCUT_PREFIX)))
        if isinstance(operation, DeleteRow):
            _unhook(pairs, row.link)
        elif fast is not None:
            _hook(fast, pairs, row)

    return apply_each(operations, apply_one)


def _hook(fast: FastPath, pairs: ShortcutPairs, row: HookRow) -> None:
    end = pairs.host_ends.get(row.link, 0)
    if not end:
        return
    program = fast.sending_program(row.segment)
    request = tc_filters.put_filter(end, program, f"overlayd:{row.segment}")
    with NetlinkSocket(pairs.host_fd) as host:
        host.transact([tc_filters.add_clsact(end)])  # refused if it is there
        host.request(request)
    connect(fast, pairs, row.segment)


def _unhook(pairs: ShortcutPairs, link: str) -> None:
    end = pairs.host_ends.get(link, 0)
    if not end:
        return
    with NetlinkSocket(pairs.host_fd) as host:
        host.request(tc_filters.delete_filter(end), harmless=_GONE)


def refresh(fast: FastPath | None, pairs: ShortcutPairs, device: str) -> None:
    """Have frames sent as a VXLAN device, by name, is now, if they are sent. Raises OSError."""
    segment = int(device.lstrip(string.ascii_lowercase))
    if fast is not None and fast.remote.is_connected(segment):
        connect(fast, pairs, segment)


def connect(fast: FastPath, pairs: ShortcutPairs, segment: int) -> None:
    """Have a segment's ports send by the shortcut, as by the VXLAN device. Raises OSError."""
    shortcut = find_link(pairs.socket, f"{SHORTCUT_PREFIX}{segment}")
    for base in DEVICE_BASES:
        try:
            message = pairs.socket.get(link_requests.get_link(f"{base}{segment}"))[0]
        except NetlinkError as error:
            if error.errno == errno.ENODEV:
                continue
            raise
        device = link_decoder.decode(message)
        vni, port, local = link_decoder.vxlan_identity(device)
        with netns.inside(pairs.netns_fd):
            fast.remote.connect(segment, Wire(shortcut, vni, local, port, device.mtu))
        return


def read(fast: FastPath | None, host_ends: Mapping[str, int], host_fd: int) -> frozenset[HookRow]:
    """Return the rows of what runs at the ends, given by the shortcuts' names."""
    if not any(host_ends.values()):
        return frozenset()
    found: set[HookRow] = set()
    with NetlinkSocket(host_fd) as host:
        for link, end in host_ends.items():
            program = _running(host, end)
            if program:
                found.add(HookRow(_segment(fast, program), link, is_leaving=True))
    return frozenset(found)


def _segment(fast: FastPath | None, program: int) -> int:
    """Return the segment that a program sends for; one that no plan has for one that does not."""
    segment = -1 if fast is None else fast.segment_of_program(program)
    is_used = segment >= 0 and fast is not None and fast.remote.is_connected(segment)
    return segment if is_used else -1


def _running(host: NetlinkSocket, index: int) -> int:
    """Return the id of overlayd's program on an interface; 0 if there is none."""
    try:
        messages = host.dump(codec.RTM_GETTFILTER, tc_filters.filter_dump(index))
    except NetlinkError as error:
        if error.errno in _GONE:
            return 0
        raise
    return max((tc_filters.running_program(message) for message in messages), default=0)
