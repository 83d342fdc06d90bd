"""The rules and maps of the host's table for ports that lead to services.

Owns: what `host_table` adds for them. Without such a port it adds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

from overlay.core.dataplane.host_rules import IngressForward
from overlay.kernel.nft import backend_choice as choice
from overlay.kernel.nft import expressions as ex
from overlay.kernel.nft.expressions import Rule
from overlay.kernel.nft.table import Set
from overlay.model import Ip

_BORROWED: Final = {4: "borrowed", 16: "borrowed6"}
_TYPE_ADDRESS: Final = {4: 7, 16: 8}  # nft(8)'s own numbers


def in_order(ingress: Collection[IngressForward]) -> list[IngressForward]:
    """Return the ports in the order of their rules, which no change of backends alters."""
    return sorted(
        ingress, key=lambda each: (each.protocol, each.host_port, _ring(each).address_size)
    )


def sets(ingress: Collection[IngressForward]) -> Iterator[Set]:
    """Yield the maps of the ports' backends, and the sets of those that are masqueraded."""
    if ingress:
        yield from ring_maps(ingress)
        yield from borrowed_sets()


def ring_maps(ingress: Collection[IngressForward]) -> Iterator[Set]:
    """Yield the maps of the ports' backends."""
    if ingress:
        yield from map(choice.ring_map, choice.RINGS)


def borrowed_sets() -> Iterator[Set]:
    """Yield the sets of addresses whose clients are masqueraded."""
    yield from (Set(_BORROWED[size], _TYPE_ADDRESS[size], size) for size in choice.SIZES)


def _to_this_host(_size: int) -> Rule:
    return ex.to_this_host()


def destinations(
    ingress: Sequence[IngressForward],
    *,
    from_host: bool,
    to_host: Callable[[int], Rule] = _to_this_host,
) -> Iterator[Rule]:
    """Yield the rules that translate new connections to these ports.

    The host's own programs may use any port. `to_host` matches packets to the host, by the size of
    an address: in another namespace than the host's these are not the namespace's own.
    """
    for each in ingress:
        ring = _ring(each)
        family = ex.is_ipv4() if ring.address_size == 4 else ex.is_ipv6()
        meant = (
            *family,
            *to_host(ring.address_size),
            *ex.to_port(choice.PROTOCOLS[each.protocol], each.host_port),
        )
        allowed: Sequence[Rule] = [()]
        if each.sources and not from_host:
            allowed = [ex.from_range(*source) for source in each.sources]
        for source in allowed:
            yield (*meant, *source, *choice.translate(ring, choice.any_address(ring.address_size)))


def borrowed(ingress: Collection[IngressForward]) -> Iterator[Rule]:
    """Yield matches of packets to backends whose clients the host masquerades."""
    if ingress:
        yield from map(to_borrowed, choice.SIZES)


def to_borrowed(size: int) -> Rule:
    """Match packets to the addresses of a set of `borrowed_sets`, by the size of an address."""
    family = ex.is_ipv4() if size == 4 else ex.is_ipv6()
    return (*family, *choice.requested_address(size), ex.in_set(_BORROWED[size]))


def borrowed_elements(borrowed: Collection[Ip]) -> dict[str, frozenset[bytes]]:
    """Return the elements of `borrowed_sets`."""
    return {
        name: frozenset(bytes(ip) for ip in borrowed if len(ip) == size)
        for size, name in _BORROWED.items()
    }


def elements(ingress: Collection[IngressForward]) -> dict[str, frozenset[bytes]]:
    """Return the elements by map or set."""
    found: dict[str, set[bytes]] = {each.name: set() for each in sets(ingress)}
    for each in ingress:
        ring = _ring(each)
        anywhere = bytes(ring.address_size)
        found[ring.name] |= set(
            choice.slot_elements(anywhere, each.protocol, each.host_port, each.backends)
        )
        found[_BORROWED[ring.address_size]] |= each.borrowed
    return {name: frozenset(listed) for name, listed in found.items()}


def _ring(each: IngressForward) -> choice.Ring:
    return choice.ring_for(len(each.backends[0].ip), each.backends, affinity=each.affinity)
