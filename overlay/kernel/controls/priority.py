"""Priorities of ports, as marks on what their containers send.

A program at the port's ingress hook, before that of the fast path, gives each packet the priority
of the port: as DSCP (class selector, RFC 2474) in its IP header, with ECN as it was, and as
priority of the buffer (skb->priority), by which queues choose. Both ways, past the bridge and by
it, begin there. The VXLAN device copies the DSCP to the outer header. A port that is trusted keeps
the DSCP that its container has set, and its packets get the priority of that.

Owns: these programs, their filters, and reading and writing them as rows.
Does not: decide which ports have a priority; that is the planner's task.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from overlay.core.dataplane.operations import PutRow
from overlay.core.dataplane.state import TRUSTED, MarkRow
from overlay.errors import OverlayError
from overlay.kernel.bpf import numbers, syscall, tc_filters
from overlay.kernel.bpf.assembler import (
    BYTE,
    HALF,
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R10,
    WORD,
    Assembler,
)
from overlay.kernel.netlink import codec
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.kernel.row_operations import RefusedOperation, RowOperation, apply_each

BUFFER_PRIORITIES: Final = (0, 8, 9, 10, 4, 6, 7, 7)
"""By priority. Linux sends 6 and 7 first, and 1, 2, 3 and 5 after all others (tc-prio(8))."""
_FIRST: Final = 0x6F75  # of tc's priorities: before the fast path's filter
_HEAD: Final = -8  # on the stack: EtherType, and the first two bytes of the IP header
_VERSION, _TOS = _HEAD + 2, _HEAD + 3
_IP_AT, _CHECKSUM_AT, _HALF_SIZE = 14, 24, 2
_RECOMPUTE: Final = 1  # BPF_F_RECOMPUTE_CSUM
_ECN: Final = 0x03
_HARMLESS: Final = frozenset({errno.EEXIST, errno.ENOENT, errno.ENODEV})
_FOREIGN: Final = -1  # in a row that was read: the program of an earlier agent


def mark_program(priority: int) -> bytes:
    """Return the program that marks all packets with a priority, or trusts their DSCP."""
    program = Assembler()
    program.move(R6, R1)
    if priority != TRUSTED:
        program.set(R1, BUFFER_PRIORITIES[priority])
        program.store(WORD, R6, numbers.PRIORITY, R1)
    program.set(R2, _IP_AT - 2)
    program.move(R3, R10)
    program.add(R3, _HEAD)
    program.set(R4, 4)
    program.move(R1, R6)
    program.call(numbers.LOAD_BYTES)
    program.jump_unequal(R0, 0, "pass")
    program.load(HALF, R1, R10, _HEAD)
    program.jump_equal(R1, numbers.IPV4, "ipv4")
    program.jump_unequal(R1, numbers.IPV6, "pass")
    if priority == TRUSTED:
        _trust(program)
    else:
        _mark_ipv6(program, priority)
        _mark_ipv4(program, priority)
    program.label("pass")
    program.set(R0, numbers.PASS)
    program.exit()
    return program.code()


def _mark_ipv6(program: Assembler, priority: int) -> None:
    """Write the traffic class, which is in two bytes (RFC 8200 section 3)."""
    program.load(BYTE, R1, R10, _VERSION)
    program.mask(R1, 0xF0)
    program.set_bits(R1, priority << 1)
    program.store(BYTE, R10, _VERSION, R1)
    program.load(BYTE, R1, R10, _TOS)
    program.mask(R1, _ECN << 4 | 0x0F)
    program.store(BYTE, R10, _TOS, R1)
    _store(program, _RECOMPUTE)
    program.jump("pass")


def _mark_ipv4(program: Assembler, priority: int) -> None:
    """Write the type of service, and correct the header's checksum."""
    program.label("ipv4")
    program.load(HALF, R3, R10, _VERSION)
    program.load(BYTE, R1, R10, _TOS)
    program.move(R2, R1)
    program.mask(R1, _ECN)
    program.set_bits(R1, priority << 5)
    program.jump_same(R1, R2, "pass")
    program.store(BYTE, R10, _TOS, R1)
    program.load(HALF, R4, R10, _VERSION)
    program.move(R1, R6)
    program.set(R2, _CHECKSUM_AT)
    program.set(R5, _HALF_SIZE)
    program.call(numbers.CHECKSUM_REPLACE)
    program.jump_unequal(R0, 0, "pass")
    _store(program, 0)


