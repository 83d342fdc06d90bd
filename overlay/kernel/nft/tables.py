"""Write, compare and change nftables tables, in transactions.

Owns: the messages of nf_tables (linux/netfilter/nf_tables.h).
Does not: define overlayd's tables; see `host_table`, `port_security` and `underlay_filter`.

Neither nft(8) nor pyroute2 is used: a process for every attach takes 10 ms or more instead of 0.1,
the program must be installed, and its output differs between versions; pyroute2 0.9.7 knows five of
some forty expressions. The required part of the protocol is small.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from overlay import failpoint
from overlay.errors import OverlayError
from overlay.kernel import netns
from overlay.kernel.netlink import codec
from overlay.kernel.netlink.codec import NetlinkMessage, Request, attribute, attributes
from overlay.kernel.netlink.socket import LostNotificationsError, NetlinkError, NetlinkSocket
from overlay.kernel.nft.expressions import Rule, encoded, matches, number, packets, text

FAMILY_UNSPEC, FAMILY_INET, FAMILY_BRIDGE = 0, 1, 7
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = (
    0,
    1,
    2,
    3,
    4,
)  # NF_INET_*; NF_BR_PRE_ROUTING is 0 too
_NETLINK_NETFILTER: Final = 12  # linux/netlink.h
SUBSYSTEM: Final = 10 << 8  # NFNL_SUBSYS_NFTABLES
_NEW_TABLE, _GET_TABLE, _DELETE_TABLE, _NEW_CHAIN, GET_CHAIN = 0, 1, 2, 3, 4
NEW_RULE, GET_RULE, _NEW_SET, _GET_SET = 6, 7, 9, 10
_NEW_ELEMENT, _GET_ELEMENT, _DELETE_ELEMENT, _NEW_GENERATION = 12, 13, 14, 15
_BATCH_BEGIN, _BATCH_END = 16, 17
_GROUP: Final = 7  # NFNLGRP_NFTABLES
_HEADER: Final = struct.Struct(">BBH")  # family, version, resource: NFNL_SUBSYS in a batch
_LIST_ELEMENT: Final = 1
_POLICY_ACCEPT: Final = 1
_TABLE_FLAGS: Final = 2
_DORMANT, _OWNED = 1, 2  # NFT_TABLE_F_DORMANT, NFT_TABLE_F_OWNER
_CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 3, 4, 5, 7
_SET_NAME, _SET_FLAGS, _SET_KEY_TYPE, _SET_KEY_SIZE, _SET_ID, _SET_NOTE = 2, 3, 4, 5, 10, 13
_RULE_CHAIN, _RULE_EXPRESSIONS = 2, 4
_ELEMENTS: Final = 3
_ELEMENT_KEY: Final = 1
_DATA_VALUE: Final = 1
# Errors of a kernel without nf_tables, or without a family or an expression that overlayd needs.
_ABSENT: Final = frozenset({errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT})
# In a batch that creates all it refers to, only an expression or a chain type can be missing.
_ABSENT_PART: Final = _ABSENT | {errno.ENOENT}
_ELEMENTS_PER_MESSAGE: Final = 1_000  # of 48 bytes at most: an attribute holds 64 KiB
_NOTIFICATIONS: Final = 256

Elements: TypeAlias = Mapping[str, frozenset[bytes]]  # by set


@dataclass(frozen=True, slots=True)
class Set:
    """A set of a table.

    `key_type` and `note` only tell nft(8) how to print the keys, so that the output of
    `nft list ruleset` can be read back.
    """

    name: str
    key_type: int
    key_size: int
    note: bytes = b""


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


class NftMissingError(OverlayError):
    """The kernel has no nftables, or lacks a part of it that overlayd needs."""


class NftTables:
    """Reads and writes the tables of one network namespace.

    Every write is one transaction.
    """

    def __init__(self, netns_fd: int | None = None) -> None:
        """Open a socket in the namespace. Raises NftMissingError without nftables."""
        self._socket = _open(netns_fd)

    @property
    def port_id(self) -> int:
        """Return this socket's port id, which its notifications carry."""
        return self._socket.port_id

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    # --- writing ------------------------------------------------------------------------

    def replace(self, table: Table, elements: Elements) -> None:
        """Create a table or replace that of its name, in one transaction.

        No packet passes without one of the two. Raises NftMissingError, OSError.
        """
        head = [_new_table(table), _delete_table(table.family, table.name), _new_table(table)]
        body = [*_sets(table), *_chains(table), *_rules(table)]
        self._transact([*head, *body, *_put_elements(table, elements)], _ABSENT_PART)

    def probe(self, table: Table) -> None:
        """Raise NftMissingError if the kernel does not support such a table.

        Leaves no trace.
        """
        trial = Table(table.family, f"{table.name}_trial", table.sets, table.chains)
        body = [_new_table(trial), *_sets(trial), *_chains(trial), *_rules(trial)]
        self._transact([*body, _delete_table(trial.family, trial.name)], _ABSENT_PART)

    def change(self, table: Table, put: Elements, delete: Elements) -> None:
        """Add and delete set elements in one transaction.

        Raises FileExistsError or FileNotFoundError if the table is not as expected.
        """
        steps = [*_put_elements(table, put), *_elements(_DELETE_ELEMENT, table, delete)]
        if steps:
            self._transact(steps)

    def delete(self, family: int, name: str) -> bool:
        """Delete a table; return False if there is none. Raises OSError."""
        try:
            self._transact([_delete_table(family, name)])
        except FileNotFoundError:
            return False
        return True

    def _transact(self, steps: list[Request], absent: frozenset[int] = _ABSENT) -> None:
        failpoint.failpoint("nftables.batch")
        mark = _HEADER.pack(0, 0, SUBSYSTEM >> 8)
        whole = [(_BATCH_BEGIN, 0, mark), *steps, (_BATCH_END, 0, mark)]
        for refusal in self._socket.atomically(whole):
            error = OSError(refusal.errno, str(refusal))
            if refusal.errno in absent:
                raise _missing(error)
            raise error

    # --- reading ------------------------------------------------------------------------

    def names(self) -> list[tuple[int, str]]:
        """Return all tables as (family, name); none on a kernel without nftables."""
        try:
            found = self._dump(_GET_TABLE, FAMILY_UNSPEC)
        except NftMissingError:
            return []
        return [(message.buffer[message.start], _text(parts[1])) for message, parts in found]

    def holds(self, table: Table) -> bool:
        """Return whether the kernel's table is this one, elements aside."""
        try:
            chains = dict(self._chains_of(table))
            rules: dict[str, list[bytes]] = {name: [] for name in chains}
            for chain, raw in self._rules_of(table):
                rules.setdefault(chain, []).append(raw)
            sets = set(self._sets_of(table))
            dormant = self._is_dormant(table)
        except FileNotFoundError:
            return False
        wanted_chains = {chain.name: _chain_parts(chain) for chain in table.chains}
        return (
            not dormant
            and sets == {(each.name, each.key_size) for each in table.sets}
            and chains.keys() == wanted_chains.keys()
            and all(
                chains[name].get(kind) == value
                for name, parts in wanted_chains.items()
                for kind, value in parts
            )
            and all(_same_rules(chain.rules, rules[chain.name]) for chain in table.chains)
        )

    def elements(self, table: Table) -> dict[str, frozenset[bytes]]:
        """Return the elements by set.

        Raises FileNotFoundError if there is no such table.
        """
        return {each.name: self._elements_of(table, each.name) for each in table.sets}

    def counted(self, table: Table) -> list[int]:
        """Return the packet counts of the rules with a counter, in order."""
        try:
            found = [packets(raw) for _, raw in self._rules_of(table)]
        except FileNotFoundError:
            return []
        return [count for count in found if count is not None]

    def _dump(
        self, kind: int, family: int, body: bytes = b""
    ) -> list[tuple[NetlinkMessage, dict[int, bytes]]]:
        try:
            found = self._socket.dump(SUBSYSTEM | kind, _HEADER.pack(family, 0, 0) + body)
        except NetlinkError as error:
            if error.errno in _ABSENT:
                raise _missing(error) from error
            raise OSError(error.errno, error.strerror) from error  # a FileNotFoundError, mostly
        return [(each, attributes(each.buffer, each.start + 4, each.end)) for each in found]

    def _is_dormant(self, table: Table) -> bool:
        """Return whether the table is switched off (NFT_TABLE_F_DORMANT)."""
        return any(
            int.from_bytes(parts.get(_TABLE_FLAGS, b""), "big") & _DORMANT
            for _, parts in self._dump(_GET_TABLE, table.family)
            if _text(parts[1]) == table.name
        )

    def _chains_of(self, table: Table) -> Iterator[tuple[str, dict[int, bytes]]]:
        for _, parts in self._dump(GET_CHAIN, table.family):
            if _text(parts[1]) == table.name:
                hook = parts.get(_CHAIN_HOOK, b"")
                inner = attributes(hook, 0, len(hook))
                parts[_CHAIN_HOOK] = b"".join(attribute(at, inner[at]) for at in (1, 2) if inner)
                yield _text(parts[_CHAIN_NAME]), parts

    def _rules_of(self, table: Table) -> Iterator[tuple[str, bytes]]:
        for _, parts in self._dump(GET_RULE, table.family, attribute(1, text(table.name))):
            if _text(parts[1]) == table.name:
                yield _text(parts[_RULE_CHAIN]), parts.get(_RULE_EXPRESSIONS, b"")

    def _sets_of(self, table: Table) -> Iterator[tuple[str, int]]:
        for _, parts in self._dump(_GET_SET, table.family, attribute(1, text(table.name))):
            if _text(parts[1]) == table.name:
                yield _text(parts[_SET_NAME]), int.from_bytes(parts[_SET_KEY_SIZE], "big")

    def _elements_of(self, table: Table, name: str) -> frozenset[bytes]:
        body = attribute(1, text(table.name)) + attribute(2, text(name))
        found = set()
        for _, parts in self._dump(_GET_ELEMENT, table.family, body):
            raw = parts.get(_ELEMENTS, b"")
            position = 0
            while position + 4 <= len(raw):
                (length,) = struct.unpack_from("=H", raw, position)
                element = attributes(raw, position + 4, position + length)
                key = element[_ELEMENT_KEY]
                found.add(attributes(key, 0, len(key))[_DATA_VALUE])
                position += (length + 3) & ~3
        return frozenset(found)


