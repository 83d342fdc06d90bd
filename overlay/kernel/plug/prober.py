"""Send frames out of a plugged interface: probes, and questions for addresses.

By running a small eBPF program on each (BPF_PROG_TEST_RUN), as a packet socket would need
CAP_NET_RAW. The guard of another plug hears probes, also while its port is closed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from overlay.kernel import netns
from overlay.kernel.bpf import programs, syscall


def send(netns_fd: int, index: int, frames: Iterable[bytes]) -> None:
    """Send frames out of the interface with that index. Raises OSError without eBPF."""
    program = syscall.load(programs.send_program(index), "overlayd_probe")
    try:
        with netns.inside(netns_fd):
            for frame in frames:
                syscall.run(program, frame)
    finally:
        os.close(program)
