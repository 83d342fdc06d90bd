"""Programs at the hooks of tc(8), which are filters there (tc-bpf(8)), where there is no tcx.

Other programs' filters there are kept, and the hooks they need. A filter's name says whether the
hooks were added for overlayd's sake; then they go with the last filter. Hooks come with the first
filter and go with the last one in one request, so that none are left behind.

Owns: which filters are whose.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Final

from overlay.kernel.bpf import tc_filters
from overlay.kernel.bpf.hooks.owner import EGRESS, INGRESS, HookOwner, HookUse
from overlay.kernel.bpf.tc_filters import RunningFilter
from overlay.kernel.netlink import codec
from overlay.kernel.netlink.codec import NetlinkMessage
from overlay.kernel.netlink.socket import NetlinkSocket

_ADDED: Final = "+"  # ends the name of a filter if the hooks were added for overlayd's sake
_GONE: Final = frozenset({errno.ENOENT, errno.ENODEV, errno.EINVAL})
_HOOKS: Final = (EGRESS, INGRESS)  # in the order of removal: what is sent may need what is received


class ClsactHooks:
    """The filters of one owner, in the namespace of the socket."""

    def __init__(self, socket: NetlinkSocket, owner: HookOwner) -> None:
        self._socket = socket
        self._owner = owner

    def read(self, where: int) -> list[tuple[int, int]]:
        """Return the interfaces, by index, whose hook runs a program of this owner, and its id."""
        return [
            (index, number) for index in _hooked(self._socket) for number in self.at(index, where)
        ]

    def at(self, index: int, where: int) -> list[int]:
        """Return the ids of this owner's programs at an interface's hook."""
        found = filters_of(self._socket, index, where)
        return [each.program for each in found if each.handle == self._owner.handle]

    def put(self, index: int, program_fd: int, where: int) -> None:
        """Run a program at an interface's hook, in place of this owner's former one.

        Does nothing if there is no such interface. Raises OSError.
        """
        is_there = index in _hooked(self._socket)
        own = [each for hook in _HOOKS for each in filters_of(self._socket, index, hook)]
        is_added = not is_there or any(each.name.endswith(_ADDED) for each in own)
        name = self._owner.use.filter_name + _ADDED * is_added
        handle, leaving = self._owner.handle, where == EGRESS
        request = tc_filters.put_filter(index, program_fd, name, handle=handle, leaving=leaving)
        requests = [request] if is_there else [tc_filters.add_clsact(index), request]
        for refusal in self._socket.transact(requests):
            if refusal.errno == errno.ENODEV:
                return
            if refusal.errno != errno.EEXIST:  # else another program has just added the hooks
                text = f"no program on interface {index}: {refusal}"
                raise OSError(refusal.errno, text)

    def delete(self, index: int, where: int) -> None:
        """Remove this owner's program from an interface's hook. Raises OSError."""
        _delete_filter(self._socket, index, where, self._owner.handle)

    def has_others(self) -> bool:
        """Return whether an interface runs another node's program for the same use."""
        return any(
            each.handle != self._owner.handle
            for _, _, each in _filters_for(self._socket, self._owner.use)
        )


def remove_all(socket: NetlinkSocket, use: HookUse) -> set[int]:
    """Remove the programs of all nodes for one use; return the interfaces' indexes.

    Raises OSError.
    """
    found = [*_filters_for(socket, use)]
    for index, where, each in found:
        _delete_filter(socket, index, where, each.handle)
    return {index for index, _, _ in found}


def filters_of(socket: NetlinkSocket, index: int, where: int) -> Iterator[RunningFilter]:
    """Yield the filters at overlayd's priority at an interface's hook."""
    for message in _dumped(socket, index, where):
        found = tc_filters.running_filter(message)
        if found is not None:
            yield found


def _filters_for(socket: NetlinkSocket, use: HookUse) -> Iterator[tuple[int, int, RunningFilter]]:
    """Yield interface, hook and filter of all nodes for one use."""
    names = {use.filter_name, use.filter_name + _ADDED}
    hooked = _hooked(socket)
    for where in _HOOKS:
        for index in hooked:
            for each in filters_of(socket, index, where):
                if each.name in names:
                    yield index, where, each


def _delete_filter(socket: NetlinkSocket, index: int, where: int, handle: int) -> None:
    """Remove a filter, and the hooks if they were added for overlayd and hold no other filter."""
    names = [each.name for each in filters_of(socket, index, where) if each.handle == handle]
    if not names:
        return
    is_last = names[0].endswith(_ADDED) and _count(socket, index) == 1
    if is_last:
        request = tc_filters.delete_clsact(index)  # with the filter
    else:
        request = tc_filters.delete_filter(index, handle=handle, leaving=where == EGRESS)
    for refusal in socket.transact([request]):
        if refusal.errno not in _GONE:
            raise OSError(refusal.errno, f"a program stays on interface {index}: {refusal}")


def _count(socket: NetlinkSocket, index: int) -> int:
    """Return how many filters an interface's hooks hold, of whatever program."""
    messages = (message for where in _HOOKS for message in _dumped(socket, index, where))
    return sum(map(tc_filters.is_filter, messages))


def _dumped(socket: NetlinkSocket, index: int, where: int) -> list[NetlinkMessage]:
    try:
        body = tc_filters.filter_dump(index, leaving=where == EGRESS)
        return socket.dump(codec.RTM_GETTFILTER, body)
    except OSError as error:
        if error.errno in _GONE:
            return []
        raise


def _hooked(socket: NetlinkSocket) -> list[int]:
    messages = socket.dump(codec.RTM_GETQDISC, tc_filters.QDISC_DUMP)
    return sorted({tc_filters.hooked_index(message) for message in messages} - {0})
