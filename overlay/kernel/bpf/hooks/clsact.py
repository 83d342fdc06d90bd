"""Programs at the hooks of tc(8), which are filters there (tc-bpf(8)), where there is no tcx.

Other programs' filters there are kept, and the hooks they need. A filter's name says whether the
hooks were added for overlayd's sake; then they go with the last filter, in one request, as they
came with the first one. If somebody deletes all filters alone, nothing says so any more, and the
hooks stay: they may be another program's by then.

Owns: which filters are whose.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from overlay.kernel.bpf import tc_filters
from overlay.kernel.bpf.hooks.owner import EGRESS, INGRESS, HookOwner, HookUse, Place
from overlay.kernel.bpf.tc_filters import RunningFilter, TcHooks
from overlay.kernel.netlink import codec
from overlay.kernel.netlink.codec import NetlinkMessage, Request
from overlay.kernel.netlink.link_lookup import link_name
from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket

_ADDED: Final = "+"  # ends the name of a filter if the hooks were added for overlayd's sake
_GONE: Final = frozenset({errno.ENOENT, errno.ENODEV, errno.EINVAL})
_HOOKS: Final = (EGRESS, INGRESS)  # in the order of removal: what is sent may need what is received
_REFUSED: Final = "no program at tc's hooks of {}: {}"
_NO_EGRESS: Final = "tc's ingress on {} leaves no hook for what it sends"
_SHARED: Final = "tc's hooks on {} share their filters with other interfaces"


class ClsactHooks:
    """The filters of one owner, in the namespace of the socket."""

    def __init__(self, socket: NetlinkSocket, owner: HookOwner) -> None:
        self._socket = socket
        self._owner = owner

    def read(self, where: int) -> list[tuple[int, int]]:
        """Return the interfaces, by index, whose hook runs a program of this owner, and its id."""
        hooked = _hooked(self._socket)
        return [
            (index, each.program)
            for index in sorted(hooked)
            for each in self._own(hooked[index], where)
        ]

    def at(self, places: Iterable[Place]) -> dict[Place, list[int]]:
        """Return the ids of this owner's programs at interfaces' hooks."""
        hooked = _hooked(self._socket)
        return {
            (index, where): [each.program for each in self._own(hooked[index], where)]
            if index in hooked
            else []
            for index, where in places
        }

    def _own(self, hooks: TcHooks, where: int) -> list[RunningFilter]:
        found = _filters(self._socket, hooks, where)
        return [each for each in found if each.handle == self._owner.handle]

    def put(self, index: int, program_fd: int, where: int) -> None:
        """Run a program at an interface's hook, in place of this owner's former one.

        Does nothing if there is no such interface. Raises OSError.
        """
        hooks = _hooked(self._socket).get(index)
        if hooks is None:
            self._put_with_hooks(index, program_fd, where)
            return
        if where == EGRESS and not hooks.has_egress:
            raise OSError(errno.EOPNOTSUPP, _NO_EGRESS.format(_name(self._socket, index)))
        ours = [each for hook in _HOOKS for each in _filters(self._socket, hooks, hook)]
        is_added = any(each.name.endswith(_ADDED) for each in ours)
        request = self._request(index, program_fd, where, is_added=is_added)
        for refusal in self._socket.transact([request]):
            self._raise(index, refusal.errno, str(refusal))

    def _put_with_hooks(self, index: int, program_fd: int, where: int) -> None:
        """Add hooks with a filter."""
        request = self._request(index, program_fd, where, is_added=True)
        refusals = self._socket.transact([tc_filters.add_clsact(index), request])
        if refusals and refusals[0].errno == errno.EEXIST:  # another program's, since the look
            request = self._request(index, program_fd, where, is_added=False)
            refusals = self._socket.transact([request])
        elif refusals and refusals[0].position == 1:
            self._socket.transact([tc_filters.delete_clsact(index)])
        for refusal in refusals:
            self._raise(index, refusal.errno, str(refusal))

    def _request(self, index: int, program_fd: int, where: int, *, is_added: bool) -> Request:
        name = self._owner.use.filter_name + _ADDED * is_added
        handle, leaving = self._owner.handle, where == EGRESS
        return tc_filters.put_filter(index, program_fd, name, handle=handle, leaving=leaving)

    def _raise(self, index: int, number: int, text: str) -> None:
        if number != errno.ENODEV:
            raise OSError(number, _REFUSED.format(_name(self._socket, index), text))

    def delete(self, index: int, where: int) -> None:
        """Remove this owner's program from an interface's hook. Raises OSError."""
        hooks = _hooked(self._socket).get(index)
        if hooks is not None:
            _delete_filter(self._socket, hooks, where, self._owner.handle)

    def has_others(self) -> bool:
        """Return whether an interface runs another node's program for the same use."""
        return any(
            each.handle != self._owner.handle
            for _, _, each in _filters_for(self._socket, self._owner.use)
        )


