"""The headers of a VXLAN packet (RFC 7348): where they are, from the Ethernet header.

Owns: the layout that sending and receiving programs share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

VNI_ONLY: Final = 0x08  # the first byte of VXLAN's header: the VNI is valid, nothing else is set
KEEP_SEGMENT_SIZE: Final = 1 << 0  # BPF_F_ADJ_ROOM_FIXED_GSO


@dataclass(frozen=True, slots=True)
class OuterHeaders:
    """Offsets in a packet of one outer IP version, without options or extension headers."""

    size: int  # of the IP header

    @property
    def udp(self) -> int:
        """Return the offset of the UDP header."""
        return 14 + self.size

    @property
    def vxlan(self) -> int:
        """Return the offset of the VXLAN header."""
        return self.udp + 8

    @property
    def inner(self) -> int:
        """Return the offset of the frame."""
        return self.vxlan + 8
