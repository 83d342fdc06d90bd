"""The names of sandboxes: which network and which node each belongs to."""

from __future__ import annotations

from overlay.kernel.sandbox.container_namespace import NETWORK_SANDBOX_NAME
from overlay.model import NodeId, Vni


def sandbox_name(vni: Vni, node_id: NodeId) -> str:
    """Return the namespace's name: by VNI for people, by node for several agents on one host."""
    return f"ov-{vni:06x}-{node_part(node_id)}"


def is_own_sandbox(name: str, node_id: NodeId) -> bool:
    """Return whether a name is that of a node's sandbox of a network."""
    is_sandbox = NETWORK_SANDBOX_NAME.fullmatch(name) is not None
    return is_sandbox and name.endswith(f"-{node_part(node_id)}")


def vni_of_sandbox(name: str) -> Vni:
    """Return the VNI in a sandbox's name."""
    return Vni(int(name.split("-")[1], 16))


def node_part(node_id: NodeId) -> str:
    """Return what the names of a node's objects in the kernel have of its id."""
    return node_id[:3].hex()
