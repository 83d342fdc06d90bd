"""The messages that create and delete tables, chains, rules, sets and elements.

Owns: the numbers and attributes of nf_tables (linux/netfilter/nf_tables.h).
Does not: send them (`tables`).
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from typing import Final

from overlay.kernel.netlink import codec
from overlay.kernel.netlink.codec import Request, attribute
from overlay.kernel.nft.elements.expression_lists import encoded
from overlay.kernel.nft.expressions import number, text
from overlay.kernel.nft.table import Chain, Elements, Set, Table

SUBSYSTEM: Final = 10 << 8  # NFNL_SUBSYS_NFTABLES
NEW_TABLE, GET_TABLE, DELETE_TABLE, NEW_CHAIN, GET_CHAIN = 0, 1, 2, 3, 4
NEW_RULE, GET_RULE, NEW_SET, GET_SET = 6, 7, 9, 10
NEW_ELEMENT, GET_ELEMENT, DELETE_ELEMENT, NEW_GENERATION, GET_GENERATION = 12, 13, 14, 15, 16
TABLE_FLAGS: Final = 2
CHAIN_NAME, CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 3, 4, 5, 7
SET_NAME, _SET_FLAGS, _SET_KEY_TYPE, SET_KEY_SIZE, _SET_VALUE_TYPE, SET_VALUE_SIZE = (
    2,
    3,
    4,
    5,
    6,
    7,
)
_SET_DESC, _SET_ID, _SET_TIMEOUT, _SET_NOTE, _SET_EXPRESSION = 9, 10, 11, 13, 17
_DESC_SIZE: Final = 1
RULE_CHAIN, RULE_EXPRESSIONS = 2, 4
ELEMENTS: Final = 3
ELEMENT_KEY, ELEMENT_VALUE, _ELEMENT_TIMEOUT = 1, 2, 4
DATA_VALUE: Final = 1
_HEADER: Final = struct.Struct(">BBH")  # family, version, resource
_OWNED: Final = 2  # NFT_TABLE_F_OWNER
_IS_MAP, _HAS_TIMEOUTS, _IS_DYNAMIC = 8, 16, 32  # NFT_SET_MAP, NFT_SET_TIMEOUT, NFT_SET_EVAL
_U64: Final = struct.Struct(">Q")
_LIST_ELEMENT: Final = 1
_KEY_AT, _VALUE_AFTER = 12, 8  # bytes of headers of attributes before an element's key and value
_POLICY_ACCEPT: Final = 1
_ELEMENTS_PER_MESSAGE: Final = 900  # of 68 bytes at most: an attribute holds 64 KiB


def header(family: int) -> bytes:
    """Return the header of a message about a family (struct nfgenmsg)."""
    return _HEADER.pack(family, 0, 0)


def _request(kind: int, table: Table, body: bytes, *, create: bool = True) -> Request:
    flags = codec.NLM_F_CREATE if create else 0
    head = _HEADER.pack(table.family, 0, 0) + attribute(1, text(table.name))
    return (SUBSYSTEM | kind, flags, head + body)


def new_table(table: Table) -> Request:
    """Create a table without contents."""
    flags = _OWNED if table.is_owned else 0
    return _request(NEW_TABLE, table, attribute(TABLE_FLAGS, number(flags)))


def delete_table(family: int, name: str) -> Request:
    """Delete a table with its contents."""
    return _request(DELETE_TABLE, Table(family, name, (), ()), b"", create=False)


def new_sets(table: Table) -> Iterator[Request]:
    """Create a table's sets, empty."""
    for at, each in enumerate(table.sets, 1):
        body = (
            attribute(SET_NAME, text(each.name))
            + attribute(_SET_FLAGS, number(_flags(each)))
            + attribute(_SET_KEY_TYPE, number(each.key_type))
            + attribute(SET_KEY_SIZE, number(each.key_size))
            + (_value_parts(each) if each.value_size else b"")
            + attribute(_SET_ID, number(at))
            + (_dynamic_parts(each) if each.size else b"")
            + (attribute(_SET_NOTE, each.note) if each.note else b"")
        )
        yield _request(NEW_SET, table, body)


def _flags(each: Set) -> int:
    found = (_IS_MAP if each.value_size else 0) | (_IS_DYNAMIC if each.size else 0)
    return found | (_HAS_TIMEOUTS if each.expires or each.timeout_ms else 0)


