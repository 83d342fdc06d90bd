"""Count each network's free addresses, off the event loop and only after a change.

Does not: choose an address, or know names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from overlay.core.ipam.address_space import AddressSpace, Stamp
from overlay.core.ipam.shares import Share
from overlay.model import Network, Vni


class AddressCounts:
    """The owners' shares of networks, kept until the records that they follow from change."""

    def __init__(self, space: AddressSpace) -> None:
        self._space = space
        self._known: dict[Vni, tuple[Stamp, list[Share]]] = {}

    async def shares(self, networks: Sequence[Network]) -> dict[Vni, list[Share]]:
        """Return each owner's share of these networks; others are forgotten."""
        found: dict[Vni, tuple[Stamp, list[Share]]] = {}
        for network in networks:
            stamp = self._space.stamp(network)
            known = self._known.get(network.vni)
            if known is None or known[0] != stamp:
                claims = self._space.claims(network)
                known = (stamp, await asyncio.to_thread(claims.shares))
            found[network.vni] = known
        self._known = found
        return {vni: shares for vni, (_, shares) in found.items()}
