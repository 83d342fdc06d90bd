"""The fast path of one sandbox: maps, programs and filters.

Owns: reading and writing fast-path rows as map entries and tc filters. Each agent creates its own
maps and programs, fills them, and then replaces those of the previous agent, atomically for each
interface; until then the old programs run with their own maps.
Does not: decide which rows are wanted; that is the planner's task.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from overlay import limits
from overlay.core.dataplane.link_state import ROUTER_LINK_PREFIX, SHORTCUT_PREFIX
from overlay.core.dataplane.operations import PutRow
from overlay.core.dataplane.state import HookRow, RemoteRow, SourceRow, TargetRow, VlanRow
from overlay.errors import OverlayError
from overlay.kernel.bpf import numbers, programs, syscall, tc_filters, vlan
from overlay.kernel.bpf.policy_maps import PolicyMaps, PolicyRow
from overlay.kernel.bpf.policy_programs import leaving_program, shut_program
from overlay.kernel.bpf.programs import PortMaps
from overlay.kernel.bpf.remote.maps import RemoteMaps
from overlay.kernel.bpf.remote.program import LICENSE as REMOTE_LICENSE
from overlay.kernel.bpf.remote.program import remote_program
from overlay.kernel.netlink import codec
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.kernel.row_operations import RefusedOperation, RowOperation, apply_each
from overlay.model import Ip, Mac

FastRow: TypeAlias = SourceRow | TargetRow | RemoteRow | VlanRow | HookRow
FAST_ROWS: Final = (SourceRow, TargetRow, RemoteRow, VlanRow, HookRow)
_VLAN_KINDS: Final = ("vlin", "vlout")
_PORT_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_PORTS_DEFAULT: Final = (32_768, 28_231)
# The hook exists already, or the filter or interface is gone.
_HARMLESS: Final = frozenset({errno.EEXIST, errno.ENOENT, errno.ENODEV})


class _Program(NamedTuple):
    """The properties by which programs differ."""

    kind: str
    segment: int
    is_policed: bool


# Of an earlier agent: no plan has it, so it is replaced, or removed where none is wanted.
_FOREIGN: Final = _Program("", -1, is_policed=False)


class FastPath:
    """Maps and programs.

    They live as long as this object or a filter that runs them.
    """

    def __init__(self) -> None:
        """Create the maps and load the programs.

        Raises OverlayError if the kernel refuses.
        """
        self._descriptors: list[int] = []
        self._programs: dict[_Program, tuple[int, int]] = {}  # descriptor, id
        self._policies: PolicyMaps | None = None  # from the first row that needs them
        self._vlans: vlan.VlanMap | None = None  # likewise
        self._remote: RemoteMaps | None = None
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
            self._remote = RemoteMaps()
            self._tables = PortMaps(self._targets, self._sources, self._remote.fds)
            for link in ("vxlan0", "br0", "port"):
                self._program(HookRow(0, link))
            self._shut = self._own(syscall.load(shut_program(), "overlayd_shut"))
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
        for each in (self._policies, self._vlans, self._remote):
            if each is not None:
                each.close()
        self._vlans = self._remote = None
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _own(self, descriptor: int) -> int:
        self._descriptors.append(descriptor)
        return descriptor

    def _program(self, row: HookRow) -> tuple[int, int]:
        """Return descriptor and id of a hook's program; load it if it is the first of its kind."""
        kind = _kind(row)
        name = _Program(kind, row.segment, row.is_policed)
        found = self._programs.get(name)
        if found is None:
            maps = self._policies.maps if self._policies is not None and row.is_policed else None
            match kind:
                case "vlin":
                    code = vlan.arriving_program(self.vlans.descriptor, programs.FROM_CONTAINER)
                case "vlout":
                    code = vlan.leaving_program(self.vlans.descriptor, maps)
                case "leave" | "cross":
                    if maps is None:
                        raise OSError(errno.EINVAL, "only policies have a program for what leaves")
                    marks = (numbers.JUDGED, programs.ROUTED)
                    code = leaving_program(maps, *(marks if kind == "cross" else marks[:1]))
                case "route":
                    code = programs.router_program()
                case "in":
                    code = programs.vtep_program(self._targets, row.segment, maps)
                case "send":
                    code = remote_program(self.remote.fds, row.segment, _ports())
                case "short":
                    code = programs.shortcut_program(self._targets, row.segment, maps)
                case "tell":
                    code = programs.bridge_program(self._targets, row.segment, maps)
                case _:
                    code = programs.port_program(self._tables, row.segment, maps)
            terms = REMOTE_LICENSE if kind == "send" else syscall.LICENSE
            descriptor = self._own(syscall.load(code, f"overlayd_{kind}{row.segment}", terms))
            found = self._programs[name] = (descriptor, syscall.program_id(descriptor))
        return found

    def policies(self, socket: NetlinkSocket) -> PolicyMaps:
        """Return the maps of policies, created now if they are not yet.

        They have the connections of programs that an earlier agent left. Raises OSError.
        """
        if self._policies is None:
            self._policies = PolicyMaps(number for _, number, _ in running(socket))
        return self._policies

    @property
    def vlans(self) -> vlan.VlanMap:
        """The map of VLANs, created now if it is not yet. Raises OSError."""
        if self._vlans is None:
            self._vlans = vlan.VlanMap()
        return self._vlans

    @property
    def policy_maps(self) -> PolicyMaps | None:
        """The maps of policies; None if there are no policies."""
        return self._policies

    @property
    def remote(self) -> RemoteMaps:
        """The maps of remote containers on the native path."""
        assert self._remote is not None
        return self._remote

    def sending_program(self, segment: int) -> int:
        """Return the descriptor of the program at a shortcut's end in the host's namespace.

        Raises OSError.
        """
        return self._program(HookRow(segment, SHORTCUT_PREFIX, is_leaving=True))[0]

    def segment_of_program(self, number: int) -> int:
        """Return the segment of such a program of this object's, by its id; -1 for others."""
        name = self._name_of(number)
        return name.segment if name.kind == "send" else _FOREIGN.segment

    def _name_of(self, number: int) -> _Program:
        own = (name for name, (_, identifier) in self._programs.items() if identifier == number)
        return next(own, _FOREIGN)

    # --- writing ------------------------------------------------------------------------

    def put(self, row: SourceRow | TargetRow | RemoteRow | VlanRow, index: int) -> None:
        """Write a map entry. Raises OSError (E2BIG if the map is full)."""
        if isinstance(row, RemoteRow):
            self.remote.put(row)
            return
        if isinstance(row, VlanRow):
            self.vlans.put(row, index)
            return
        if isinstance(row, SourceRow):
            key = programs.source_key(index, row.mac, row.ip)
            syscall.update(self._sources, key, bytes(programs.SOURCE_VALUE_SIZE))
            return
        value = programs.TARGET_VALUE.pack(index, _action(row.link))
        syscall.update(self._targets, programs.TARGET_KEY.pack(row.mac, row.segment), value)

    def delete(self, row: SourceRow | TargetRow | RemoteRow | VlanRow, index: int) -> None:
        """Delete a map entry. Raises OSError."""
        if isinstance(row, VlanRow):
            self.vlans.delete(index)
        elif isinstance(row, RemoteRow):
            self.remote.delete(row)
        elif isinstance(row, TargetRow):
            syscall.delete(self._targets, programs.TARGET_KEY.pack(row.mac, row.segment))
        else:
            syscall.delete(self._sources, programs.source_key(index, row.mac, row.ip))

    def _target_entries(self) -> Iterator[tuple[bytes, bytes]]:
        sizes = programs.TARGET_KEY.size, programs.TARGET_VALUE.size
        return syscall.entries(self._targets, *sizes)

    def _source_entries(self) -> Iterator[tuple[bytes, bytes]]:
        sizes = programs.SOURCE_KEY.size, programs.SOURCE_VALUE_SIZE
        return syscall.entries(self._sources, *sizes)

    def hook(self, row: HookRow, index: int, socket: NetlinkSocket) -> None:
        """Run a segment's program on an interface.

        Where policies can't be applied, nothing passes. Raises OSError.
        """
        try:
            if row.is_policed:
                self.policies(socket)
            _put_filter(socket, row, index, self._program(row)[0])
        except OSError:
            if row.is_policed or row.is_vlan:
                _put_filter(socket, row, index, self._shut)
            raise

    # --- reading ------------------------------------------------------------------------

    def read(self, socket: NetlinkSocket, names: Mapping[int, str]) -> set[FastRow | PolicyRow]:
        """Return map entries and hooks of this object's programs as rows.

        Without those of `remote`, which may be very many. An interface that no longer exists is
        named by its index ("#17").
        """
        found: set[FastRow | PolicyRow] = set()
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
        for index, number, is_leaving in running(socket, names):
            name = self._name_of(number)
            is_vlan = name.kind in _VLAN_KINDS
            found.add(HookRow(name.segment, names[index], name.is_policed, is_leaving, is_vlan))
        if self._vlans is not None:
            found |= self._vlans.rows(names)
        return found if self._policies is None else found | self._policies.rows()


