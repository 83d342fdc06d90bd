"""Memory of large blocks goes back to the kernel."""

from __future__ import annotations

import subprocess
import sys

# Blocks of 4 MiB, once the C library has seen how one of 8 MiB is freed: on pages of their own,
# which is what `hblkhd` counts (mallinfo2(3)), or a part of the heap.
_PROGRAM = """
import ctypes
from overlay.agent.main import return_large_blocks

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
                ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
                 "fordblks", "keepcost")]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
if {called}:
    return_large_blocks()
freed = bytearray(8 << 20)
del freed
before = libc.mallinfo2().hblkhd
kept = bytearray(4 << 20)
print(libc.mallinfo2().hblkhd - before >= 4 << 20)
"""


def _has_own_pages(*, called: bool) -> bool:
    program = _PROGRAM.format(called=called)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return done.stdout.strip() == "True"


def test_a_large_block_is_no_part_of_the_heap() -> None:
    """Not even after the C library has freed a larger one; by default it is then."""
    assert _has_own_pages(called=True)
    assert not _has_own_pages(called=False)
