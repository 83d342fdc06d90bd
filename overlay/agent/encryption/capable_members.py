"""Which members can carry encrypted networks, by the keys that they publish.

Owns: naming those that cannot. Does not: know what this host has (`kernel.wireguard.backend`).
"""

from __future__ import annotations

import asyncio
import contextlib

from overlay import limits
from overlay.agent.gossip.context import NodeContext
from overlay.errors import ConflictError


class CapableMembers:
    """The members with a WireGuard key, and those without."""

    def __init__(self, context: NodeContext) -> None:
        self._gossip = context.gossip
        self._directory = context.directory

    def missing(self) -> list[str]:
        """Return the members that have published no key, each with the version that it runs."""
        view = self._directory.view
        found = []
        for node_id in view.members():
            is_counted = node_id == self._gossip.node_id or view.vtep_of(node_id) is not None
            if is_counted and not view.wireguard_keys(node_id):
                card = self._directory.card(node_id)
                version = "" if card is None else f" (overlayd {card.software})"
                found.append(f"{self._directory.node_name(node_id)}{version}")
        return found

    async def require_all(self) -> None:
        """Raise ConflictError with the names of the members that can carry no encrypted network.

        Waits a moment for the keys of members that have just joined.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limits.WIREGUARD_KEYS_WAIT_S):
                while self.missing():  # noqa: ASYNC110 - keys come with any member's records
                    await asyncio.sleep(limits.WIREGUARD_KEYS_POLL_S)
        missing = self.missing()
        if missing:
            raise ConflictError(
                "not every member can carry an encrypted network",
                why=f"no WireGuard key is known of {', '.join(missing)}",
                hint="On each: install this version of overlayd, and WireGuard ('modprobe "
                "wireguard', or 'apt install wireguard-go'); 'overlayd encryption status' there "
                "says what is missing. A member that is gone: overlayd forget NAME",
            )
