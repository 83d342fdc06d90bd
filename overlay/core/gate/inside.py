"""How things appear inside the gate's namespace, for its rules and its programs alike.

Inside, an interface of the host has its name, and the loopback another. Forwarding fills in
`priority`: rules set it to `SIGNED` for a packet that they translate, or whose connection they
know, and to `SIGNED_BORROWED` for one that must come a second time; any other returns as it was.
"""

from __future__ import annotations

from typing import Final

from overlay.model import Ip

LOOPBACK_NAME: Final = "host_lo"

SIGNED: Final = 0x6F760001
"""The priority (6f76:1 in nft(8)) of a packet that may go on."""

SIGNED_BORROWED: Final = 0x6F760002
"""That of one that may go on to a container whose replies take another route.

The host judges it by the client's address; then the gate masquerades the client.
"""

ACCEPTED: Final = 0x6F760000
"""The mark, in the host's namespace, of a packet that goes on to an exposed network."""

ACCEPTED_BORROWED: Final = ACCEPTED | 0x6D71
"""The mark of one whose client the gate masquerades, once the host has let it go on."""

RETURNED: Final = 0x72657475
"""The mark of a packet that came back as it was, until the next program has seen it."""

VIRTUAL: Final = 0x76697274
"""The mark, inside, of what the host itself sends to a virtual address."""

# A namespace forwards no loopback addresses (RFC 1122 section 3.2.1.3). In these the words add up
# as in 127.0.0.1 and ::1, so that no checksum changes.
LOOPBACK_SOURCE: Final = {
    4: Ip(bytes([169, 254, 213, 2])),
    6: Ip(bytes.fromhex("fd6f766c6f3100000000000000001cf3")),
}
"""The substitute for the host's loopback address as a source, by IP version."""
LOOPBACK_DESTINATION: Final = {
    4: Ip(bytes([198, 18, 184, 238])),
    6: Ip(bytes.fromhex("fd6f766c6f3200000000000000001cf2")),
}
"""The substitute for it as a destination."""
