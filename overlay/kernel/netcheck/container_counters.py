"""Read how many packets a container has received with a wrong checksum."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TypeAlias

from overlay.errors import OverlayError
from overlay.kernel import netns
from overlay.kernel.netcheck.counters import Counters, read_counters

_Identity: TypeAlias = tuple[int, int]


def counters_in(containers: Iterable[tuple[str, _Identity]]) -> dict[_Identity, Counters]:
    """Return the counters of those of some containers that can be read. Call in a thread."""
    found = {}
    for netns_path, identity in containers:
        with contextlib.suppress(OverlayError, OSError):  # it is ending: others report that
            counters = _counters(netns_path, identity)
            if counters is not None:
                found[identity] = counters
    return found


def _counters(netns_path: str, identity: _Identity) -> Counters | None:
    fd = netns.open_same(netns_path, identity)
    if fd is None:
        return None
    with netns.closing(fd), netns.inside(fd):
        return read_counters()
