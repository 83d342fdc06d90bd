"""Freed memory goes back to the kernel: large blocks at once, the pages of small ones in time."""

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


# A thread frees 30 MiB of small blocks, below one that stays.
_SMALL = """
import asyncio, contextlib, pathlib
from overlay.agent import main

def held_mib():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) / 256

def leave_hole():
    freed = [bytearray(3000) for _ in range(10_000)]
    return bytearray(3000)

async def has_returned():
    kept = await asyncio.to_thread(leave_hole)
    before = held_mib()
    task = asyncio.create_task(main._return_free_memory())
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout({timeout_s}):
            while before - held_mib() < 20:
                await asyncio.sleep(0.01)
            return True
    return False

main._TRIM_INTERVAL_S = {interval_s}
print(asyncio.run(has_returned()))
"""


def _returns_small(interval_s: float, timeout_s: float) -> bool:
    program = _SMALL.format(interval_s=interval_s, timeout_s=timeout_s)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return done.stdout.strip() == "True"


def test_what_a_thread_freed_goes_back() -> None:
    """Also between blocks that are in use; by default it stays."""
    assert _returns_small(0.05, 60.0)
    assert not _returns_small(60.0, 0.5)
