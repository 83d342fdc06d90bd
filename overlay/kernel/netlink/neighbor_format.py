"""The format of neighbor messages (rtnetlink(7), linux/neighbour.h).

The kernel has one kind of message for three tables: neighbors, a bridge's FDB, and the FDB of a
VXLAN device.

Owns: the message's header, the numbers of its attributes, flags and states. Does not: know rows.
"""

from __future__ import annotations

import struct
from typing import Final

from overlay.model import Mac

NDA_DST: Final = 1
NDA_LLADDR: Final = 2
NDA_CACHEINFO: Final = 3
NDA_VLAN: Final = 5
NDA_PORT: Final = 6
NDA_VNI: Final = 7
NDA_IFINDEX: Final = 8
NDA_MASTER: Final = 9
NDA_LINK_NETNSID: Final = 10
NDA_SRC_VNI: Final = 11
NDA_NH_ID: Final = 13
NDA_FLAGS_EXT: Final = 15
NTF_SELF: Final = 0x02
NTF_MASTER: Final = 0x04
NTF_PROXY: Final = 0x08
NTF_EXT_LEARNED: Final = 0x10
NUD_REACHABLE: Final = 0x02
NUD_NOARP: Final = 0x40
NUD_PERMANENT: Final = 0x80
NUD_FIXED: Final = NUD_NOARP | NUD_PERMANENT

HEADER: Final = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
NO_MAC: Final = Mac(bytes(6))
