"""Process confinement: drop unneeded capabilities (capabilities(7)), forbid core dumps.

Owns: the capabilities that are kept, each with its reason, and the system calls that drop the rest.
A dropped capability is gone for this process, its threads and the programs it starts. The systemd
unit has the same list; this module also confines agents started by 'overlayd join'.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import struct
from collections.abc import Collection
from typing import Final

KEPT_CAPABILITIES: Final = {
    "CAP_CHOWN": 0,  # the API's socket gets its group
    "CAP_DAC_READ_SEARCH": 2,  # other users' /proc/PID/fd and namespace files (rootless Podman's)
    "CAP_NET_BIND_SERVICE": 10,  # names are answered on port 53
    "CAP_NET_BROADCAST": 11,  # containers' namespaces tell of changes (`NETLINK_LISTEN_ALL_NSID`)
    "CAP_NET_ADMIN": 12,  # links, addresses, rows, tc filters, nftables
    "CAP_NET_RAW": 13,  # packet sockets, echo requests; dropped without `capture_from_peers`
    "CAP_SYS_PTRACE": 19,  # the network namespace of another user's process
    "CAP_SYS_ADMIN": 21,  # namespaces are made, entered and named by mounts; bpf(2)
}
_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_CAP_AMBIENT = 23, 24, 47  # linux/prctl.h
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_VERSION_3: Final = 0x20080522  # linux/capability.h: two words of 32 bits
_COUNT_MAX: Final = 64
_SETS: Final = struct.Struct("=6I")  # effective, permitted, inheritable: the low words, the high

_libc: Final = ctypes.CDLL(None, use_errno=True)


def needed_capabilities(*, packet_sockets: bool) -> frozenset[int]:
    """Return the capabilities that an agent needs which opens packet sockets, or does not."""
    return frozenset(
        number
        for name, number in KEPT_CAPABILITIES.items()
        if packet_sockets or name != "CAP_NET_RAW"
    )


def drop_capabilities(kept: Collection[int] = KEPT_CAPABILITIES.values()) -> None:
    """Drop all capabilities but those that are kept: by default, those that the agent needs.

    Call before any other thread starts: the kernel drops them for the calling thread, and for the
    threads that it starts later.
    """
    try:
        _drop_bounding(kept)
        _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
        _limit(kept)
    except OSError as error:
        logging.getLogger("overlayd").warning("cannot drop capabilities: %s", error.strerror)


def _drop_bounding(kept: Collection[int]) -> None:
    """Drop them from the bounding set, which limits the programs that this process starts."""
    for number in range(_COUNT_MAX):
        if _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) < 0:
            return  # beyond the kernel's last one
        is_done = number in kept or not _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
        if not is_done and ctypes.get_errno() != errno.EPERM:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _limit(kept: Collection[int]) -> None:
    header = ctypes.create_string_buffer(struct.pack("=Ii", _VERSION_3, 0), 8)
    sets = ctypes.create_string_buffer(_SETS.size)
    _check(_libc.capget(header, sets))
    wanted_set = sum(1 << number for number in kept)
    low, high = wanted_set & 0xFFFFFFFF, wanted_set >> 32
    _, permitted, _, _, permitted_high, _ = _SETS.unpack(sets.raw)
    low, high = low & permitted, high & permitted_high
    wanted = ctypes.create_string_buffer(_SETS.pack(low, low, 0, high, high, 0), _SETS.size)
    _check(_libc.capset(header, wanted))


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


_PR_SET_DUMPABLE = 4  # linux/prctl.h


def forbid_core_dumps() -> None:
    """Keep crashes and other processes of the user from writing this process's memory to disk."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        text = os.strerror(ctypes.get_errno())
        logging.getLogger("overlayd").warning("cannot forbid core dumps: %s", text)