class Monitor:
    """Watches a namespace for changes of tables. Never blocks."""

    def __init__(self, netns_fd: int | None = None) -> None:
        """Start watching. Raises NftMissingError without nftables."""
        self._socket = _open(netns_fd, _GROUP)

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when something changes."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop watching."""
        self._socket.close()

    def touched(self, table_names: Collection[str], own: Collection[int]) -> bool:
        """Return whether another program changed one of the tables.

        `own` are port ids. True if notifications were lost.
        """
        names = {text(name) for name in table_names}
        try:
            waiting = self._socket.notifications(_NOTIFICATIONS)
        except LostNotificationsError:
            return True
        return any(
            message.kind != SUBSYSTEM | _NEW_GENERATION
            and _sender(message) not in own
            and attributes(message.buffer, message.start + 4, message.end).get(1) in names
            for message in waiting
        )


# --- messages -------------------------------------------------------------------------------


def header(family: int) -> bytes:
    """Return the header of a message about a family (struct nfgenmsg)."""
    return _HEADER.pack(family, 0, 0)


def _request(kind: int, table: Table, body: bytes, *, create: bool = True) -> Request:
    flags = codec.NLM_F_CREATE if create else 0
    head = _HEADER.pack(table.family, 0, 0) + attribute(1, text(table.name))
    return (SUBSYSTEM | kind, flags, head + body)


