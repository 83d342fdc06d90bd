"""A bridge's local entry: the row of its own MAC in its FDB, by which frames are for the host.

The kernel makes it when the MAC is set, and never again: a row for that MAC on a port takes its
place, and is gone with the port or the row.

Owns: the messages that read and restore it. Does not: send anything.
"""

from __future__ import annotations

import struct
from typing import Final

from overlay.kernel.netlink import codec
from overlay.kernel.netlink.codec import NetlinkMessage, Request, attribute
from overlay.kernel.netlink.neighbor_format import (
    HEADER,
    NDA_LLADDR,
    NDA_MASTER,
    NTF_MASTER,
    NTF_SELF,
    NUD_PERMANENT,
)

LOCAL_ENTRY: Final = "local FDB entry"
"""The name in `altered` of a bridge that lacks its local entry."""


def put_local(index: int, mac: bytes) -> Request:
    """Return the request that restores a bridge's local entry, wherever its MAC is now."""
    head = HEADER.pack(codec.AF_BRIDGE, index, NUD_PERMANENT, NTF_SELF, 0)
    flags = codec.NLM_F_CREATE | codec.NLM_F_REPLACE
    return (codec.RTM_NEWNEIGH, flags, head + attribute(NDA_LLADDR, mac))


def get_entry(bridge: int, mac: bytes) -> Request:
    """Return the query for a bridge's FDB entry of a MAC; ENOENT if there is none."""
    head = HEADER.pack(codec.AF_BRIDGE, 0, 0, NTF_MASTER, 0)
    master = attribute(NDA_MASTER, struct.pack("=I", bridge))
    return (codec.RTM_GETNEIGH, 0, head + master + attribute(NDA_LLADDR, mac))


def is_local_entry(message: NetlinkMessage, bridge: int) -> bool:
    """Return whether an FDB entry is local to the bridge itself, not on one of its ports."""
    _, index, state, _, _ = HEADER.unpack_from(message.buffer, message.start)
    return index == bridge and bool(state & NUD_PERMANENT)