def running(
    socket: NetlinkSocket, among: Container[int] | None = None
) -> list[tuple[int, int, bool]]:
    """Return interface index, program id and direction of each filter of overlayd.

    The direction is whether it runs on frames that leave.
    """
    messages = socket.dump(codec.RTM_GETQDISC, tc_filters.QDISC_DUMP)
    hooked = {each.interface for each in map(tc_filters.hooks_in, messages) if each is not None}
    found = []
    for index in sorted(hooked):
        for leaving in (False, True) if among is None or index in among else ():
            body = tc_filters.filter_dump(index, leaving=leaving)
            for message in socket.dump(codec.RTM_GETTFILTER, body):
                number = tc_filters.running_program(message)
                if number:
                    found.append((index, number, leaving))
    return found


def hooks_left(socket: NetlinkSocket, names: Mapping[int, str]) -> set[FastRow | PolicyRow]:
    """Return hooks left by an earlier agent, for one without fast path."""
    return {
        HookRow(0, names[index], is_leaving=leaving) for index, _, leaving in running(socket, names)
    }


def apply(
    fast: FastPath | None,
    operations: Iterable[RowOperation],
    socket: NetlinkSocket,
    index_of: Callable[[str], int],
) -> list[RefusedOperation]:
    """Apply operations on fast-path rows.

    Returns those that failed, with the error. A missing link is not a failure here: the link's own
    operation reports it. Without a fast path, the only effect is to remove filters left by an
    earlier agent.
    """

    def apply_one(operation: RowOperation) -> None:
        row = operation.row
        assert isinstance(row, FAST_ROWS)
        index = int(row.link[1:]) if row.link.startswith("#") else index_of(row.link)
        is_put = isinstance(operation, PutRow)
        if isinstance(row, HookRow):
            if is_put and index and fast is not None:
                fast.hook(row, index, socket)
            elif is_put and index and (row.is_policed or row.is_vlan):
                raise _no_policies()
            elif not is_put and index:
                filters = tc_filters.delete_filter(index, leaving=row.is_leaving)
                socket.request(filters, harmless=_HARMLESS)
        elif fast is not None and is_put and index:
            fast.put(row, index)
        elif fast is not None and not is_put:
            fast.delete(row, index)

    return apply_each(operations, apply_one)


