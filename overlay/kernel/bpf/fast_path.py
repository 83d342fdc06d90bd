"""The fast path of one sandbox: maps, programs and filters.

Owns: reading and writing fast-path rows as map entries and tc filters. Each agent creates its own
maps and programs, fills them, and then replaces those of the previous agent, atomically for each
interface; until then the old programs run with their own maps.
Does not: decide which rows are wanted; that is the planner's task.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from overlay import failpoint, limits
from overlay.core.dataplane.operations import DeleteRow, PutRow
from overlay.core.dataplane.state import HookRow, SourceRow, TargetRow
from overlay.errors import OverlayError
from overlay.kernel.bpf import programs, syscall, tc_filters
from overlay.kernel.netlink import codec
from overlay.kernel.netlink.codec import Request
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.model import Ip, Mac

FastRow: TypeAlias = SourceRow | TargetRow | HookRow
FAST_ROWS: Final = (SourceRow, TargetRow, HookRow)
# The hook exists already, or the filter or interface is gone.
_HARMLESS: Final = frozenset({errno.EEXIST, errno.ENOENT, errno.ENODEV})


class FastPath:
    """Maps and programs.

    They live as long as this object or a filter that runs them.
    """

    def __init__(self) -> None:
        """Create the maps and load the programs.

        Raises OverlayError if the kernel refuses.
        """
        self._descriptors: list[int] = []
        self._programs: dict[tuple[str, int], tuple[int, int]] = {}  # descriptor, id
        try:
            self._targets = self._own(
                syscall.create_map(
                    programs.TARGET_KEY.size,
                    programs.TARGET_VALUE.size,
                    limits.FAST_PATH_ENTRIES_MAX,
                    "overlayd_to",
                )
            )
            self._sources = self._own(
                syscall.create_map(
                    programs.SOURCE_KEY.size,
                    programs.SOURCE_VALUE_SIZE,
                    limits.FAST_PATH_ENTRIES_MAX,
                    "overlayd_from",
                )
            )
            for link in ("vxlan0", "br0", "port"):
                self._program(link, 0)
        except OSError as error:
            self.close()
            raise OverlayError(
                "the kernel rejected the fast-path programs",
                why=str(error.strerror or error),
                hint="Frames use the bridge instead; to disable the fast path, set "
                'fast_path = "off" in overlayd.toml',
            ) from error

    def close(self) -> None:
        """Close the descriptors; programs run by a filter stay in force."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _own(self, descriptor: int) -> int:
        self._descriptors.append(descriptor)
        return descriptor

    def _program(self, link: str, segment: int) -> tuple[int, int]:
        kind = _kind(link)
        found = self._programs.get((kind, segment))
        if found is None:
            match kind:
                case "in":
                    code = programs.vtep_program(self._targets, segment)
                case "tell":
                    code = programs.bridge_program(self._targets, segment)
                case _:
                    code = programs.port_program(self._targets, self._sources, segment)
            descriptor = self._own(syscall.load(code, f"overlayd_{kind}{segment}"))
            found = self._programs[kind, segment] = (descriptor, syscall.program_id(descriptor))
        return found

    # --- writing ------------------------------------------------------------------------

    def put(self, row: SourceRow | TargetRow, index: int) -> None:
        """Write a map entry. Raises OSError (E2BIG if the map is full)."""
        if isinstance(row, SourceRow):
            key = programs.source_key(index, row.mac, row.ip)
            syscall.update(self._sources, key, bytes(programs.SOURCE_VALUE_SIZE))
            return
        value = programs.TARGET_VALUE.pack(index, _action(row.link))
        syscall.update(self._targets, programs.TARGET_KEY.pack(row.mac, row.segment), value)

    def delete(self, row: SourceRow | TargetRow, index: int) -> None:
        """Delete a map entry. Raises OSError."""
        if isinstance(row, TargetRow):
            syscall.delete(self._targets, programs.TARGET_KEY.pack(row.mac, row.segment))
        else:
            syscall.delete(self._sources, programs.source_key(index, row.mac, row.ip))

    def _target_entries(self) -> list[tuple[bytes, bytes]]:
        sizes = programs.TARGET_KEY.size, programs.TARGET_VALUE.size
        return syscall.entries(self._targets, *sizes)

    def _source_entries(self) -> list[tuple[bytes, bytes]]:
        sizes = programs.SOURCE_KEY.size, programs.SOURCE_VALUE_SIZE
        return syscall.entries(self._sources, *sizes)

    def hook(self, row: HookRow, index: int) -> list[Request]:
        """Return the requests that run a segment's program on an interface."""
        descriptor, _ = self._program(row.link, row.segment)
        name = f"overlayd:{row.segment}"
        return [tc_filters.add_clsact(index), tc_filters.put_filter(index, descriptor, name)]

    # --- reading ------------------------------------------------------------------------

    def read(self, socket: NetlinkSocket, names: Mapping[int, str]) -> set[FastRow]:
        """Return map entries and hooks of this object's programs as rows.

        An interface that no longer exists is named by its index ("#17").
        """
        found: set[FastRow] = set()
        for key, value in self._target_entries():
            mac, segment = programs.TARGET_KEY.unpack(key)
            index, action = programs.TARGET_VALUE.unpack(value)
            link = names.get(index, f"#{index}")
            # The action of an entry for a missing interface is irrelevant: the entry is deleted.
            wrong = "" if action == _action(link) or index not in names else f"?{action}"
            found.add(TargetRow(Mac(mac), segment, link + wrong))
        for key, _ in self._source_entries():
            index, mac, raw = programs.SOURCE_KEY.unpack(key)
            ip = Ip(raw) if any(raw[4:]) else Ip(raw[:4])
            found.add(SourceRow(ip, Mac(mac), names.get(index, f"#{index}")))
        own = {number: segment for (_, segment), (_, number) in self._programs.items()}
        for index, number in running(socket, names):
            if number in own:
                found.add(HookRow(own[number], names[index]))
        return found