def _store(program: Assembler, flags: int) -> None:
    """Write the first two bytes of the IP header to the packet."""
    program.move(R1, R6)
    program.set(R2, _IP_AT)
    program.move(R3, R10)
    program.add(R3, _VERSION)
    program.set(R4, _HALF_SIZE)
    program.set(R5, flags)
    program.call(numbers.STORE_BYTES)


def _trust(program: Assembler) -> None:
    """Give the buffer the first three bits of the DSCP."""
    program.load(BYTE, R1, R10, _VERSION)
    program.mask(R1, 0x0F)
    program.shift_right(R1, 1)
    program.jump("buffer")
    program.label("ipv4")
    program.load(BYTE, R1, R10, _TOS)
    program.shift_right(R1, 5)
    program.label("buffer")
    for priority, of_buffer in enumerate(BUFFER_PRIORITIES[:-1]):
        program.jump_unequal(R1, priority, f"not{priority}")
        program.set(R2, of_buffer)
        program.jump("chosen")
        program.label(f"not{priority}")
    program.set(R2, BUFFER_PRIORITIES[-1])
    program.label("chosen")
    program.store(WORD, R6, numbers.PRIORITY, R2)


class PriorityMarks:
    """The programs of one sandbox. They live as long as this object or a filter that runs them."""

    def __init__(self) -> None:
        self._programs: dict[int, tuple[int, int]] = {}  # descriptor and id, by priority
        self._may_exist = True  # an earlier agent may have left filters

    def close(self) -> None:
        """Close the descriptors; programs run by a filter stay in force."""
        while self._programs:
            os.close(self._programs.popitem()[1][0])

    def read(self, socket: NetlinkSocket, names: Mapping[int, str]) -> frozenset[MarkRow]:
        """Return the marks in force; those of an earlier agent's programs as no plan has them."""
        if not self._may_exist:
            return frozenset()
        own = {number: priority for priority, (_, number) in self._programs.items()}
        found = set()
        for index, name in names.items():
            for message in socket.dump(codec.RTM_GETTFILTER, tc_filters.filter_dump(index)):
                number = tc_filters.running_program(message, _FIRST)
                if number:
                    found.add(MarkRow(name, own.get(number, _FOREIGN)))
        self._may_exist = bool(found)
        return frozenset(found)

    def apply(
        self,
        operations: Iterable[RowOperation],
        socket: NetlinkSocket,
        index_of: Callable[[str], int],
    ) -> list[RefusedOperation]:
        """Apply operations on rows; return those that failed, with the error.

        A missing port is not a failure here: the port's own operation reports it.
        """

        def apply(operation: RowOperation) -> None:
            row = operation.row
            assert isinstance(row, MarkRow)
            index = index_of(row.link)
            if index and isinstance(operation, PutRow):
                self._put(row, index, socket)
            elif index:
                request = tc_filters.delete_filter(index, priority=_FIRST)
                socket.request(request, harmless=_HARMLESS)

        return apply_each(operations, apply)

    def _put(self, row: MarkRow, index: int, socket: NetlinkSocket) -> None:
        self._may_exist = True
        if row.priority not in self._programs:
            descriptor = syscall.load(mark_program(row.priority), f"overlayd_prio{row.priority}")
            self._programs[row.priority] = (descriptor, syscall.program_id(descriptor))
        program = self._programs[row.priority][0]
        name = f"overlayd:priority:{row.priority}"
        socket.request(
            tc_filters.add_clsact(index),
            tc_filters.put_filter(index, program, name, priority=_FIRST),
            harmless=_HARMLESS,
        )


def require_priorities() -> None:
    """Raise OverlayError unless this kernel can mark packets by programs."""
    try:
        os.close(syscall.load(mark_program(0), "overlayd_probe"))
    except OSError as error:
        raise OverlayError(
            "this kernel cannot give packets a priority",
            why=f"it loads no eBPF programs: {error.strerror or error}",
            hint="Use a kernel with CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_BPF",
        ) from error
