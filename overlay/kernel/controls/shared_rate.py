"""Shared rates: the queue of a VXLAN device, and the program that chooses a packet's leaf in it.

Every frame to another host passes that queue, past the bridge or by it, and before it is encrypted.
The program takes the priority from the DSCP of the packet within, as ports have marked it
(`kernel.controls.priority`), and of frames that are not IP from the buffer. The port that a frame
has entered by chooses one of the leaves of its priority, so that containers of equal priority
mostly have a leaf each.

Owns: that program, and reading and writing shared rates as rows.
Does not: know the queue's classes (`class_tree`), or decide which network shares a rate.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from overlay.core.dataplane.controls.priority import HIGHEST
from overlay.core.dataplane.operations import PutRow
from overlay.core.dataplane.state import SharedRateRow
from overlay.errors import OverlayError
from overlay.kernel import netns
from overlay.kernel.bpf import numbers, syscall, tc_filters
from overlay.kernel.bpf.assembler import (
    BYTE,
    HALF,
    R0,
    R1,
    R2,
    R3,
    R4,
    R6,
    R7,
    R10,
    WORD,
    Assembler,
)
from overlay.kernel.controls import class_tree
from overlay.kernel.controls.priority import BUFFER_PRIORITIES
from overlay.kernel.netlink import codec
from overlay.kernel.netlink.codec import NetlinkMessage
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.kernel.row_operations import RefusedOperation, RowOperation, apply_each

_HEAD: Final = -8  # on the stack: EtherType, and the first two bytes of the IP header
_VERSION, _TOS = _HEAD + 2, _HEAD + 3
_TYPE_AT: Final = 12
_GONE: Final = frozenset({errno.ENOENT, errno.ENODEV, errno.EINVAL})


def leaf_program() -> bytes:
    """Return the program that chooses the leaf: what it returns is the leaf's identifier."""
    program = Assembler()
    program.move(R6, R1)
    program.set(R2, _TYPE_AT)
    program.move(R3, R10)
    program.add(R3, _HEAD)
    program.set(R4, 4)
    program.call(numbers.LOAD_BYTES)
    program.set(R7, 0)
    program.jump_unequal(R0, 0, "chosen")
    program.load(HALF, R1, R10, _HEAD)
    program.jump_equal(R1, numbers.IPV4, "ipv4")
    program.jump_equal(R1, numbers.IPV6, "ipv6")
    program.load(WORD, R1, R6, numbers.PRIORITY)
    for priority in range(1, HIGHEST):  # 6 and 7 have one number: a frame gets the lower of them
        program.set(R7, priority)
        program.jump_equal(R1, BUFFER_PRIORITIES[priority], "chosen")
    program.set(R7, 0)
    program.jump("chosen")
    program.label("ipv6")
    program.load(BYTE, R7, R10, _VERSION)
    program.mask(R7, 0x0F)
    program.shift_right(R7, 1)
    program.jump("chosen")
    program.label("ipv4")
    program.load(BYTE, R7, R10, _TOS)
    program.shift_right(R7, 5)
    program.label("chosen")
    program.multiply(R7, class_tree.LEAVES)
    program.load(WORD, R0, R6, numbers.INGRESS_IFINDEX)
    program.mask(R0, class_tree.LEAVES - 1)
    program.add_register(R0, R7)
    program.add(R0, class_tree.leaf(0))
    program.exit()
    return program.code()


