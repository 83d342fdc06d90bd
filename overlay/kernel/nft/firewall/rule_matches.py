"""Compare a rule of nftables with VXLAN packets, expression by expression (nf_tables.h).

A register holds the values that the packets may have there; where these are not known, what is
compared with them is not known either. Whatever drops, queues or changes a packet judges it.

Owns: the meaning of the expressions that firewalls use. Any other is taken for a match that is not
known. Does not: read rules (`reader`), or follow them (`core.native.firewall`).
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, TypeAlias

from overlay.core.native.firewall import HARMLESS_TARGETS, VxlanTraffic
from overlay.core.netcheck.packet_filter import Action, Rule
from overlay.kernel.netlink.codec import attributes
from overlay.kernel.nft.elements.expression_lists import decoded
from overlay.kernel.nft.expressions import interface_key
from overlay.kernel.nft.firewall.extensions import extension_matches

Values: TypeAlias = frozenset[bytes] | None
"""The values that packets may have in a field: empty if they lack the field, None if unknown."""

_NATIVE: Final = struct.Struct("=I")
_NUMBER: Final = struct.Struct(">I")
_REGISTERS_OF_16_BYTES, _FIRST_OF_4_BYTES = 4, 8
_NETWORK, _TRANSPORT = 1, 2
_UDP: Final = b"\x11"
_PROTOCOL, _IIF, _OIF, _IIFNAME, _OIFNAME, _NFPROTO, _L4PROTO = 1, 4, 5, 6, 7, 15, 16
_CT_STATE, _UNTRACKED = 0, 1 << 6  # NF_CT_STATE_UNTRACKED_BIT
_FIB_TYPE, _FIB_DADDR, _RTN_LOCAL = 3, 2, 2
_COMPARISONS: Final = {
    0: operator.eq,
    1: operator.ne,
    2: operator.lt,
    3: operator.le,
    4: operator.gt,
    5: operator.ge,
}
_VERDICT_REGISTER: Final = 0
_VERDICTS: Final = {
    1: Action.ACCEPT,
    -1: Action.NOTHING,
    -3: Action.JUMP,
    -4: Action.GOTO,
    -5: Action.RETURN,
}
# `ct` and `nat` do nothing to packets that are not tracked, as overlayd's are.
_HARMLESS: Final = frozenset({"counter", "log", "notrack", "last", "nat", "masq", "redir"})
_JUDGING: Final = frozenset({"reject", "queue", "tproxy", "synproxy", "dup", "fwd"})


class Element(NamedTuple):
    """An element of a set; `value` is a map's, encoded. The key is None for all other values."""

    key: bytes | None
    value: bytes


Elements: TypeAlias = Callable[[str], "SetContents | None"]
"""The contents of a set by name; None if they are not known."""


class SetContents(NamedTuple):
    """The elements of a set; those of an interval set by where an interval begins and ends."""

    elements: tuple[Element, ...]
    ends: frozenset[bytes]  # the keys behind intervals
    has_intervals: bool = False

    def holds(self, value: bytes) -> bool | None:
        """Return whether a value is in the set; None if that is not known."""
        keys = {each.key for each in self.elements}
        if any(key is None or _is_longer(key, value) for key in keys):
            return None
        known = {key for key in keys if key is not None}
        if not self.has_intervals:
            return any(_same(value, key) for key in known)
        before = [key for key in known | self.ends if key <= value]
        return bool(before) and max(before) in known


