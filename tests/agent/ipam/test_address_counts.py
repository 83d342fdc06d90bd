"""Free addresses are counted in another thread, and only after a change."""

from __future__ import annotations

import threading
from unittest.mock import MagicMock

from overlay.agent.ipam.address_counts import AddressCounts
from overlay.core.ipam.address_space import AddressClaims
from overlay.core.ipam.ownership import ownership
from overlay.core.ipam.shares import Share
from overlay.model import Ip, Network, NodeId, Subnet, Vni, parse_ip

OWN, OTHER = NodeId(b"o" * 16), NodeId(b"2" * 16)
SUBNET = Subnet(parse_ip("10.1.0.0"), 24, parse_ip("10.1.0.1"))
BLUE, RED = (Network(Vni(number), f"n{number}", (SUBNET,), OWN) for number in (7, 8))


class Space:
    """An address space whose records a test changes."""

    def __init__(self) -> None:
        self.version = 0
        self.threads: list[threading.Thread] = []
        self.used: list[tuple[NodeId, tuple[Ip, ...]]] = [
            (OWN, (parse_ip("10.1.0.5"),)),
            (OTHER, (parse_ip("10.1.0.6"),)),
        ]

    def stamp(self, network: Network) -> object:
        """Return what changes with the records."""
        return (network, self.version)

    def claims(self, network: Network) -> object:
        """Return the claims, which note the thread that counts them."""
        claims = AddressClaims(ownership(network, []), self.used)

        def count() -> list[Share]:
            self.threads.append(threading.current_thread())
            return claims.shares()

        noting = MagicMock()
        noting.shares.side_effect = count
        return noting


async def test_counts_are_kept_until_the_records_change() -> None:
    """Each network is counted once, in another thread than the event loop's."""
    space = Space()
    counts = AddressCounts(space)  # type: ignore[arg-type]  # what it uses of one
    for _ in range(3):
        found = await counts.shares([BLUE, RED])
    assert len(space.threads) == 2
    assert threading.current_thread() not in space.threads
    (share,) = found[BLUE.vni]
    assert (share.owner, share.used, share.free) == (OWN, 1, 252)

    space.version = 1
    space.used.append((OWN, (parse_ip("10.1.0.7"),)))
    (share,) = (await counts.shares([BLUE]))[BLUE.vni]
    assert (share.used, len(space.threads)) == (2, 3)


async def test_a_network_that_is_gone_is_forgotten() -> None:
    """Nothing is kept for it."""
    space = Space()
    counts = AddressCounts(space)  # type: ignore[arg-type]  # as above
    await counts.shares([BLUE, RED])
    assert set(await counts.shares([RED])) == {RED.vni}
    assert set(counts._known) == {RED.vni}
