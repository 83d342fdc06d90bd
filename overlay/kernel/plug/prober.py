"""Send a probe out of a plugged interface.

By running a small eBPF program on it once (BPF_PROG_TEST_RUN), as a packet socket would need
CAP_NET_RAW. The guard of another plug hears it, also while its port is closed.
"""

from __future__ import annotations

import os

from overlay.kernel import netns
from overlay.kernel.bpf import programs, syscall


def send(netns_fd: int, index: int, frame: bytes) -> None:
    """Send a frame out of the interface with that index. Raises OSError without eBPF."""
    program = syscall.load(programs.send_program(index), "overlayd_probe")
    try:
        with netns.inside(netns_fd):
            syscall.run(program, frame)
    finally:
        os.close(program)
