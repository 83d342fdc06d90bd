"""The addresses inside the WireGuard tunnels: VTEPs of encrypted networks.

Every node derives all of them from ids, so nothing is allocated and nothing can be contradicted.
The range is a unique local one (RFC 4193) that is routed nowhere else.
"""

from __future__ import annotations

from typing import Final

from overlay.model import Ip, NodeId

RANGE: Final = bytes.fromhex("fd6f766c")
"""The first 32 bits of the inner addresses of every cluster."""
PREFIX_LENGTH: Final = 64
_CLUSTER_SIZE: Final = 4
_NODE_SIZE: Final = 8


def inner_prefix(cluster_id: bytes) -> bytes:
    """Return the first 64 bits of a cluster's inner addresses."""
    return RANGE + cluster_id[:_CLUSTER_SIZE]


def inner_address(prefix: bytes, node_id: NodeId) -> Ip:
    """Return a node's inner address."""
    return Ip(prefix + node_id[:_NODE_SIZE])