class RuleReader:
    """Compares the rules of one table with packets."""

    def __init__(self, traffic: VxlanTraffic, elements: Elements, *, is_untracked: bool) -> None:
        """Make a reader; `is_untracked` if all of the table comes after overlayd's exemption."""
        self._traffic = traffic
        self._elements = elements
        self._is_untracked = is_untracked
        self._is_ipv6 = len(traffic.own) == 16
        self._registers: dict[int, Values] = {}

    def rules(self, expressions: bytes, where: str, place: str) -> Iterator[Rule]:
        """Yield a rule; several if a map has its verdicts.

        `where` is what is said of it, and chains' names follow `place`. One that a newer kernel
        writes in another way may judge.
        """
        try:
            yield from self._rules(expressions, where, place)
        except (KeyError, struct.error):
            yield Rule(matches=None, action=Action.DROP, where=where)

    def _rules(self, expressions: bytes, where: str, place: str) -> Iterator[Rule]:
        matches: bool | None = True
        self._registers = {}
        for name, data in decoded(expressions):
            for verdict in self._verdicts(name, data):
                hit = _both(matches, verdict.matches)
                yield verdict._replace(matches=hit, where=where, to=f"{place}{verdict.to}")
            matches = _both(matches, self._match(name, data))
            if matches is False:
                return

    # --- verdicts -----------------------------------------------------------------------

    def _verdicts(self, name: str, data: dict[int, bytes]) -> Iterator[Rule]:
        if name == "immediate":
            if number_of(data, 1) == _VERDICT_REGISTER:
                yield _verdict(data.get(2, b""))
        elif name == "lookup":
            if 3 in data and number_of(data, 3) == _VERDICT_REGISTER:
                yield from self._mapped(data)
        elif name in _JUDGING or _changes(name, data):
            yield Rule(matches=True, action=Action.DROP)

    def _mapped(self, data: dict[int, bytes]) -> Iterator[Rule]:
        contents, values = self._elements(text_of(data[1])), self._register(data, 2)
        if contents is None or contents.has_intervals:
            yield Rule(matches=None, action=Action.DROP)
            return
        for element in contents.elements:
            hit = _all_or_none(values, SetContents((element,), frozenset()).holds)
            yield _verdict(element.value)._replace(matches=hit)

    # --- matches ------------------------------------------------------------------------

    def _match(self, name: str, data: dict[int, bytes]) -> bool | None:
        """Return whether packets go on behind an expression, and keep what it loads."""
        match name:
            case "immediate" if number_of(data, 1) == _VERDICT_REGISTER:
                return True
            case "meta" | "payload" | "ct" | "fib" | "immediate" | "bitwise":
                return self._load(name, data)
            case "cmp" | "range":
                return _compared(self._register(data, 1), name, data)
            case "lookup":
                return self._lookup(data)
            case "match":
                traffic, untracked = self._traffic, self._is_untracked
                of_match = text_of(data[1]), number_of(data, 2), data.get(3, b"")
                return extension_matches(*of_match, traffic, is_untracked=untracked)
            case "target":
                return True
        if name in _HARMLESS:
            return True
        self._registers = {}  # it may have written to any
        return None

    def _lookup(self, data: dict[int, bytes]) -> bool | None:
        contents = self._elements(text_of(data[1]))
        if 3 in data:  # a map: what it has is not known
            self._registers = {}
            return None
        hit = None if contents is None else _all_or_none(self._register(data, 2), contents.holds)
        return hit if hit is None or not number_of(data, 5) & 1 else not hit

    # --- loads --------------------------------------------------------------------------

    def _load(self, name: str, data: dict[int, bytes]) -> bool | None:
        values: Values
        match name:
            case "immediate":
                register, values = 1, frozenset({value_of(data.get(2, b""))})
            case "bitwise":
                register, values = 2, self._masked(data)
            case "payload":
                register, values = 1, self._payload(data)
            case "meta":
                register, values = 1, self._meta(number_of(data, 2))
            case "ct":
                register, values = 1, self._tracking(number_of(data, 2))
            case _:
                register, values = 1, self._fib(data)
        if register not in data:  # it writes to the packet
            return True
        if values is not None and not values:
            return False
        self._registers[_word(number_of(data, register))] = values
        return True

    def _register(self, data: dict[int, bytes], at: int) -> Values:
        return self._registers.get(_word(number_of(data, at)))

    def _masked(self, data: dict[int, bytes]) -> Values:
        values = self._register(data, 1)
        if values is None or number_of(data, 6) != 0 or not {4, 5} <= data.keys():
            return None
        mask, other = value_of(data[4]), value_of(data[5])
        return frozenset(
            bytes(v & m ^ o for v, m, o in zip(value, mask, other, strict=False))
            for value in values
        )

    def _payload(self, data: dict[int, bytes]) -> Values:
        base, offset, size = (number_of(data, at) for at in (2, 3, 4))
        if base == _TRANSPORT:
            port = struct.pack(">H", self._traffic.port)
            return frozenset({port}) if (offset, size) == (2, 2) else None
        if base != _NETWORK:
            return None
        length = 16 if self._is_ipv6 else 4
        if (offset, size) == ((6, 1) if self._is_ipv6 else (9, 1)):
            return frozenset({_UDP})
        first = 8 if self._is_ipv6 else 12
        if first <= offset and offset + size <= first + 2 * length:
            at, traffic = offset - first, self._traffic  # one of both is this host's address
            pairs = (bytes(s + t) for s in traffic.sources for t in traffic.targets)
            return frozenset(pair[at : at + size] for pair in pairs)
        return None

    def _meta(self, key: int) -> Values:
        traffic = self._traffic
        here = (_IIF, _IIFNAME) if traffic.incoming else (_OIF, _OIFNAME)
        if key in (_IIF, _OIF):
            indexes = {index for index, _ in traffic.interfaces} if key in here else {0}
            return frozenset(map(_NATIVE.pack, indexes))
        if key in (_IIFNAME, _OIFNAME):
            names = {name for _, name in traffic.interfaces} if key in here else {""}
            return frozenset(interface_key(name) for name in names)
        known = {
            _PROTOCOL: b"\x86\xdd" if self._is_ipv6 else b"\x08\x00",
            _NFPROTO: b"\x0a" if self._is_ipv6 else b"\x02",
            _L4PROTO: _UDP,
        }
        return frozenset({known[key]}) if key in known else None

    def _tracking(self, key: int) -> Values:
        if not self._is_untracked:
            return None
        return frozenset({_NATIVE.pack(_UNTRACKED)} if key == _CT_STATE else ())

    def _fib(self, data: dict[int, bytes]) -> Values:
        is_of_target = (number_of(data, 2), number_of(data, 3)) == (_FIB_TYPE, _FIB_DADDR)
        is_known = is_of_target and self._traffic.incoming
        return frozenset({_NATIVE.pack(_RTN_LOCAL)}) if is_known else None


