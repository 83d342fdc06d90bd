"""Write, compare and change nftables tables, in transactions.

Owns: the socket, and what its answers mean.
Does not: define overlayd's tables; see `host_table`, `port_security` and `underlay_filter`.

Neither nft(8) nor pyroute2 is used: a process for every attach takes 10 ms or more instead of 0.1,
the program must be installed, and its output differs between versions; pyroute2 0.9.7 knows five of
some forty expressions. The required part of the protocol is small.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final

from overlay import failpoint
from overlay.errors import OverlayError
from overlay.kernel import netns
from overlay.kernel.netlink.codec import (
    NLM_F_EXCL,
    NetlinkMessage,
    Request,
    attribute,
    attributes,
)
from overlay.kernel.netlink.socket import LostNotificationsError, NetlinkError, NetlinkSocket
from overlay.kernel.nft.elements.expression_lists import matches, packets
from overlay.kernel.nft.expressions import Rule, text
from overlay.kernel.nft.messages import (
    CHAIN_HOOK,
    CHAIN_NAME,
    DATA_VALUE,
    ELEMENT_KEY,
    ELEMENT_VALUE,
    ELEMENTS,
    GET_CHAIN,
    GET_ELEMENT,
    GET_GENERATION,
    GET_RULE,
    GET_SET,
    GET_TABLE,
    NEW_GENERATION,
    RULE_CHAIN,
    RULE_EXPRESSIONS,
    SET_KEY_SIZE,
    SET_NAME,
    SET_VALUE_SIZE,
    SUBSYSTEM,
    TABLE_FLAGS,
    chain_parts,
    delete_elements,
    delete_table,
    header,
    new_chains,
    new_rules,
    new_sets,
    new_table,
    put_elements,
)
from overlay.kernel.nft.table import FAMILY_UNSPEC, Elements, Table

_NETLINK_NETFILTER: Final = 12  # linux/netlink.h
_BATCH_BEGIN, _BATCH_END = 16, 17
_GROUP: Final = 7  # NFNLGRP_NFTABLES
_HEADER: Final = struct.Struct(">BBH")  # family, version, resource: NFNL_SUBSYS in a batch
_DORMANT: Final = 1  # NFT_TABLE_F_DORMANT
_GENERATION_ID: Final = 1
_TABLE: Final = 1  # NFTA_TABLE_NAME, and the same number in all that is in a table
_SENDER: Final = struct.Struct("=I")  # nlmsg_pid, the end of struct nlmsghdr
_ATTRIBUTE: Final = struct.Struct("=HH")  # length, type
# Errors of a kernel without nf_tables, or without a family or an expression that overlayd needs.
_ABSENT: Final = frozenset({errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT})
# In a batch that creates all it refers to, only an expression or a chain type can be missing.
_ABSENT_PART: Final = _ABSENT | {errno.ENOENT}
_NOTIFICATIONS: Final = 256


class NftMissingError(OverlayError):
    """The kernel has no nftables, or lacks a part of it that overlayd needs."""


class NftTables:
    """Reads and writes the tables of one network namespace.

    Every write is one transaction.
    """

    def __init__(self, netns_fd: int | None = None, *, dump_size_max: int | None = None) -> None:
        """Open a socket in the namespace. Raises NftMissingError without nftables.

        Where others fill the tables, `dump_size_max` bounds what is read at once, in bytes: reading
        raises LargeDumpError beyond.
        """
        self._socket = _open(netns_fd, dump_size_max=dump_size_max)

    @property
    def port_id(self) -> int:
        """Return this socket's port id, which its notifications carry."""
        return self._socket.port_id

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    # --- writing ------------------------------------------------------------------------

    def replace(self, table: Table, elements: Elements, further: Iterable[Request] = ()) -> None:
        """Create a table or replace that of its name, in one transaction with further requests.

        No packet passes without one of the two. Raises NftMissingError, OSError.
        """
        head = [new_table(table), delete_table(table.family, table.name), new_table(table)]
        self._fill(head, table, elements, further)

    def create(self, table: Table, elements: Elements, further: Iterable[Request] = ()) -> bool:
        """Create a table, as `replace` does; return False if there is one of its name.

        Nothing is deleted, so that the kernel does not wait as it closes the socket.
        """
        kind, flags, body = new_table(table)
        try:
            self._fill([(kind, flags | NLM_F_EXCL, body)], table, elements, further)
        except FileExistsError:
            return False
        return True

    def _fill(
        self, head: list[Request], table: Table, elements: Elements, further: Iterable[Request]
    ) -> None:
        body = [*new_sets(table), *new_chains(table), *new_rules(table)]
        self._transact([*head, *body, *put_elements(table, elements), *further], _ABSENT_PART)

    def probe(self, table: Table) -> None:
        """Raise NftMissingError if the kernel does not support such a table.

        Leaves no trace.
        """
        trial = Table(table.family, f"{table.name}_trial", table.sets, table.chains)
        body = [new_table(trial), *new_sets(trial), *new_chains(trial), *new_rules(trial)]
        self._transact([*body, delete_table(trial.family, trial.name)], _ABSENT_PART)

    def change(
        self, table: Table, put: Elements, delete: Elements, further: Iterable[Request] = ()
    ) -> None:
        """Delete and add elements in one transaction; a map's may get another value by both.

        Raises FileExistsError or FileNotFoundError if the table is not as expected.
        """
        steps = [*delete_elements(table, delete), *put_elements(table, put), *further]
        if steps:
            self._transact(steps)

    def delete(self, family: int, name: str) -> bool:
        """Delete a table; return False if there is none. Raises OSError."""
        try:
            self._transact([delete_table(family, name)])
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
            found = self._dump(GET_TABLE, FAMILY_UNSPEC)
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
        wanted_chains = {chain.name: chain_parts(chain) for chain in table.chains}
        return (
            not dormant
            and sets == {(each.name, each.key_size, each.value_size) for each in table.sets}
            and chains.keys() == wanted_chains.keys()
            and all(
                chains[name].get(kind) == value
                for name, parts in wanted_chains.items()
                for kind, value in parts
            )
            and all(_same_rules(chain.rules, rules[chain.name]) for chain in table.chains)
        )

    def elements(self, table: Table) -> dict[str, frozenset[bytes]]:
        """Return the elements by set, without those that packets add.

        Raises FileNotFoundError if there is no such table.
        """
        fixed = (each.name for each in table.sets if not each.size)
        return {name: self.elements_of(table, name) for name in fixed}

    def counted(self, table: Table) -> list[int]:
        """Return the packet counts of the rules with a counter, in order."""
        try:
            found = [packets(raw) for _, raw in self._rules_of(table)]
        except FileNotFoundError:
            return []
        return [count for count in found if count is not None]

    def generation(self) -> int:
        """Return the number of the namespace's rules, which changes with every transaction."""
        request = (SUBSYSTEM | GET_GENERATION, 0, header(FAMILY_UNSPEC))
        reply = self._socket.get(request)[0]
        parts = attributes(reply.buffer, reply.start + 4, reply.end)
        return int.from_bytes(parts[_GENERATION_ID], "big")

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
            int.from_bytes(parts.get(TABLE_FLAGS, b""), "big") & _DORMANT
            for _, parts in self._dump(GET_TABLE, table.family)
            if _text(parts[1]) == table.name
        )

    def _chains_of(self, table: Table) -> Iterator[tuple[str, dict[int, bytes]]]:
        for _, parts in self._dump(GET_CHAIN, table.family):
            if _text(parts[1]) == table.name:
                hook = parts.get(CHAIN_HOOK, b"")
                inner = attributes(hook, 0, len(hook))
                parts[CHAIN_HOOK] = b"".join(attribute(at, inner[at]) for at in (1, 2) if inner)
                yield _text(parts[CHAIN_NAME]), parts

    def rules_of(self, family: int, name: str, chain: str) -> list[bytes]:
        """Return the rules of a chain, as dumped; none without it. Raises OSError."""
        try:
            found = list(self._rules_of(Table(family, name, (), ())))
        except FileNotFoundError:
            return []
        return [raw for at, raw in found if at == chain]

    def _rules_of(self, table: Table) -> Iterator[tuple[str, bytes]]:
        for _, parts in self._dump(GET_RULE, table.family, attribute(1, text(table.name))):
            if _text(parts[1]) == table.name:
                yield _text(parts[RULE_CHAIN]), parts.get(RULE_EXPRESSIONS, b"")

    def _sets_of(self, table: Table) -> Iterator[tuple[str, int, int]]:
        for _, parts in self._dump(GET_SET, table.family, attribute(1, text(table.name))):
            if _text(parts[1]) == table.name:
                sizes = parts[SET_KEY_SIZE], parts.get(SET_VALUE_SIZE, b"")
                key_size, value_size = (int.from_bytes(size, "big") for size in sizes)
                yield _text(parts[SET_NAME]), key_size, value_size

    def elements_of(self, table: Table, name: str) -> frozenset[bytes]:
        """Return the elements of one set. Raises FileNotFoundError if there is no such table."""
        return frozenset(
            _data(element[ELEMENT_KEY]) + _data(element.get(ELEMENT_VALUE, b""))
            for element in self.element_parts(table, name)
        )

    def element_parts(self, table: Table, name: str) -> Iterator[dict[int, bytes]]:
        """Yield the attributes of each element of one set.

        Raises FileNotFoundError if there is no such table.
        """
        body = attribute(1, text(table.name)) + attribute(2, text(name))
        for _, parts in self._dump(GET_ELEMENT, table.family, body):
            raw = parts.get(ELEMENTS, b"")
            position = 0
            while position + 4 <= len(raw):
                (length,) = struct.unpack_from("=H", raw, position)
                yield attributes(raw, position + 4, position + length)
                position += (length + 3) & ~3


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
        return self._touched(lambda sender, name: sender not in own and name in names)

    def touched_without(self, prefix: str) -> bool:
        """Return whether a table changed whose name has no such prefix.

        True if notifications were lost.
        """
        start = prefix.encode("ascii")
        return self._touched(lambda _sender, name: not name.startswith(start))

    def _touched(self, is_asked: Callable[[int, bytes], bool]) -> bool:
        try:
            waiting = self._socket.notifications(_NOTIFICATIONS)
        except LostNotificationsError:
            return True
        # A transaction may have thousands of elements, each with a message of its own.
        seen = {
            (_sender(message), _table_name(message))
            for message in waiting
            if message.kind != SUBSYSTEM | NEW_GENERATION
        }
        return any(is_asked(sender, name) for sender, name in seen)


