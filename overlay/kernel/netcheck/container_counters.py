"""Read how many packets a container has received with a wrong checksum."""

from __future__ import annotations

from overlay.kernel import netns
from overlay.kernel.netcheck.counters import Counters, read_counters
from overlay.kernel.sandbox.container_namespace import open_same


def container_counters(netns_path: str, identity: tuple[int, int]) -> Counters | None:
    """Return a container's counters; None if it is gone. Call in a thread.

    Raises OverlayError if the namespace cannot be opened.
    """
    fd = open_same(netns_path, identity)
    if fd is None:
        return None
    with netns.closing(fd), netns.inside(fd):
        return read_counters()
