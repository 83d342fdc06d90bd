"""Expressions that translate the source of connections, and say what became of them (nft(8))."""

from __future__ import annotations

import struct
from typing import Final

from overlay.kernel.nft import expressions as ex
from overlay.kernel.nft.expressions import Expression, Rule, number

_NAT_SOURCE: Final = 0
_META_PRIORITY: Final = 2
_CT_STATE, _CT_MARK = 0, 3
_NEW: Final = 8  # NF_CT_STATE_BIT of IP_CT_NEW
_REG_2, _REG_3 = 2, 3
_NATIVE: Final = struct.Struct("=I")


def source_to(ip: bytes, first: int = 0, last: int = 0) -> Rule:
    """Translate the connection's source to an address, and to a port of a range unless it is 0.

    What is no port, as in an echo of ICMP, is an identifier.
    """
    family = ex.IPV4_PROTOCOL if len(ip) == 4 else ex.IPV6_PROTOCOL
    data = ((1, number(_NAT_SOURCE)), (2, number(family[0])), (3, number(ex.REG_1)))
    if not first:
        return (ex.load(ex.REG_1, ip), Expression("nat", data))
    ports = ((5, number(_REG_2)), (6, number(_REG_3)))
    return (
        ex.load(ex.REG_1, ip),
        ex.load(_REG_2, struct.pack(">H", first)),
        ex.load(_REG_3, struct.pack(">H", last)),
        Expression("nat", (*data, *ports)),
    )


def set_priority(priority: int) -> Rule:
    """Set the packet's priority, which stays with it in this namespace."""
    return (
        ex.load(ex.REG_1, _NATIVE.pack(priority)),
        Expression("meta", ((2, number(_META_PRIORITY)), (3, number(ex.REG_1)))),
    )


def ct_new() -> Rule:
    """Match packets of connections that nobody has answered yet."""
    bits = _NATIVE.pack(_NEW)
    return (_load_ct(_CT_STATE), ex.masked(bits), ex.equals(bits))


def ct_has_mark(mark: int) -> Rule:
    """Match packets of connections with this mark."""
    return (_load_ct(_CT_MARK), ex.equals(_NATIVE.pack(mark)))


def set_ct_mark(mark: int) -> Rule:
    """Set the connection's mark, which lives as long as the connection."""
    key, register = (2, number(_CT_MARK)), (4, number(ex.REG_1))
    return (ex.load(ex.REG_1, _NATIVE.pack(mark)), Expression("ct", (key, register)))


def _load_ct(key: int) -> Expression:
    return Expression("ct", ((1, number(ex.REG_1)), (2, number(key))))
