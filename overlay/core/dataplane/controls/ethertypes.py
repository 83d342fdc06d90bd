"""EtherTypes that a port may send beside IP and ARP, as text: `all`, or `0x88f7,llc`.

Owns: reading and writing that text, and the types that nobody can be allowed.
"""

from __future__ import annotations

import re
from typing import Final

from overlay import limits
from overlay.core.dataplane.state import ANY_ETHERTYPE
from overlay.errors import UsageError

ALL, NONE = "all", "none"
_LLC: Final = 0x0004  # what Linux calls a frame with a length in place of a type
_NAMES: Final = {"llc": _LLC}
_TYPE: Final = re.compile(r"(0x)?[0-9a-f]{4}", re.IGNORECASE)
_LENGTH_MAX: Final = 0x05DC  # IEEE 802.3: a larger number is a type
_CHECKED: Final = {0x0800: "IPv4", 0x0806: "ARP", 0x86DD: "IPv6"}
_TAGS: Final = frozenset({0x8100, 0x88A8, 0x9100, 0x9200})
_OF_SWITCHES: Final = {0x88CC: "LLDP", 0x8809: "LACP", 0x8808: "flow control"}


def parse_ethertypes(text: str, field: str) -> tuple[int, ...]:
    """Return the types of a text, sorted; none for an empty one and `none`. Raises UsageError."""
    words = [word.strip().lower() for word in text.split(",")]
    if words in ([""], [NONE]):
        return ()
    if words == [ALL]:
        return (ANY_ETHERTYPE,)
    found = {_parse(word, field) for word in words}
    if len(found) > limits.ETHERTYPES_MAX:
        raise UsageError(
            f"{len(found)} EtherTypes are too many; {limits.ETHERTYPES_MAX} is the limit",
            hint=f"Allow all of them: {ALL}",
            field=field,
        )
    return tuple(sorted(found))


def _parse(word: str, field: str) -> int:
    if word in _NAMES:
        return _NAMES[word]
    if not _TYPE.fullmatch(word):
        raise UsageError(
            f"{word!r} is not an EtherType",
            hint=f"Four hexadecimal digits, such as 0x88f7 (PTP); llc; {ALL}, or {NONE}; several "
            "with commas between them",
            field=field,
        )
    number = int(word, 16)
    why = _refusal(number)
    if why:
        raise UsageError(
            f"EtherType 0x{number:04x} cannot be allowed", why=why, hint="Leave it out", field=field
        )
    return number


def _refusal(number: int) -> str:
    """Return why a type cannot be allowed; empty if it can."""
    if number in _CHECKED:
        return f"it is {_CHECKED[number]}, which every container may send from its own addresses"
    if number in _TAGS:
        return "it is that of a VLAN tag, behind which a container could forge any address"
    if number in _OF_SWITCHES:
        return f"it is {_OF_SWITCHES[number]}, by which switches talk to each other"
    return "it is a length, as in frames of the kind llc" if number <= _LENGTH_MAX else ""


def ethertypes_text(types: tuple[int, ...]) -> str:
    """Return the text of types; an empty one for none."""
    if ANY_ETHERTYPE in types:
        return ALL
    names = {number: name for name, number in _NAMES.items()}
    return ",".join(names.get(each, f"0x{each:04x}") for each in sorted(types))


def stored_ethertypes(text: str) -> tuple[int, ...]:
    """Return the types in a label; of one that no agent writes, none."""
    try:
        return parse_ethertypes(text, "")
    except UsageError:
        return ()
