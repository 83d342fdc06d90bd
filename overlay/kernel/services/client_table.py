"""Translate a container's connections to virtual addresses, in the container's own namespace.

This host is a client like a container; behind a gate, the gate's namespace translates for it.

There connection tracking translates the answers, ICMP errors and fragments as well, and remembers
each connection until it ends. The table needs no agent: connections and new connections go on while
that is dead, and the next one finds the table as it should be.

A virtual address also answers pings, by one of its backends. What is sent to it and translated by
nothing (another port, no backend left) is refused at once, as a host refuses a closed port.

Owns: the sets and rules of a container's table.
Does not: fill it (`table_plan`), write it (`table_writer`), or decide which containers have one
(`agent.services`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from overlay.core.gate import inside
from overlay.kernel.nft import backend_choice as choice
from overlay.kernel.nft import expressions as ex
from overlay.kernel.nft.expressions import Expression, Rule, number
from overlay.kernel.nft.table import (
    FAMILY_INET,
    OUTPUT,
    PREROUTING,
    Chain,
    Set,
    Table,
    services_table_name,
)
from overlay.kernel.services import connection_moves
from overlay.model import NodeId

_DESTINATION: Final = -100  # as nft(8) names it
ICMP: Final = {4: b"\x01", 16: b"\x3a"}
_ECHO_REQUEST: Final = {4: b"\x08", 16: b"\x80"}
_TYPE_ADDRESS: Final = {4: 7, 16: 8}  # nft(8)'s own numbers
ADDRESSES: Final = {4: "addresses", 16: "addresses6"}
PINGED: Final = {4: "pinged", 16: "pinged6"}
# One element: a digest of what the table holds, and the number of the namespace's rules then.
STATE: Final = "state"
STATE_SIZE: Final = 16 + 4
_TYPE_STATE: Final = 8 << 6 | 19  # printed as an IPv6 address and a mark
_PASS_OTHERS: Final = (*ex.mark_is_not(inside.VIRTUAL), ex.accept())
_VIRTUAL: Final = {4: "virtual", 16: "virtual6"}
_REJECT_ICMPX, _PORT_UNREACHABLE = 2, 1  # linux/netfilter/nf_tables.h


def table_of(node_id: NodeId, *, of_gate: bool = False) -> Table:
    """Return the table of a node's containers, whose rules are the same whatever the services.

    With `of_gate`, that of the host behind its gate: in its namespace packets arrive.
    """
    addresses = [Set(ADDRESSES[size], _TYPE_ADDRESS[size], size) for size in choice.SIZES]
    pinged = [
        Set(PINGED[size], *(_TYPE_ADDRESS[size], size), b"", *(_TYPE_ADDRESS[size], size))
        for size in choice.SIZES
    ]
    maps = map(choice.ring_map, choice.RINGS)
    state = Set(STATE, _TYPE_STATE, STATE_SIZE)
    return Table(
        FAMILY_INET,
        services_table_name(node_id),
        (*maps, *addresses, *pinged, *connection_moves.sets(), state),
        (
            *(Chain(_VIRTUAL[size], tuple(_translations(size))) for size in choice.SIZES),
            Chain("arriving", (_PASS_OTHERS, *_sent()), (PREROUTING, _DESTINATION), "nat")
            if of_gate
            else Chain("sent", tuple(_sent()), (OUTPUT, _DESTINATION), "nat"),
        ),
    )


def _sent() -> Iterator[Rule]:
    """Go on with packets to virtual addresses in the chain of their family; others pass.

    The kernel asks a chain of translations about the first packet of a connection only.
    """
    yield from connection_moves.rules()
    for size in choice.SIZES:
        family = ex.is_ipv4() if size == 4 else ex.is_ipv6()
        meant = (*family, *choice.requested_address(size), ex.in_set(ADDRESSES[size]))
        yield (*meant, ex.goto(_VIRTUAL[size]))


def _translations(size: int) -> Iterator[Rule]:
    for ring in choice.RINGS:
        if ring.address_size == size:
            yield choice.translate(ring, choice.requested_address(size))
    yield _ping(size)
    yield from _refusals()


def _ping(size: int) -> Rule:
    return (
        *ex.transport(ICMP[size]),
        ex.transport_header(0, 1),
        ex.equals(_ECHO_REQUEST[size]),
        *(ex.is_ipv4() if size == 4 else ex.is_ipv6()),
        *choice.requested_address(size),
        choice.looked_up(PINGED[size]),
        choice.destination_from(size, None),
    )


def _refusals() -> Iterator[Rule]:
    """Refuse what is sent to a virtual address and was not translated.

    Here, and not in a chain of filters, which would see each packet of the container.
    """
    yield (*ex.transport(ex.TCP), ex.reject_with_reset())
    unreachable = ((1, number(_REJECT_ICMPX)), (2, bytes([_PORT_UNREACHABLE])))
    yield (Expression("reject", unreachable),)
