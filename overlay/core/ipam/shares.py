"""The owners' shares of a network: whom to ask for addresses, and why there are none.

Owns: pure answers from an `Ownership` and the endpoints known here. Never enumerates a pool's
addresses: costs depend on the number of grants and endpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from typing import NamedTuple

from overlay.core.ipam.address_choice import dynamic_addresses, reserved_addresses
from overlay.core.ipam.intervals import Intervals, Run
from overlay.core.ipam.ownership import Ownership
from overlay.core.ipam.subnet_numbers import number_of
from overlay.model import Ip, NodeId


class Share(NamedTuple):
    """One node's share of one subnet.

    `used` counts the endpoints known here, wherever they are; `free` the addresses available to
    requests that name none. `is_stranded`: not available until it is reclaimed.
    """

    owner: NodeId
    subnet_index: int
    owned: int
    free: int
    is_stranded: bool
    used: int = 0
    space: Intervals = Intervals()


def address_shares(ownership: Ownership, endpoint_ips: Iterable[Ip]) -> list[Share]:
    """Return each owner's share, by subnet and owner.

    `endpoint_ips` are the addresses of all known endpoints.
    """
    runs: dict[tuple[int, NodeId, bool], list[Run]] = {}
    for piece in ownership.pieces():
        stranded = ownership.is_stranded(piece.holding)
        key = (piece.subnet_index, piece.holding.owner, stranded)
        runs.setdefault(key, []).append((piece.first, piece.last))
    taken: list[list[int]] = [[] for _ in ownership.network.subnets]
    for ip in endpoint_ips:
        index = ownership.subnet_index(ip)
        if index is not None:
            taken[index].append(number_of(ip))
    used = [Intervals.of_numbers(numbers) for numbers in taken]
    unusable = [
        reserved_addresses(subnet) | numbers
        for subnet, numbers in zip(ownership.network.subnets, used, strict=True)
    ]
    found = []
    for (index, owner, stranded), owned_runs in sorted(runs.items()):
        owned = Intervals.of(owned_runs)
        free = (
            (owned & dynamic_addresses(ownership.network.subnets[index])) - unusable[index]
        ).count
        in_use = (owned & used[index]).count
        found.append(Share(owner, index, owned.count, free, stranded, in_use, owned))
    return found


def grant_candidates(
    found: Iterable[Share], subnet_index: int, self_id: NodeId, reachable: Container[NodeId]
) -> list[NodeId]:
    """Return the reachable owners with free space, the most free first."""
    candidates = [
        share
        for share in found
        if share.subnet_index == subnet_index
        and share.free > 0
        and not share.is_stranded
        and share.owner != self_id
        and share.owner in reachable
    ]
    candidates.sort(key=lambda share: (-share.free, share.owner))
    return [share.owner for share in candidates]


def shortage_text(
    found: Iterable[Share],
    subnet_index: int,
    self_id: NodeId,
    reachable: Container[NodeId],
    name_of: Callable[[NodeId], str],
) -> str:
    """Return why no address is available.

    It names the hosts that have free addresses, and which of them could not be reached.
    """
    others = [
        share
        for share in found
        if share.subnet_index == subnet_index and share.owner != self_id and share.free
    ]
    if not others:
        return "every address of the subnet is in use"
    others.sort(key=lambda share: (-share.free, share.owner))

    def listed(part: list[Share]) -> str:
        text = ", ".join(f"{name_of(share.owner)} has {share.free}" for share in part[:5])
        return text if len(part) <= 5 else f"{text} and {len(part) - 5} more hosts"

    stranded = [share for share in others if share.is_stranded]
    cut_off = [s for s in others if not s.is_stranded and s.owner not in reachable]
    asked = [s for s in others if not s.is_stranded and s.owner in reachable]
    parts = []
    if cut_off:
        parts.append(f"hosts with free addresses could not be reached ({listed(cut_off)})")
    if stranded:
        parts.append(f"the space of forgotten hosts is not reclaimed yet ({listed(stranded)})")
    if asked:
        parts.append(f"these granted none ({listed(asked)})")
    return "this host has no free address; " + "; ".join(parts)