class SharedRates:
    """The shared rates of one sandbox. Its program lives as long as a filter that runs it."""

    def __init__(self) -> None:
        self._program: tuple[int, int] | None = None  # descriptor and id
        self._may_exist = True  # an earlier agent may have left some

    def close(self) -> None:
        """Close the descriptor; what a filter runs stays in force."""
        if self._program is not None:
            os.close(self._program[0])
            self._program = None

    def read(self, socket: NetlinkSocket, names: Mapping[int, str]) -> frozenset[SharedRateRow]:
        """Return the rates in force; an altered one, or an earlier agent's, as no plan has it."""
        if not self._may_exist:
            return frozenset()
        trees = class_tree.read(socket)
        found = set()
        for index, bits in trees.items():
            whole = bits if self._runs_at(socket, index) else class_tree.BROKEN
            found.add(SharedRateRow(names.get(index, f"#{index}"), whole))
        self._may_exist = bool(trees)
        return frozenset(found)

    def dropped(self, socket: NetlinkSocket) -> int | None:
        """Return how many frames above the rates were dropped since these were made.

        None without a rate. Raises OSError.
        """
        return class_tree.dropped(socket) if self._may_exist else None

    def _runs_at(self, socket: NetlinkSocket, index: int) -> bool:
        own = 0 if self._program is None else self._program[1]
        body = tc_filters.filter_dump(index, parent=class_tree.HANDLE)
        filters = [*map(tc_filters.running_program, socket.dump(codec.RTM_GETTFILTER, body))]
        return bool(own) and filters.count(own) == len([each for each in filters if each]) == 1

    def apply(
        self,
        operations: Iterable[RowOperation],
        socket: NetlinkSocket,
        index_of: Callable[[str], int],
    ) -> list[RefusedOperation]:
        """Apply operations on rows; return those that failed, with the error.

        A missing device is not a failure here: the device's own operation reports it.
        """

        def apply(operation: RowOperation) -> None:
            row = operation.row
            assert isinstance(row, SharedRateRow)
            index = index_of(row.link)
            if index and isinstance(operation, PutRow):
                self._put(row, index, socket)
            elif index:
                socket.request(class_tree.delete(index), harmless=_GONE)

        return apply_each(operations, apply)

    def _put(self, row: SharedRateRow, index: int, socket: NetlinkSocket) -> None:
        self._may_exist = True
        present = class_tree.read(socket).get(index, 0)
        if present == class_tree.BROKEN:
            socket.request(class_tree.delete(index), harmless=_GONE)
        if present <= 0:
            socket.request(class_tree.create(index))
        if present != row.bits:
            socket.request(*class_tree.put_classes(index, row.bits))
        if self._program is None:
            descriptor = syscall.load(leaf_program(), "overlayd_leaf")
            self._program = descriptor, syscall.program_id(descriptor)
        program = self._program[0]
        socket.request(
            tc_filters.put_classifier(index, class_tree.HANDLE, program, "overlayd:leaf")
        )


def contradiction(message: NetlinkMessage, name: str, wanted_bits: int) -> str | None:
    """Return how a notification contradicts a device's shared rate; None if it does not.

    The agent's own changes are notified too.
    """
    match message.kind:
        case codec.RTM_DELQDISC:
            is_wrong = class_tree.is_tree(message)
        case codec.RTM_NEWTCLASS:
            is_wrong = class_tree.root_rate(message) not in {0, wanted_bits}
        case codec.RTM_DELTCLASS:
            is_wrong = True
        case codec.RTM_DELTFILTER:
            is_wrong = tc_filters.parent_of(message) == class_tree.HANDLE
        case _:
            return None
    return f"the shared rate of {name} was altered" if is_wrong else None


def require_shared_rates() -> None:
    """Raise OverlayError unless this kernel can have containers share a rate.

    Tested in a temporary namespace.
    """
    rates, row = SharedRates(), SharedRateRow("lo", 1_000_000)
    with netns.temporary() as netns_fd, NetlinkSocket(netns_fd) as inside:
        try:
            failed = rates.apply([PutRow(row)], inside, lambda _name: 1)
        finally:
            rates.close()
    for _, error in failed:
        raise OverlayError(
            "this kernel cannot have containers share a rate",
            why=error.strerror or str(error),
            hint="Load the modules sch_htb and cls_bpf (modprobe), of a kernel with "
            "CONFIG_BPF_SYSCALL; slim kernels keep them in a package such as linux-modules-extra",
        ) from error
