"""The tc filters of a node on the underlay's interfaces (tc-bpf(8)), where there is no tcx.

Other programs' filters there are kept, and the hooks they need. A filter's name says whether the
hooks were added for it; then they go with the last filter.

Owns: which filters are this node's. Several agents may share a host.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Final

from overlay.kernel.bpf import tc_filters
from overlay.kernel.bpf.tc_filters import RunningFilter
from overlay.kernel.netlink import codec
from overlay.kernel.netlink.codec import Request
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.model import NodeId

_NAME: Final = "overlayd:native"
_WITH_HOOKS: Final = f"{_NAME}+"  # the hooks were added for this filter
_HANDLE_BASE: Final = 0x01000000  # so that no node's is 0, or that of a sandbox's filter
_GONE: Final = frozenset({errno.ENOENT, errno.ENODEV, errno.EINVAL})


class ClsactHooks:
    """The filters of one node, in the namespace of the socket."""

    def __init__(self, socket: NetlinkSocket, node_id: NodeId) -> None:
        self._socket = socket
        self._handle = _HANDLE_BASE | int.from_bytes(node_id[:3], "big")

    def read(self) -> list[tuple[int, int]]:
        """Return the interfaces, by index, that run a program of this node, and its id."""
        return [
            (index, found.program)
            for index in _hooked(self._socket)
            for found in filters_of(self._socket, index)
            if found.handle == self._handle
        ]

    def put(self, index: int, program_fd: int) -> None:
        """Run a program on an interface, in place of this node's former one. Raises OSError.

        Does nothing if there is no such interface.
        """
        own = [found for found in filters_of(self._socket, index) if found.handle == self._handle]
        refused = _send(self._socket, tc_filters.add_clsact(index))
        if refused == errno.ENODEV:
            return
        is_new = not refused or any(found.name == _WITH_HOOKS for found in own)
        name = _WITH_HOOKS if is_new else _NAME
        request = tc_filters.put_filter(index, program_fd, name, handle=self._handle)
        number = _send(self._socket, request)
        if number not in {0, errno.ENODEV}:
            raise OSError(number, f"no program on interface {index}: {errno.errorcode.get(number)}")

    def delete(self, index: int) -> None:
        """Remove this node's program from an interface. Raises OSError."""
        delete_filter(self._socket, index, self._handle)


def delete_filter(socket: NetlinkSocket, index: int, handle: int) -> None:
    """Remove a filter, and the hooks if they were added for it and hold no other filter."""
    found = {each.handle: each.name for each in filters_of(socket, index)}
    number = _send(socket, tc_filters.delete_filter(index, handle=handle))
    if number and number not in _GONE:
        raise OSError(number, f"a program stays on interface {index}")
    if found.get(handle) == _WITH_HOOKS and not _is_used(socket, index):
        _send(socket, tc_filters.delete_clsact(index))


def remove_all(socket: NetlinkSocket) -> list[int]:
    """Remove the programs of all nodes from all interfaces; return the interfaces' indexes."""
    found = [
        (index, each.handle)
        for index in _hooked(socket)
        for each in filters_of(socket, index)
        if each.name in {_NAME, _WITH_HOOKS}
    ]
    for index, handle in found:
        delete_filter(socket, index, handle)
    return [index for index, _ in found]


def filters_of(socket: NetlinkSocket, index: int) -> Iterator[RunningFilter]:
    """Yield the filters at overlayd's priority on frames that an interface receives."""
    try:
        messages = socket.dump(codec.RTM_GETTFILTER, tc_filters.filter_dump(index))
    except OSError as error:
        if error.errno in _GONE:
            return
        raise
    for message in messages:
        found = tc_filters.running_filter(message)
        if found is not None:
            yield found


def _hooked(socket: NetlinkSocket) -> list[int]:
    messages = socket.dump(codec.RTM_GETQDISC, tc_filters.QDISC_DUMP)
    return sorted({tc_filters.hooked_index(message) for message in messages} - {0})


def _is_used(socket: NetlinkSocket, index: int) -> bool:
    """Return whether any filter is at an interface's hooks, of whatever program."""
    bodies = (tc_filters.filter_dump(index, leaving=leaving) for leaving in (False, True))
    return any(socket.dump(codec.RTM_GETTFILTER, body) for body in bodies)


def _send(socket: NetlinkSocket, request: Request) -> int:
    """Return the number of the kernel's refusal, or 0."""
    for refusal in socket.transact([request]):
        return refusal.errno
    return 0
