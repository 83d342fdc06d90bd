"""A network's policies as maps: writing and reading rows, counters and samples of drops.

A change of verdicts is written beside those in force and takes effect in one step: each of the two
tables has its number in the keys, and the programs read which one counts. Changes of classes alone
(an attach) are written in place. After each change the generation is raised, so that known
connections are judged again. If a row can't be written, nothing new is allowed until one can:
the rules before may have allowed what the new ones deny.

The connections are those of the programs that run already, so that a restart cuts none.

Owns: these maps. Does not: know which rows are wanted.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

from overlay import limits
from overlay.core.dataplane.operations import PutRow
from overlay.core.dataplane.state import PolicyClassRow, VerdictRow
from overlay.kernel.bpf import policy_layout as layout
from overlay.kernel.bpf import syscall
from overlay.kernel.bpf.flow_keys import FLOW_KEY, VERSION_4, VERSION_6
from overlay.kernel.row_operations import RefusedOperation, RowOperation
from overlay.model import Ip

PolicyRow: TypeAlias = PolicyClassRow | VerdictRow
POLICY_ROWS: Final = (PolicyClassRow, VerdictRow)

_FLOWS, _STATE = "overlayd_flows", "overlayd_state"  # by which the next agent finds them
_ONLY: Final = bytes(4)  # the key of an array's first value
_NUMBER_MAX: Final = 0xFFFF
_COUNTER_MASK: Final = 0xFFFFFFFF - layout.TABLE_BIT - layout.SHUT_BIT
_VERSIONS: Final = {4: VERSION_4, 16: VERSION_6}  # of IP, by the length of an address
_TABLE: Final = slice(4, 6)  # where a key has its table
_Entries: TypeAlias = dict[tuple[int, bytes], bytes]  # by map and key, of table 0
_Changes: TypeAlias = dict[tuple[int, bytes], bytes | None]  # None: deleted


class RuleCount(NamedTuple):
    """A rule's decisions since the agent's start."""

    allowed: int  # connections
    denied: int  # packets


class DeniedPacket(NamedTuple):
    """A packet that a rule with a log denied, and how many there were like it."""

    rule: int
    source: Ip
    destination: Ip
    protocol: int  # of IP
    port: int  # of TCP and UDP: the destination's
    packets: int


class PolicyMaps:
    """The maps of one sandbox's policies.

    They live as long as this object or a program that uses them.
    """

    def __init__(self, running: Iterable[int]) -> None:
        """Create the maps, with the connections that running programs know, given by their ids.

        Raises OSError.
        """
        self._descriptors: list[int] = []
        self._entries: _Entries = {}
        try:
            flows, self._state = self._adopt(running)
            if flows < 0:
                flows = self._create(
                    FLOW_KEY.size, layout.FLOW_VALUE.size,
                    limits.POLICY_FLOWS_MAX, _FLOWS, syscall.LRU_HASH,
                )  # fmt: skip
            self.maps = layout.Maps(
                self._create(4, layout.STATE_VALUE.size, 1, _STATE, syscall.ARRAY),
                flows,
                self._create(
                    layout.CLASS_KEY.size, layout.CLASS_VALUE.size,
                    2 * limits.POLICY_RANGES_MAX, "overlayd_class", syscall.LPM_TRIE,
                ),
                self._create(
                    layout.VERDICT_KEY.size, layout.VERDICT_VALUE.size,
                    2 * limits.POLICY_VERDICTS_MAX, "overlayd_rules", syscall.LPM_TRIE,
                ),
                self._create(
                    4, layout.COUNTER_VALUE.size,
                    limits.POLICY_RULES_MAX, "overlayd_count", syscall.ARRAY,
                ),
                self._create(
                    layout.DROP_KEY.size, layout.DROP_VALUE.size,
                    limits.POLICY_DROPS_MAX, "overlayd_drops", syscall.LRU_HASH,
                ),
            )  # fmt: skip
            self._enforce(table=0, shut=False)
        except OSError:
            self.close()
            raise

    def _create(self, key: int, value: int, entries_max: int, name: str, kind: int) -> int:
        self._descriptors.append(syscall.create_map(key, value, entries_max, name, kind))
        return self._descriptors[-1]

    def _adopt(self, running: Iterable[int]) -> tuple[int, int]:
        """Return the connections of running programs and their generation; -1 and 0 if none."""
        flows, state = -1, 0
        shape = (syscall.LRU_HASH, FLOW_KEY.size, layout.FLOW_VALUE.size, _FLOWS)
        for identifier in {each for program in running for each in syscall.used_maps(program)}:
            try:
                descriptor = syscall.open_map(identifier)
            except FileNotFoundError:
                continue
            self._descriptors.append(descriptor)
            found = syscall.map_shape(descriptor)
            if found == shape:
                flows = descriptor
            elif found == (syscall.ARRAY, 4, layout.STATE_VALUE.size, _STATE):
                ((_, value),) = syscall.entries(descriptor, 4, layout.STATE_VALUE.size)
                state = max(state, layout.STATE_VALUE.unpack(value)[0])
        return flows, state

    def close(self) -> None:
        """Close the descriptors; programs that run keep the maps."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    # --- writing ------------------------------------------------------------------------

    def apply(self, operations: Sequence[RowOperation]) -> list[RefusedOperation]:
        """Apply operations on policy rows in one step; all of them fail if one does."""
        changes: _Changes = {}
        try:
            for operation in operations:
                row = operation.row
                assert isinstance(row, POLICY_ROWS)
                key, value = self._encode(row)
                changes[key] = value if isinstance(operation, PutRow) else None
            if self.is_shut or any(map_fd == self.maps.verdicts for map_fd, _ in changes):
                self._replace(changes)
            else:
                self._change(changes)
        except OSError as error:
            self._shut()
            return [(operation, error) for operation in operations]
        return []

    @property
    def is_shut(self) -> bool:
        """Whether nothing is allowed, since a row could not be written."""
        return bool(self._state & layout.SHUT_BIT)

    @property
    def _table(self) -> int:
        return self._state & layout.TABLE_BIT

    def _replace(self, changes: _Changes) -> None:
        """Write all entries to the other table, and put it in force."""
        former, table = self._table, 1 - self._table
        changed = {**self._entries, **changes}
        entries = {key: value for key, value in changed.items() if value is not None}
        self._clear(table)
        for (map_fd, key), value in entries.items():
            syscall.update(map_fd, _of_table(key, table), value)
        self._enforce(table=table, shut=False)
        self._entries = entries
        self._clear(former)

    def _change(self, changes: _Changes) -> None:
        """Change entries in place."""
        table = self._table
        for (map_fd, key), value in changes.items():
            if value is None:
                syscall.delete(map_fd, _of_table(key, table))
                self._entries.pop((map_fd, key), None)
            else:
                syscall.update(map_fd, _of_table(key, table), value)
                self._entries[map_fd, key] = value
        self._enforce(table=table, shut=False)

    def _clear(self, table: int) -> None:
        for map_fd, key, _ in [*self._all()]:  # reading goes on from the last key
            if key[_TABLE] == _table_bytes(table):
                syscall.delete(map_fd, key)

    def _shut(self) -> None:
        """Allow nothing: known connections are judged again, and denied."""
        with contextlib.suppress(OSError):
            self._enforce(table=self._table, shut=True)
            self._entries = self._in_force()

    def _enforce(self, *, table: int, shut: bool) -> None:
        """Put a table in force, and have known connections judged by it.

        Twice, for the sake of a program that reads half of the first write.
        """
        for _ in range(2):
            counter = (self._state & _COUNTER_MASK) + layout.GENERATION_STEP & _COUNTER_MASK
            self._state = counter | table * layout.TABLE_BIT | shut * layout.SHUT_BIT
            syscall.update(self.maps.state, _ONLY, layout.STATE_VALUE.pack(self._state, 0))

    # --- reading ------------------------------------------------------------------------

    def rows(self) -> set[PolicyRow]:
        """Return the rows in force. Raises OSError."""
        return {
            self._decode(map_fd, key, value) for (map_fd, key), value in self._in_force().items()
        }

    def counts(self) -> dict[int, RuleCount]:
        """Return what each rule has decided, without those that decided nothing."""
        found = syscall.entries(self.maps.counters, 4, layout.COUNTER_VALUE.size)
        counts = (
            (int.from_bytes(key, "little"), RuleCount(*layout.COUNTER_VALUE.unpack(value)))
            for key, value in found
        )
        return {rule: count for rule, count in counts if any(count)}

    def denied_packets(self) -> list[DeniedPacket]:
        """Return samples of what rules with a log denied."""
        found = syscall.entries(self.maps.drops, layout.DROP_KEY.size, layout.DROP_VALUE.size)
        packets = []
        for key, value in found:
            rule, source, destination, port, protocol, version = layout.DROP_KEY.unpack(key)
            (count,) = layout.DROP_VALUE.unpack(value)
            addresses = _address(source, version), _address(destination, version)
            number = int.from_bytes(port, "big")
            packets.append(DeniedPacket(rule, *addresses, protocol, number, count))
        return sorted(packets)

    def _in_force(self) -> _Entries:
        table = _table_bytes(self._table)
        return {
            (map_fd, _of_table(key, 0)): value
            for map_fd, key, value in self._all()
            if key[_TABLE] == table
        }

    def _all(self) -> Iterator[tuple[int, bytes, bytes]]:
        """Yield map, key and value of all entries of both tables."""
        for map_fd, key_size, value_size in (
            (self.maps.classes, layout.CLASS_KEY.size, layout.CLASS_VALUE.size),
            (self.maps.verdicts, layout.VERDICT_KEY.size, layout.VERDICT_VALUE.size),
        ):
            for key, value in syscall.entries(map_fd, key_size, value_size):
                yield map_fd, key, value

    # --- rows as entries ------------------------------------------------------------------

    def _encode(self, row: PolicyRow) -> tuple[tuple[int, bytes], bytes]:
        """Return map, key and value. Raises OSError for a number that has no place."""
        if isinstance(row, PolicyClassRow):
            _require(row.number <= _NUMBER_MAX)
            length = layout.CLASS_PREFIX + row.prefix_length
            key = layout.CLASS_KEY.pack(length, 0, _VERSIONS[len(row.base)], row.base)
            return (self.maps.classes, key), layout.CLASS_VALUE.pack(row.number)
        _require(max(row.source, row.destination) <= _NUMBER_MAX)
        _require(row.rule < limits.POLICY_RULES_MAX)
        key = layout.VERDICT_KEY.pack(
            layout.VERDICT_PREFIX + row.prefix_length, 0,
            row.source, row.destination, row.protocol, row.port.to_bytes(2, "big"),
        )  # fmt: skip
        action = layout.ALLOW * row.allow | layout.LOG * row.log
        return (self.maps.verdicts, key), layout.VERDICT_VALUE.pack(action, row.rule)

    def _decode(self, map_fd: int, key: bytes, value: bytes) -> PolicyRow:
        if map_fd == self.maps.classes:
            length, _, version, raw = layout.CLASS_KEY.unpack(key)
            (number,) = layout.CLASS_VALUE.unpack(value)
            return PolicyClassRow(_address(raw, version), length - layout.CLASS_PREFIX, number)
        length, _, source, destination, protocol, port = layout.VERDICT_KEY.unpack(key)
        action, rule = layout.VERDICT_VALUE.unpack(value)
        bits = max(0, length - layout.VERDICT_PREFIX - 48)
        allow, log = bool(action & layout.ALLOW), bool(action & layout.LOG)
        number = int.from_bytes(port, "big")
        return VerdictRow(source, destination, protocol, number, bits, allow, log, rule)


def _table_bytes(table: int) -> bytes:
    return table.to_bytes(2, "little")


def _of_table(key: bytes, table: int) -> bytes:
    """Return the same key of another table."""
    return key[: _TABLE.start] + _table_bytes(table) + key[_TABLE.stop :]


def _address(raw: bytes, version: int) -> Ip:
    return Ip(raw if version == VERSION_6 else raw[:4])


def _require(condition: bool) -> None:
    if not condition:
        raise OSError(errno.E2BIG, "more classes or rules than the kernel's maps hold")