def _compared(values: Values, name: str, data: dict[int, bytes]) -> bool | None:
    wanted, operation = value_of(data[3]), number_of(data, 2)
    size = len(wanted)
    if values is None or any(len(value) < size for value in values):
        return None
    if name == "cmp":
        compare = _COMPARISONS[operation]
        return _all_or_none(values, lambda value: compare(value[:size], wanted))
    last = value_of(data[4])
    hit = _all_or_none(values, lambda value: wanted <= value[:size] <= last)
    return hit if hit is None or operation == 0 else not hit


def _changes(name: str, data: dict[int, bytes]) -> bool:
    """Return whether an expression writes to the packet, or to what the kernel knows of it."""
    if name == "target":
        return text_of(data[1]) not in HARMLESS_TARGETS
    source = {"meta": 3, "payload": 5, "exthdr": 7}.get(name)
    return source is not None and source in data


def _verdict(data: bytes) -> Rule:
    inner = attributes(data, 0, len(data)).get(2, b"")
    parts = attributes(inner, 0, len(inner))
    (code,) = struct.unpack(">i", parts.get(1, bytes(4)))
    return Rule(True, _VERDICTS.get(code, Action.DROP), to=text_of(parts.get(2, b"")))


def _all_or_none(values: Values, holds: Callable[[bytes], bool | None]) -> bool | None:
    """Return whether something holds of all values, or of none; None if that is not known."""
    if values is None:
        return None
    hits = {holds(value) for value in values}
    return hits.pop() if len(hits) == 1 else (None if hits else False)


def _both(first: bool | None, second: bool | None) -> bool | None:
    if first is False or second is False:
        return False
    return None if first is None or second is None else True


def _same(value: bytes, key: bytes) -> bool:
    return value.ljust(len(key), b"\0") == key


def _is_longer(key: bytes, value: bytes) -> bool:
    """Return whether a key has more than one value's registers: several are compared together."""
    return len(key) > (len(value) + 3 & ~3)


def _word(register: int) -> int:
    """Return where a register begins, in words of 4 bytes."""
    if register <= _REGISTERS_OF_16_BYTES:
        return 4 * (register - 1)
    return register - _FIRST_OF_4_BYTES


def number_of(data: dict[int, bytes], at: int) -> int:
    """Return an attribute's number; 0 without it."""
    return int(_NUMBER.unpack(data[at])[0]) if at in data else 0


def value_of(nested: bytes) -> bytes:
    """Return the value of an attribute's data (`nft_data_attributes`)."""
    return attributes(nested, 0, len(nested)).get(1, b"")


def text_of(raw: bytes) -> str:
    """Return an attribute's string."""
    return raw.rstrip(b"\0").decode("utf-8", "surrogateescape")