def running(socket: NetlinkSocket, names: Mapping[int, str]) -> list[tuple[int, int]]:
    """Return (interface index, program id) of each filter of overlayd."""
    messages = socket.dump(codec.RTM_GETQDISC, tc_filters.QDISC_DUMP)
    hooked = {tc_filters.hooked_index(message) for message in messages} & names.keys()
    found = []
    for index in sorted(hooked):
        for message in socket.dump(codec.RTM_GETTFILTER, tc_filters.filter_dump(index)):
            number = tc_filters.running_program(message)
            if number:
                found.append((index, number))
    return found


def hooks_left(socket: NetlinkSocket, names: Mapping[int, str]) -> set[FastRow]:
    """Return hooks left by an earlier agent, for one without fast path."""
    return {HookRow(0, names[index]) for index, _ in running(socket, names)}


def apply(
    fast: FastPath | None,
    operations: Iterable[PutRow | DeleteRow],
    socket: NetlinkSocket,
    index_of: Callable[[str], int],
) -> list[tuple[PutRow | DeleteRow, OSError]]:
    """Apply operations on fast-path rows.

    Returns those that failed, with the error. A missing link is not a failure here: the link's own
    operation reports it. Without a fast path, the only effect is to remove filters left by an
    earlier agent.
    """
    failures: list[tuple[PutRow | DeleteRow, OSError]] = []
    for operation in operations:
        row = operation.row
        assert isinstance(row, FAST_ROWS)
        index = int(row.link[1:]) if row.link.startswith("#") else index_of(row.link)
        is_put = isinstance(operation, PutRow)
        failpoint.failpoint("bpf")
        try:
            if isinstance(row, HookRow):
                if is_put and fast is not None and index:
                    _transact(socket, fast.hook(row, index))
                elif not is_put and index:
                    _transact(socket, [tc_filters.delete_filter(index)])
            elif fast is not None and is_put and index:
                fast.put(row, index)
            elif fast is not None and not is_put:
                fast.delete(row, index)
        except OSError as error:
            failures.append((operation, error))
    return failures


def _transact(socket: NetlinkSocket, requests: Sequence[Request]) -> None:
    for refusal in socket.transact(requests):
        if refusal.errno not in _HARMLESS:
            raise OSError(refusal.errno, str(refusal))


def _kind(link: str) -> str:
    """Return the kind of program that runs on a link."""
    if link.startswith("vxlan"):
        return "in"
    return "tell" if link.startswith("br") else "out"


def _action(link: str) -> int:
    if link.startswith("vxlan"):
        return programs.TO_DEVICE
    return programs.TO_BRIDGE if link.startswith("br") else programs.TO_CONTAINER