def _new_table(table: Table) -> Request:
    flags = _OWNED if table.is_owned else 0
    return _request(_NEW_TABLE, table, attribute(_TABLE_FLAGS, number(flags)))


def _delete_table(family: int, name: str) -> Request:
    return _request(_DELETE_TABLE, Table(family, name, (), ()), b"", create=False)


def _sets(table: Table) -> Iterator[Request]:
    for at, each in enumerate(table.sets, 1):
        body = (
            attribute(_SET_NAME, text(each.name))
            + attribute(_SET_FLAGS, number(0))
            + attribute(_SET_KEY_TYPE, number(each.key_type))
            + attribute(_SET_KEY_SIZE, number(each.key_size))
            + attribute(_SET_ID, number(at))
            + (attribute(_SET_NOTE, each.note) if each.note else b"")
        )
        yield _request(_NEW_SET, table, body)


def _chain_parts(chain: Chain) -> list[tuple[int, bytes]]:
    if chain.hook is None:
        return [(_CHAIN_HOOK, b"")]
    where, priority = chain.hook
    hook = attribute(1, number(where)) + attribute(2, number(priority & 0xFFFFFFFF))
    return [
        (_CHAIN_HOOK, hook),
        (_CHAIN_POLICY, number(_POLICY_ACCEPT)),
        (_CHAIN_TYPE, text(chain.kind)),
    ]


