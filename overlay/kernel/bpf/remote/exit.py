"""Parts of the programs at ports and shortcuts: what leaves for remote containers past the VTEP.

A frame whose destination is known, and which fits the overlay's MTU, goes by the shortcut to the
program in the host's namespace (`remote_program`). One that has no way there comes back by the
shortcut, with a mark that only a frame of this host's has, and the VTEP sends it.
"""

from __future__ import annotations

from typing import NamedTuple

from overlay.kernel.bpf import numbers
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
    R8,
    R9,
    R10,
    WORD,
    Assembler,
)
from overlay.kernel.bpf.calls import look_up
from overlay.kernel.bpf.remote.maps import WIRE_FRAME, RemoteFds

# In tc_index, which a frame keeps through a veth: it came back, and was judged by policies or not.
CAME_BACK, CAME_BACK_JUDGED = 0x6F76, 0x6F77


class PortLayout(NamedTuple):
    """Stack offsets of the values that the port's program leaves for this one."""

    key: int  # destination MAC and segment
    scratch: int  # eight bytes
    packet: int


def send_to_remote(
    program: Assembler, fds: RemoteFds, segment: int, layout: PortLayout, *, is_judged: bool
) -> None:
    """Send a frame to a known remote container; go on with those that the VTEP must send.

    R6 is the frame. One that policies have judged is marked so, for the way back.
    """
    program.store_constant(WORD, R10, layout.scratch, segment)
    look_up(program, fds.exits, layout.scratch)
    program.jump_equal(R0, 0, "by device")
    program.load(WORD, R7, R0, 0)
    look_up(program, fds.wires, layout.scratch)
    program.jump_equal(R0, 0, "by device")
    program.load(HALF, R8, R0, WIRE_FRAME)
    program.load(WORD, R9, R6, numbers.SEGMENT_SIZE)
    program.jump_unequal(R9, 0, "segments")
    program.load(WORD, R9, R6, numbers.LENGTH)
    program.jump("sized")
    program.label("segments")
    _add_headers(program, layout)
    program.label("sized")
    program.jump_greater(R9, R8, "by device")
    look_up(program, fds.remotes, layout.key)
    program.jump_equal(R0, 0, "by device")
    if is_judged:
        program.set(R1, numbers.JUDGED)
        program.store(WORD, R6, numbers.MARK, R1)
    program.move(R1, R7)
    program.set(R2, 0)
    program.call(numbers.REDIRECT_PEER)
    program.exit()
    program.label("by device")


def _add_headers(program: Assembler, layout: PortLayout) -> None:
    """Add the size of a segment's headers to that of its data, in R9."""
    ip = layout.packet + 14
    program.load(HALF, R1, R10, layout.packet + 12)
    program.jump_equal(R1, numbers.IPV6, "ipv6 segments")
    program.add(R9, 14 + 20)
    program.set(R2, 14 + 20 + 12)
    program.load(BYTE, R1, R10, ip + 9)
    program.jump("transport")
    program.label("ipv6 segments")
    program.add(R9, 14 + 40)
    program.set(R2, 14 + 40 + 12)
    program.load(BYTE, R1, R10, ip + 6)
    program.label("transport")
    program.jump_equal(R1, numbers.UDP, "datagrams")
    program.jump_unequal(R1, numbers.TCP, "by device")
    program.move(R1, R6)
    program.move(R3, R10)
    program.add(R3, layout.scratch)
    program.set(R4, 1)
    program.call(numbers.LOAD_BYTES)
    program.jump_unequal(R0, 0, "by device")
    program.load(BYTE, R1, R10, layout.scratch)
    program.mask(R1, 0xF0)
    program.shift_right(R1, 2)  # the data offset counts words
    program.add_register(R9, R1)
    program.jump("sized")
    program.label("datagrams")
    program.add(R9, 8)


def send_back(program: Assembler) -> None:
    """Go on at `came` if the frame was sent by a container here, and came back.

    It then has the mark of what was judged again.
    """
    program.load(WORD, R7, R6, numbers.TC_INDEX)
    program.jump_equal(R7, CAME_BACK, "came")
    program.jump_unequal(R7, CAME_BACK_JUDGED, "arrived")
    program.set(R1, numbers.JUDGED)
    program.store(WORD, R6, numbers.MARK, R1)
    program.jump("came")
    program.label("arrived")
