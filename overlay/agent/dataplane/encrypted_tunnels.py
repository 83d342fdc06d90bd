"""The interface of encryption to the data plane; `agent.encryption` provides it."""

from __future__ import annotations

from typing import Protocol

from overlay.model import Ip, NodeId, Vni


class EncryptedTunnels(Protocol):
    """The WireGuard tunnels to the other members."""

    def address_of(self, node_id: NodeId) -> Ip:
        """Return a node's VTEP on encrypted networks."""

    @property
    def is_fenced(self) -> bool:
        """Return whether frames to inner addresses go nowhere without the device."""

    async def enter(self, vni: Vni) -> None:
        """Have the tunnels while this network's sandbox exists."""

    async def leave(self, vni: Vni) -> None:
        """Remove the tunnels when the last such sandbox is gone."""

    async def follow_members(self) -> None:
        """Let exactly the present members be peers."""