def _chains(table: Table) -> Iterator[Request]:
    for chain in table.chains:
        parts = [(kind, value) for kind, value in _chain_parts(chain) if value]
        body = b"".join(attribute(kind, value) for kind, value in parts)
        yield _request(_NEW_CHAIN, table, attribute(_CHAIN_NAME, text(chain.name)) + body)


def _rules(table: Table) -> Iterator[Request]:
    for chain in table.chains:
        for rule in chain.rules:
            body = attribute(_RULE_CHAIN, text(chain.name))
            body += attribute(_RULE_EXPRESSIONS, encoded(rule))
            kind, flags, raw = _request(NEW_RULE, table, body)
            yield (kind, flags | codec.NLM_F_APPEND, raw)


def _put_elements(table: Table, elements: Elements) -> Iterator[Request]:
    return _elements(_NEW_ELEMENT, table, elements)


def _elements(kind: int, table: Table, elements: Elements) -> Iterator[Request]:
    for name, keys in elements.items():
        for chunk in _chunks(sorted(keys)):
            listed = b"".join(
                attribute(_LIST_ELEMENT, attribute(_ELEMENT_KEY, attribute(_DATA_VALUE, key)))
                for key in chunk
            )
            body = attribute(2, text(name)) + attribute(_ELEMENTS, listed)
            yield _request(kind, table, body, create=kind == _NEW_ELEMENT)


def _chunks(keys: list[bytes]) -> Iterable[list[bytes]]:
    return (
        keys[at : at + _ELEMENTS_PER_MESSAGE] for at in range(0, len(keys), _ELEMENTS_PER_MESSAGE)
    )


def _same_rules(rules: tuple[Rule, ...], shown: list[bytes]) -> bool:
    return len(rules) == len(shown) and all(map(matches, rules, shown))


def _open(netns_fd: int | None, *groups: int) -> NetlinkSocket:
    try:
        return NetlinkSocket(netns_fd, protocol=_NETLINK_NETFILTER, groups=groups)
    except OSError as error:
        if error.errno in netns.SHORTAGE:
            raise
        raise _missing(error) from error


def _sender(message: NetlinkMessage) -> int:
    """Return the port id of the socket that made the notified change."""
    header = codec.HEADER.unpack_from(message.buffer, message.start - codec.HEADER.size)
    return int(header[4])


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("ascii", "replace")


def _missing(error: OSError) -> NftMissingError:
    return NftMissingError(
        "this kernel has no nftables, or lacks a part of it",
        why=error.strerror or str(error),
        hint="Load the module (modprobe nf_tables); slim kernels keep it in a package such as "
        "linux-modules-extra",
    )
