"""An nftables table as a value, and the elements of its sets.

Owns: families, hooks, chains and sets (linux/netfilter.h, linux/netfilter/nf_tables.h).
Does not: read or write tables (`tables`), or define any of overlayd's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from overlay.kernel.nft.expressions import Rule
from overlay.model import NodeId

FAMILY_UNSPEC, FAMILY_INET, FAMILY_BRIDGE = 0, 1, 7
# NF_INET_*; NF_BR_PRE_ROUTING is 0 too
PREROUTING, FORWARD, OUTPUT, POSTROUTING = 0, 2, 3, 4

OWN_TABLES: Final = "overlayd"
"""Prefix of the names of overlayd's tables, also of other nodes' on this host."""
SERVICES_PREFIX: Final = f"{OWN_TABLES}_services_"
"""That of the tables of virtual addresses."""
Elements: TypeAlias = Mapping[str, frozenset[bytes]]
"""Elements by set; an element of a map is its key, followed by its value."""


def services_table_name(node_id: NodeId) -> str:
    """Return the name of a node's tables of virtual addresses."""
    return f"{SERVICES_PREFIX}{node_id[:3].hex()}"


@dataclass(frozen=True, slots=True)
class Set:
    """A set of a table; a map if its elements have values.

    The types and `note` only tell nft(8) how to print the elements, so that the output of
    `nft list ruleset` can be read back. With `size`, packets add elements, at most so many, each
    with a counter, or for `timeout_ms`; they are no part of what the table should be. With
    `expires`, overlayd's own elements may have a time, after which the kernel removes them.
    """

    name: str
    key_type: int
    key_size: int
    note: bytes = b""
    value_type: int = 0
    value_size: int = 0
    size: int = 0
    timeout_ms: int = 0
    expires: bool = False


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of rules.

    `hook` is (hook number, priority), None for a chain entered by goto.
    """

    name: str
    rules: tuple[Rule, ...]
    hook: tuple[int, int] | None = None
    kind: str = "filter"  # or "nat", which sees only the first packet of each connection


@dataclass(frozen=True, slots=True)
class Table:
    """A whole table, except the elements of its sets."""

    family: int
    name: str
    sets: tuple[Set, ...]
    chains: tuple[Chain, ...]
    is_owned: bool = False  # the kernel deletes it with the socket that made it
