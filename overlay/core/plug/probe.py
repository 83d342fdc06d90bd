"""The frames by which plugs of one network find out that they are on one physical segment.

An active plug sends them out of its interface. Their source MAC says whose they are, so that the
kernel can hear them by itself (`kernel.plug.guard`).

Owns: their form. Does not: send or receive any.
"""

from __future__ import annotations

import hashlib
from typing import Final

from overlay.model import Mac, NodeId, Vni

ETHERTYPE: Final = 0x88B5  # for local experiments: IEEE 802, section 9.2.4
_PREFIX: Final = b"\x0e"  # locally administered, unicast; no endpoint and no gateway has it
_BROADCAST: Final = b"\xff" * 6
_FRAME_SIZE: Final = 60  # the least that Ethernet carries
_TEXT: Final = b"overlayd plug"


def probe_mac(node_id: NodeId, vni: Vni, segment: str) -> Mac:
    """Return the source MAC of the probes of a host's plug."""
    seed = int(vni).to_bytes(3, "big") + node_id + segment.encode()
    return Mac(_PREFIX + hashlib.blake2s(seed, digest_size=5).digest())


def probe_frame(mac: Mac) -> bytes:
    """Return a probe with that source."""
    head = _BROADCAST + mac + ETHERTYPE.to_bytes(2, "big") + _TEXT
    return head.ljust(_FRAME_SIZE, b"\0")
