"""Rulings on new connections between two classes, by protocol and port, as prefixes of ports.

The kernel finds a ruling by one longest-prefix match, in which the port is last. So ranges of
ports, of which the first policy that matches decides, become blocks: a port with a number of its
leading bits.

Owns: this translation. Does not: know classes or addresses.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from overlay.core.policy.policy import PORT_MAX, PROTOCOL_NUMBERS, Policy, PortRange

_PORT_BITS = 16
ANY_PROTOCOL = 0
"""In place of a protocol's number: all that have no ruling of their own."""


class Ruling(NamedTuple):
    """Whether a new connection is allowed, logged, and by which rule; 0 is the default."""

    allow: bool
    log: bool = False
    rule: int = 0


class PortRuling(NamedTuple):
    """The ruling for a block of a protocol's ports; without bits, for the whole protocol."""

    protocol: int
    port: int
    port_bits: int
    ruling: Ruling


class _Span(NamedTuple):
    """Ports from `first` to `last` of a protocol that one ruling is about."""

    first: int
    last: int
    ruling: Ruling


def port_rulings(
    policies: Sequence[tuple[Policy, Ruling]],
    default: Ruling,
    services: Iterable[tuple[int, int]] = (),
) -> tuple[PortRuling, ...]:
    """Return what differs from the default where these policies match, in order of precedence.

    `services` are the protocols and ports that are allowed whatever they say.
    """
    always = sorted(services)
    protocols = {protocol for protocol, _ in always}
    protocols.update(_number(ports) for policy, _ in policies for ports in policy.ports)
    others = next((ruling for policy, ruling in policies if not policy.ports), default)
    found = [] if others == default else [PortRuling(ANY_PROTOCOL, 0, 0, others)]
    for protocol in sorted(protocols):
        spans = [
            _Span(port, port, Ruling(allow=True)) for number, port in always if number == protocol
        ]
        spans += _spans(policies, protocol)
        found += _blocks_of(protocol, _cut(spans, default), others)
    return tuple(found)


def _number(ports: PortRange) -> int:
    """Return the number of a protocol in rulings: that of ICMP is one for both families."""
    return PROTOCOL_NUMBERS[ports.protocol][0]


def _spans(policies: Sequence[tuple[Policy, Ruling]], protocol: int) -> Iterator[_Span]:
    """Yield the ports that each policy is about; the first span that covers a port decides."""
    for policy, ruling in policies:
        if not policy.ports:
            yield _Span(0, PORT_MAX, ruling)
            return  # none after it decides anything
        for ports in policy.ports:
            if _number(ports) == protocol:
                yield _Span(ports.first, ports.last, ruling)


def _cut(spans: Sequence[_Span], default: Ruling) -> list[_Span]:
    """Return all ports in order, as spans that neither overlap nor touch with one ruling."""
    edges = {0, PORT_MAX + 1}
    for first, last, _ in spans:
        edges |= {first, last + 1}
    ordered = sorted(edges)
    found: list[_Span] = []
    for begin, end in itertools.pairwise(ordered):
        ruling = next((each.ruling for each in spans if each.first <= begin <= each.last), default)
        if found and found[-1].ruling == ruling:
            found[-1] = found[-1]._replace(last=end - 1)
        else:
            found.append(_Span(begin, end - 1, ruling))
    return found


def _blocks_of(protocol: int, spans: Sequence[_Span], others: Ruling) -> list[PortRuling]:
    """Return the blocks of a protocol: one for all of its ports, and those that differ."""
    choices = []
    for whole in sorted({each.ruling for each in spans} | {others}):
        found = [] if whole == others else [PortRuling(protocol, 0, 0, whole)]
        for first, last, ruling in spans:
            if ruling != whole:
                blocks = _blocks(first, last)
                found += [PortRuling(protocol, port, bits, ruling) for port, bits in blocks]
        choices.append(found)
    return min(choices, key=len)


def _blocks(first: int, last: int) -> Iterator[tuple[int, int]]:
    """Yield the fewest blocks that are exactly these ports."""
    while first <= last:
        size = first & -first or PORT_MAX + 1
        while first + size - 1 > last:
            size >>= 1
        yield first, _PORT_BITS - (size.bit_length() - 1)
        first += size