def apply_policies(
    fast: FastPath | None, operations: Sequence[RowOperation], socket: NetlinkSocket
) -> list[RefusedOperation]:
    """Apply operations on rows of policies in one step; return those that failed."""
    is_needed = any(isinstance(operation, PutRow) for operation in operations)
    if not is_needed and (fast is None or fast.policy_maps is None):
        return []
    try:
        if fast is None:
            raise _no_policies()
        return fast.policies(socket).apply(operations)
    except OSError as error:
        return [(operation, error) for operation in operations]


def _no_policies() -> OSError:
    return OSError(
        errno.EOPNOTSUPP, "this kernel runs no eBPF programs, which policies and VLANs need"
    )


def _put_filter(socket: NetlinkSocket, row: HookRow, index: int, program: int) -> None:
    name = f"overlayd:{row.segment}"
    request = tc_filters.put_filter(index, program, name, leaving=row.is_leaving)
    socket.request(tc_filters.add_clsact(index), request, harmless=_HARMLESS)


def _kind(row: HookRow) -> str:
    """Return the kind of program that a hook runs."""
    is_shortcut = row.link.startswith(SHORTCUT_PREFIX)
    if row.is_vlan:
        return _VLAN_KINDS[row.is_leaving]
    if row.is_leaving and is_shortcut:
        return "send"
    if row.is_leaving:  # routed packets cross to another host unjudged
        return "cross" if row.link.startswith("vxlan") else "leave"
    if row.link.startswith("vxlan"):
        return "in"
    if row.link.startswith(ROUTER_LINK_PREFIX):
        return "route"
    if is_shortcut:
        return "short"
    return "tell" if row.link.startswith("br") else "out"


def _ports() -> tuple[int, int]:
    """Return the first source port and the number of them that the kernel's VXLAN devices use.

    From the thread's namespace, the host's (net.ipv4.ip_local_port_range).
    """
    try:
        first, last = map(int, _PORT_RANGE.read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return _PORTS_DEFAULT
    return first, max(1, last - first)


def _action(link: str) -> int:
    if link.startswith("vxlan"):
        return programs.TO_DEVICE
    return programs.TO_BRIDGE if link.startswith("br") else programs.TO_CONTAINER