def _dynamic_parts(each: Set) -> bytes:
    size = attribute(_SET_DESC, attribute(_DESC_SIZE, number(each.size)))
    if each.timeout_ms:
        return size + attribute(_SET_TIMEOUT, _U64.pack(each.timeout_ms))
    counter = attribute(1, text("counter")) + attribute(2, b"")
    return size + attribute(_SET_EXPRESSION, counter)


def _value_parts(each: Set) -> bytes:
    return attribute(_SET_VALUE_TYPE, number(each.value_type)) + attribute(
        SET_VALUE_SIZE, number(each.value_size)
    )


def chain_parts(chain: Chain) -> list[tuple[int, bytes]]:
    """Return the attributes that say where a chain is hooked."""
    if chain.hook is None:
        return [(CHAIN_HOOK, b"")]
    where, priority = chain.hook
    hook = attribute(1, number(where)) + attribute(2, number(priority & 0xFFFFFFFF))
    return [
        (CHAIN_HOOK, hook),
        (_CHAIN_POLICY, number(_POLICY_ACCEPT)),
        (_CHAIN_TYPE, text(chain.kind)),
    ]


def new_chains(table: Table) -> Iterator[Request]:
    """Create a table's chains, without rules."""
    for chain in table.chains:
        parts = [(kind, value) for kind, value in chain_parts(chain) if value]
        body = b"".join(attribute(kind, value) for kind, value in parts)
        yield _request(NEW_CHAIN, table, attribute(CHAIN_NAME, text(chain.name)) + body)


def new_rules(table: Table) -> Iterator[Request]:
    """Append the rules of a table's chains."""
    for chain in table.chains:
        for rule in chain.rules:
            body = attribute(RULE_CHAIN, text(chain.name))
            body += attribute(RULE_EXPRESSIONS, encoded(rule))
            kind, flags, raw = _request(NEW_RULE, table, body)
            yield (kind, flags | codec.NLM_F_APPEND, raw)


def put_elements(table: Table, elements: Elements, timeout_ms: int = 0) -> Iterator[Request]:
    """Add elements to a table's sets; with a timeout, the kernel removes them after it."""
    sizes = {each.name: each.key_size for each in table.sets}
    expiry = attribute(_ELEMENT_TIMEOUT, _U64.pack(timeout_ms)) if timeout_ms else b""
    for name, listed in elements.items():
        yield from _elements(NEW_ELEMENT, table, name, sizes[name], listed, expiry)


def delete_elements(table: Table, elements: Elements) -> Iterator[Request]:
    """Delete elements from a table's sets, by their keys."""
    sizes = {each.name: each.key_size for each in table.sets}
    for name, listed in elements.items():
        keys = {each[: sizes[name]] for each in listed}
        yield from _elements(DELETE_ELEMENT, table, name, sizes[name], keys)


def _elements(
    kind: int,
    table: Table,
    name: str,
    key_size: int,
    elements: Collection[bytes],
    expiry: bytes = b"",
) -> Iterator[Request]:
    ordered = sorted(elements)
    sizes = {len(each) for each in ordered} or {key_size}
    assert len(sizes) == 1, "the elements of a set have one size, and so equal headers"
    value_size = sizes.pop() - key_size
    whole = attribute(_LIST_ELEMENT, _element(bytes(key_size), bytes(value_size)) + expiry)
    key_at, value_at = _KEY_AT, _KEY_AT + (key_size + 3 & ~3) + _VALUE_AFTER
    start, between = whole[:key_at], whole[key_at + key_size : value_at]
    end = whole[value_at + value_size :]
    for at in range(0, len(ordered), _ELEMENTS_PER_MESSAGE):
        chunk = ordered[at : at + _ELEMENTS_PER_MESSAGE]
        listed = b"".join(
            start + each[:key_size] + between + each[key_size:] + end for each in chunk
        )
        body = attribute(2, text(name)) + attribute(ELEMENTS, listed)
        yield _request(kind, table, body, create=kind == NEW_ELEMENT)


def _element(key: bytes, value: bytes) -> bytes:
    encoded_key = attribute(ELEMENT_KEY, attribute(DATA_VALUE, key))
    return encoded_key + (attribute(ELEMENT_VALUE, attribute(DATA_VALUE, value)) if value else b"")
