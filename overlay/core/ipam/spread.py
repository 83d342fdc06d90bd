"""Spread a network's address space over the members, so that no host manages it.

At its creation each keeper gets an equal part by a grant of the creator. Later a keeper that has
little asks for half of what another has free (`reserves`, `grants`). Grants stay the only way that
ownership moves, so all of this is about availability: none of it can create a second owner.

Owns: who keeps a network's records and a part of its space, how the space is divided, how much to
ask for, and which owner to ask next. Does not: decide who owns what, send messages or know time.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from overlay import limits
from overlay.core.ipam.address_choice import dynamic_addresses, reserved_addresses
from overlay.core.ipam.intervals import Intervals, Run
from overlay.core.ipam.ownership import Ownership
from overlay.core.ipam.reclaim import transfer
from overlay.core.ipam.subnet_numbers import subnet_run
from overlay.model import NODE_ID_SIZE, Grant, Network, NodeId, Subnet


def keepers(network: Network, members: Sequence[NodeId]) -> list[NodeId]:
    """Return who of these members keeps a network's records and a reserve, unused or not.

    `members` are in order of id. All of them in a cluster of up to `RESERVE_MEMBERS_MAX`, else
    those that follow the network's hash on the circle of ids: all members choose the same, and
    the next one takes the place of one that is dead.
    """
    if len(members) <= limits.RESERVE_MEMBERS_MAX:
        return list(members)
    seed = hashlib.blake2s(int(network.vni).to_bytes(3, "big"), digest_size=NODE_ID_SIZE).digest()
    start = bisect.bisect_left(members, seed)
    chosen = members[start : start + limits.RESERVE_KEEPERS]
    return sorted([*chosen, *members[: limits.RESERVE_KEEPERS - len(chosen)]])


def fairly_ordered(networks: Iterable[Network]) -> list[Network]:
    """Return networks in the order in which room for reserves is given to them.

    One of each creator, then another one of each: a member that creates very many networks does
    not take the room of the others'.
    """
    counts: Counter[NodeId] = Counter()
    ranked: list[tuple[int, NodeId, int, Network]] = []
    for network in sorted(networks, key=lambda each: each.vni):
        ranked.append((counts[network.creator], network.creator, network.vni, network))
        counts[network.creator] += 1
    return [network for *_, network in sorted(ranked, key=lambda item: item[:3])]


def initial_grants(ownership: Ownership, self_id: NodeId, others: Sequence[NodeId]) -> list[Grant]:
    """Return the grants by which a network's creator divides its space.

    Each of `others` gets a part as large as the creator's, in this order; where there are fewer
    addresses than members, the first of them get one each. None if the space has moved already.
    """
    network = ownership.network
    if not others or ownership.grants:
        return []
    found: list[Grant] = []
    for index, subnet in enumerate(network.subnets):
        if ownership.owned(self_id, index) != Intervals.of([subnet_run(subnet)]):
            return []
        for parts in (_dynamic_parts(subnet, len(others) + 1), *_static_parts(subnet, len(others))):
            for grantee, run in zip(others, parts[1:], strict=False):
                found.append(transfer(ownership, index, run, self_id, grantee))
    return found


def _dynamic_parts(subnet: Subnet, count: int) -> list[Run]:
    """Return the dynamic addresses in at most `count` parts, each with usable addresses."""
    (run,) = dynamic_addresses(subnet).runs
    if subnet.block_length:
        size = 1 << 8 * len(subnet.base) - subnet.block_length
        return _cut_at(run, _blocks(run, size, count))
    usable = Intervals.of([run]) - reserved_addresses(subnet)
    count = min(count, usable.count)
    part = usable.count // max(1, count)
    # Large parts begin at a round number, which reads well; it moves less than a 32nd of one.
    align = 1 << max(0, part.bit_length() - 6)
    starts = [_nth(usable, usable.count * k // count) for k in range(1, count)]
    return _cut_at(run, [start - start % align for start in starts])


def _static_parts(subnet: Subnet, others: int) -> Iterator[list[Run]]:
    """Yield the addresses outside the range, each run of them in equal parts.

    A request must name them, so a part need not have any: a short run stays with the creator.
    """
    for run in Intervals.of([subnet_run(subnet)]) - dynamic_addresses(subnet):
        size = run[1] - run[0] + 1
        if size > others:
            yield _cut_at(run, [run[0] + size * k // (others + 1) for k in range(1, others + 1)])


def _blocks(run: Run, size: int, count: int) -> list[int]:
    """Return where the parts after the first begin, each of as many whole blocks."""
    blocks = (run[1] - run[0] + 1) // size
    count = min(count, blocks)
    return [run[0] + size * (blocks * k // count) for k in range(1, count)]


def _cut_at(run: Run, starts: Iterable[int]) -> list[Run]:
    edges = [run[0], *starts, run[1] + 1]
    return [(first, after - 1) for first, after in itertools.pairwise(edges)]


def _nth(numbers: Intervals, index: int) -> int:
    """Return the number with that index in order."""
    for first, last in numbers:
        if index <= last - first:
            return first + index
        index -= last - first + 1
    raise IndexError(index)


# --- asking for more -------------------------------------------------------------------------


def sharer_count(members: int, participants: int) -> int:
    """Return among how many hosts a network's space is divided."""
    if members <= limits.RESERVE_MEMBERS_MAX:
        return members
    return max(limits.RESERVE_KEEPERS, participants)


def fair_share(subnet: Subnet, sharers: int) -> int:
    """Return how many addresses each of so many hosts would have, at least 1."""
    return max(1, (dynamic_addresses(subnet) - reserved_addresses(subnet)).count // max(1, sharers))


def wanted_count(subnet: Subnet, sharers: int) -> int:
    """Return how many addresses to ask for: a fair share.

    Its owner grants at most half of what it has free.
    """
    return min(fair_share(subnet, sharers), limits.GRANT_SIZE_MAX)


class OwnerSearch:
    """Choose the owner to ask next, until one grants an address.

    Each owner is asked under an id of its own, so that a repeated question gets the same answer.
    The next one is asked while the one before is silent: it may be down without anybody's
    knowledge. Who has refused is not asked again.
    """

    def __init__(self, draw_id: Callable[[], bytes]) -> None:
        self._draw_id = draw_id
        self._request_ids: dict[NodeId, bytes] = {}
        self._asked: dict[NodeId, int] = {}
        self._refused: set[NodeId] = set()

    def next_owner(self, candidates: Iterable[NodeId]) -> tuple[NodeId, bytes] | None:
        """Return whom to ask now, and under which id; None if all have refused.

        `candidates` are the reachable owners with free space, the best first.
        """
        left = [owner for owner in candidates if owner not in self._refused]
        if not left:
            return None
        owner = min(left, key=lambda each: self._asked.get(each, 0))
        self._asked[owner] = self._asked.get(owner, 0) + 1
        if owner not in self._request_ids:
            self._request_ids[owner] = self._draw_id()
        return owner, self._request_ids[owner]

    def refused(self, request_id: bytes) -> bool:
        """Note a refusal; return whether it answers a request of this search."""
        found = {owner for owner, known in self._request_ids.items() if known == request_id}
        self._refused |= found
        return bool(found)

    @property
    def is_begun(self) -> bool:
        """Whether any owner was asked."""
        return bool(self._request_ids)
