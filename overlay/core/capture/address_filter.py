"""The program that accepts frames from and to some addresses, and no others.

ARP and neighbor discovery about an address count as frames of it, or nobody would see why two
containers do not find each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from overlay.core.capture.classic_bpf import (
    JUMP,
    LOAD_BYTE,
    LOAD_HALF,
    LOAD_WORD,
    RETURN,
    UNLESS_EQUAL,
    Instruction,
    Program,
)
from overlay.model import Ip


class _Field(NamedTuple):
    """A value at an offset of an Ethernet frame."""

    load: int
    offset: int
    value: int


_IPV4: Final = _Field(LOAD_HALF, 12, 0x0800)
_ARP: Final = _Field(LOAD_HALF, 12, 0x0806)
_IPV6: Final = _Field(LOAD_HALF, 12, 0x86DD)
_SOLICITATION: Final = (_Field(LOAD_BYTE, 20, 58), _Field(LOAD_BYTE, 54, 135))  # RFC 4861


def with_addresses(ips: Iterable[Ip], then: Program) -> Program:
    """Return the program that accepts what `then` accepts of the frames of some addresses.

    A frame is of an address that it comes from, goes to, or asks for.
    """
    alternatives = [list(each) for ip in ips for each in _alternatives(ip)]
    sizes = [2 * len(each) + 1 for each in alternatives]
    found: list[Instruction] = []
    for number, fields in enumerate(alternatives):
        for at, field in enumerate(fields):
            found.append(Instruction(field.load, 0, 0, field.offset))
            to_next = sizes[number] - (2 * at + 2)
            found.append(Instruction(UNLESS_EQUAL, 0, to_next, field.value))
        found.append(Instruction(JUMP, 0, 0, sum(sizes[number + 1 :]) + 1))
    return (*found, Instruction(RETURN, 0, 0, 0), *then)


def _alternatives(ip: Ip) -> Iterator[list[_Field]]:
    """Yield the fields that a frame of an address has, in any of several ways."""
    if len(ip) == 4:
        for start, offset in ((_IPV4, 26), (_IPV4, 30), (_ARP, 28), (_ARP, 38)):
            yield [start, *_words(offset, ip)]
        return
    for offset in (22, 38):
        yield [_IPV6, *_words(offset, ip)]
    yield [_IPV6, *_SOLICITATION, *_words(62, ip)]  # its destination is a group of many addresses


def _words(offset: int, ip: Ip) -> Iterator[_Field]:
    for at in range(0, len(ip), 4):
        yield _Field(LOAD_WORD, offset + at, int.from_bytes(ip[at : at + 4], "big"))
