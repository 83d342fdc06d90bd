"""The programs and maps that take members' frames out of packets, on the underlay's interfaces.

Owns: reading and writing a `NativeState` as map entries and tc filters. Each agent fills maps of
its own and then replaces its predecessor's program, in one step for each interface; until then that
one runs with its own maps.
Does not: decide what is wanted.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from typing import Final

from overlay import limits
from overlay.core.dataplane.underlay_filter import ArrivalPath
from overlay.core.native.state import NativeState, NativeVni
from overlay.errors import OverlayError
from overlay.kernel.bpf import syscall
from overlay.kernel.bpf.hooks.interface_hooks import hooks_of
from overlay.kernel.bpf.hooks.owner import INGRESS, NATIVE, HookOwner
from overlay.kernel.bpf.remote import program as remote_program
from overlay.kernel.bpf.remote.maps import RemoteMaps
from overlay.kernel.native import hooks, receive_program
from overlay.kernel.native.support import can_mix_versions
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.model import Ip, NodeId

_NOTHING: Final = bytes(receive_program.PATH_VALUE_SIZE)


class NativeReceiver:
    """The programs of one node in the thread's namespace.

    They live as long as this object or a filter that runs them.
    """

    def __init__(self, node_id: NodeId, port: int) -> None:
        """Create the maps and load the program, for the cluster's VXLAN port.

        Raises OverlayError if the kernel refuses.
        """
        self._descriptors: list[int] = []
        owner = HookOwner(NATIVE, node_id)
        try:
            self._paths = self._map(
                receive_program.PATH_KEY.size, receive_program.PATH_VALUE_SIZE, "overlayd_path"
            )
            self._vnis = self._map(
                receive_program.VNI_KEY_SIZE,
                receive_program.VNI_VALUE.size,
                "overlayd_vni",
                syscall.INTERFACES,
            )
            code = receive_program.receive_program(
                self._paths, self._vnis, port, mixed=can_mix_versions()
            )
            self._program = self._own(syscall.load(code, owner.program_name))
            self._socket = NetlinkSocket()
        except OSError as error:
            self._close_descriptors()
            raise OverlayError(
                "the kernel rejected the native path's programs",
                why=str(error.strerror or error),
                hint="Frames of other hosts take the VXLAN device instead; to disable the native "
                'path, set native_path = "off" in overlayd.toml',
            ) from error
        self._node_id = node_id
        self._hooks = hooks_of(self._socket, owner)
        self._program_id = syscall.program_id(self._program)

    def _map(self, key_size: int, value_size: int, name: str, kind: int = syscall.HASH) -> int:
        entries_max = limits.NATIVE_PATH_ENTRIES_MAX
        return self._own(syscall.create_map(key_size, value_size, entries_max, name, kind))

    def _own(self, descriptor: int) -> int:
        self._descriptors.append(descriptor)
        return descriptor

    def close(self) -> None:
        """Close socket and descriptors; programs run by a filter stay in force."""
        self._socket.close()
        self._close_descriptors()

    def _close_descriptors(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())

    # --- reading ------------------------------------------------------------------------

    def read(self) -> NativeState:
        """Return the state of this object's programs; those of an earlier agent do not count."""
        paths = self._path_keys()
        return NativeState(
            frozenset(
                index for index, program in self._hooks.read(INGRESS) if program == self._program_id
            ),
            frozenset(own for _, own in paths),
            frozenset(path for path, _ in paths),
            frozenset(self._vni_entries()),
        )

    def _path_keys(self) -> list[tuple[ArrivalPath, Ip]]:
        sizes = receive_program.PATH_KEY.size, receive_program.PATH_VALUE_SIZE
        return [receive_program.path_of(key) for key, _ in syscall.entries(self._paths, *sizes)]

    def _vni_entries(self) -> Iterable[NativeVni]:
        sizes = receive_program.VNI_KEY_SIZE, receive_program.VNI_VALUE.size
        for key, value in syscall.entries_singly(self._vnis, *sizes):
            (index,) = receive_program.VNI_VALUE.unpack(value)
            yield NativeVni(receive_program.vni_of(key), index)

    # --- writing ------------------------------------------------------------------------

    def write(self, before: NativeState, after: NativeState) -> None:
        """Change what the programs take; raises OSError (E2BIG if a map is full).

        What is new comes into the maps before a new interface runs the program. An interface or a
        shortcut that no longer exists is no failure: the routes and the sandbox follow.
        """
        wanted, present = _path_keys(after), _path_keys(before)
        for key in wanted - present:
            syscall.update(self._paths, key, _NOTHING)
        for each in after.vnis - before.vnis:
            self._put_vni(each)
        for index in sorted(after.interfaces - before.interfaces):
            self._hooks.put(index, self._program, INGRESS)
        for index in sorted(self._surplus(after)):
            self._hooks.delete(index, INGRESS)
        kept = {each.vni for each in after.vnis}
        for vni in {each.vni for each in before.vnis} - kept:
            syscall.delete(self._vnis, receive_program.vni_key(vni))
        for key in present - wanted:
            syscall.delete(self._paths, key)

    def _put_vni(self, row: NativeVni) -> None:
        value = receive_program.VNI_VALUE.pack(row.shortcut)
        try:
            syscall.update(self._vnis, receive_program.vni_key(row.vni), value)
        except OSError as error:
            if error.errno != errno.EINVAL:  # else the shortcut has just been deleted
                raise

    def _surplus(self, wanted: NativeState) -> set[int]:
        """Return the interfaces that run a program of this node's, an earlier agent's too."""
        return {index for index, _ in self._hooks.read(INGRESS)} - wanted.interfaces

    def remove(self) -> None:
        """Remove this node's programs from all interfaces. Raises OSError."""
        hooks.remove_programs(self._socket, self._node_id)


def _path_keys(state: NativeState) -> set[bytes]:
    return {receive_program.path_key(path, own) for path in state.paths for own in state.own}


def refusal() -> str:
    """Return why the kernel does not accept the programs; empty if it does."""
    try:
        NativeReceiver(NodeId(bytes(16)), 0).close()
        _load_sender()
    except OverlayError as error:
        return error.why or error.what
    except OSError as error:
        return str(error.strerror or error)
    return ""


def _load_sender() -> None:
    """Load the program that sends, and let it go. Raises OSError."""
    maps = RemoteMaps()
    try:
        code = remote_program.remote_program(maps.fds, 0, (1, 1))
        os.close(syscall.load(code, "overlayd_probe", remote_program.LICENSE))
    finally:
        maps.close()


def remove_programs(node_id: NodeId) -> list[str]:
    """Remove a node's programs from all interfaces; return descriptions of them.

    For an agent without the native path.
    """
    with NetlinkSocket() as socket:
        return hooks.remove_programs(socket, node_id)