def _data(nested: bytes) -> bytes:
    return attributes(nested, 0, len(nested)).get(DATA_VALUE, b"")


def _same_rules(rules: tuple[Rule, ...], shown: list[bytes]) -> bool:
    return len(rules) == len(shown) and all(map(matches, rules, shown))


def _open(netns_fd: int | None, *groups: int, dump_size_max: int | None = None) -> NetlinkSocket:
    try:
        return NetlinkSocket(
            netns_fd, protocol=_NETLINK_NETFILTER, groups=groups, dump_size_max=dump_size_max
        )
    except OSError as error:
        if error.errno in netns.SHORTAGE:
            raise
        raise _missing(error) from error


def _sender(message: NetlinkMessage) -> int:
    """Return the port id of the socket that made the notified change."""
    return int(_SENDER.unpack_from(message.buffer, message.start - _SENDER.size)[0])


def _table_name(message: NetlinkMessage) -> bytes:
    """Return the table of a notified change, which the kernel names first; empty without one."""
    buffer, start = message.buffer, message.start + _HEADER.size
    if message.end - start < _ATTRIBUTE.size:
        return b""
    length, kind = _ATTRIBUTE.unpack_from(buffer, start)
    if kind != _TABLE:
        return attributes(buffer, start, message.end).get(_TABLE, b"")
    return buffer[start + _ATTRIBUTE.size : start + length]


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("ascii", "replace")


def _missing(error: OSError) -> NftMissingError:
    return NftMissingError(
        "this kernel has no nftables, or lacks a part of it",
        why=error.strerror or str(error),
        hint="Load the module (modprobe nf_tables); slim kernels keep it in a package such as "
        "linux-modules-extra",
    )