def obstacle(socket: NetlinkSocket, indexes: Collection[int]) -> str:
    """Return why interfaces can't run programs at both hooks; empty if they can."""
    hooked = _hooked(socket)
    for index in sorted(set(indexes) & hooked.keys()):
        if not hooked[index].has_egress:
            return _NO_EGRESS.format(_name(socket, index))
        if hooked[index].is_shared:
            return _SHARED.format(_name(socket, index))
    return ""


def remove_all(socket: NetlinkSocket, use: HookUse) -> set[int]:
    """Remove the programs of all nodes for one use; return the interfaces' indexes.

    Raises OSError.
    """
    found = [*_filters_for(socket, use)]
    for hooks, where, each in found:
        _delete_filter(socket, hooks, where, each.handle)
    return {hooks.interface for hooks, _, _ in found}


def filters_of(socket: NetlinkSocket, index: int, where: int) -> list[RunningFilter]:
    """Return the filters at overlayd's priority at an interface's hook."""
    hooks = _hooked(socket).get(index)
    return [] if hooks is None else [*_filters(socket, hooks, where)]


def _filters(socket: NetlinkSocket, hooks: TcHooks, where: int) -> Iterator[RunningFilter]:
    for message in _dumped(socket, hooks, where):
        found = tc_filters.running_filter(message)
        if found is not None:
            yield found


def _filters_for(
    socket: NetlinkSocket, use: HookUse
) -> Iterator[tuple[TcHooks, int, RunningFilter]]:
    """Yield hooks, which of them, and filter, of all nodes for one use."""
    names = {use.filter_name, use.filter_name + _ADDED}
    hooked = _hooked(socket)
    for where in _HOOKS:
        for hooks in hooked.values():
            for each in _filters(socket, hooks, where):
                if each.name in names:
                    yield hooks, where, each


def _delete_filter(socket: NetlinkSocket, hooks: TcHooks, where: int, handle: int) -> None:
    """Remove a filter, and the hooks if they were added for overlayd and hold no other filter."""
    names = [each.name for each in _filters(socket, hooks, where) if each.handle == handle]
    if not names:
        return
    messages = (message for hook in _HOOKS for message in _dumped(socket, hooks, hook))
    count = sum(map(tc_filters.is_filter, messages))
    if names[0].endswith(_ADDED) and hooks.has_egress and count == 1:
        request = tc_filters.delete_clsact(hooks.interface)  # with the filter
    else:
        leaving = where == EGRESS
        request = tc_filters.delete_filter(hooks.interface, handle=handle, leaving=leaving)
    for refusal in socket.transact([request]):
        if refusal.errno not in _GONE:
            text = f"a program stays at tc's hooks of interface {hooks.interface}: {refusal}"
            raise OSError(refusal.errno, text)


def _dumped(socket: NetlinkSocket, hooks: TcHooks, where: int) -> list[NetlinkMessage]:
    if where == EGRESS and not hooks.has_egress:
        return []  # the kernel would show what is at the other hook
    try:
        body = tc_filters.filter_dump(hooks.interface, leaving=where == EGRESS)
        return socket.dump(codec.RTM_GETTFILTER, body)
    except OSError as error:
        if error.errno in _GONE:
            return []
        raise


def _hooked(socket: NetlinkSocket) -> dict[int, TcHooks]:
    """Return the interfaces, by index, that have hooks."""
    messages = socket.dump(codec.RTM_GETQDISC, tc_filters.QDISC_DUMP)
    found = map(tc_filters.hooks_in, messages)
    return {each.interface: each for each in found if each is not None}


def _name(socket: NetlinkSocket, index: int) -> str:
    try:
        return link_name(socket, index)
    except NetlinkError:
        return f"interface {index}"
