"""Read how many packets a container has received with a wrong checksum."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TypeAlias

from overlay.errors import OverlayError
from overlay.kernel import netns
from overlay.kernel.netcheck.counters import ChecksumErrors, read_checksum_errors

_Identity: TypeAlias = tuple[int, int]


def checksum_errors_in(
    containers: Iterable[tuple[str, _Identity]],
) -> dict[_Identity, ChecksumErrors]:
    """Return those of some containers that can be read. Call in a thread."""
    found = {}
    for netns_path, identity in containers:
        with contextlib.suppress(OverlayError, OSError):  # it is ending: others report that
            errors = _errors(netns_path, identity)
            if errors is not None:
                found[identity] = errors
    return found


def _errors(netns_path: str, identity: _Identity) -> ChecksumErrors | None:
    fd = netns.open_same(netns_path, identity)
    if fd is None:
        return None
    with netns.closing(fd), netns.inside(fd):
        return read_checksum_errors()
