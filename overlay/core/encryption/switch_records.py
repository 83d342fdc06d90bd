"""The records by which a network in use is switched to encryption, or back.

Like the record of a WireGuard key they are custom DNS records of the cluster's scope, which agents
of before hold and never read: a record of unknown number would cut those off. Their names say
everything; the address is a filler.

Owns: the form of a member's progress, of a request to a network's creator, and of the sign that a
member takes part in switches at all. Does not: know what follows from them (`switch_phase`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from overlay import limits
from overlay.core.encryption.switch_phase import Progress, SwitchPhase
from overlay.core.protocol.records import CustomRecord, Value
from overlay.model import Ip, NodeId

_PROGRESS: Final = re.compile(
    r"encryption-([0-9a-f]{6})-([1-9][0-9]{0,18})-([0-4])-(moving|done)", re.ASCII
)
_REQUEST: Final = re.compile(
    r"encryption-([0-9a-f]{6})-after-(0|[1-9][0-9]{0,18})-(on|off)", re.ASCII
)
_FILLER: Final = (Ip(bytes(15) + b"\x01"),)
CAPABLE: Final = CustomRecord("encryption-switch", _FILLER)
"""A member with this record switches networks along with the others."""
ORPHANS: Final = CustomRecord("encryption-switch-orphans", _FILLER)
"""And one with this record also those whose creator is no longer a member."""


class SwitchRequest(NamedTuple):
    """A member asks a network's creator for a goal, in place of the one with a serial number."""

    vni: int
    after: int  # 0: the network has had none
    encrypted: bool


def progress_record(progress: Progress) -> CustomRecord:
    """Return the record of a member's progress."""
    state = "done" if progress.is_done else "moving"
    name = f"encryption-{progress.vni:06x}-{progress.serial}-{progress.phase:d}-{state}"
    return CustomRecord(name, _FILLER)


def request_record(request: SwitchRequest) -> CustomRecord:
    """Return the record of a request."""
    goal = "on" if request.encrypted else "off"
    return CustomRecord(f"encryption-{request.vni:06x}-after-{request.after}-{goal}", _FILLER)


def progress_of(values: Iterable[Value]) -> dict[int, Progress]:
    """Return a member's progress by VNI among its custom records of the cluster's scope."""
    found: dict[int, Progress] = {}
    for each in filter(None, map(_progress, values)):
        found[each.vni] = max(each, found.get(each.vni, each))
    return found


def progress_by_network(
    values: Iterable[tuple[NodeId, Value]],
) -> dict[int, dict[NodeId, Progress]]:
    """Return the progress of all members, by VNI, among custom records of the cluster's scope."""
    found: dict[int, dict[NodeId, Progress]] = {}
    for origin, value in values:
        each = _progress(value)
        if each is not None:
            there = found.setdefault(each.vni, {})
            there[origin] = max(each, there.get(origin, each))
    return found


def _progress(value: Value) -> Progress | None:
    """Return the progress that a record states; None for one of another purpose."""
    match = _PROGRESS.fullmatch(value.name) if isinstance(value, CustomRecord) else None
    if match is None or int(match[2]) > limits.ENCRYPTION_SERIAL_MAX:
        return None
    return Progress(
        int(match[1], 16), int(match[2]), SwitchPhase(int(match[3])), match[4] == "done"
    )


def requests_of(values: Iterable[Value]) -> Iterator[SwitchRequest]:
    """Yield a member's requests among its custom records of the cluster's scope."""
    for name in _names(values):
        match = _REQUEST.fullmatch(name)
        if match is not None:
            yield SwitchRequest(int(match[1], 16), int(match[2]), match[3] == "on")


def _names(values: Iterable[Value]) -> Iterator[str]:
    found = (value.name for value in values if isinstance(value, CustomRecord))
    return (name for name in found if name.startswith("encryption-"))


_LONGEST: Final = Progress(
    limits.VNI_MAX, limits.ENCRYPTION_SERIAL_MAX, SwitchPhase.CLEAR, is_done=False
)
assert len(progress_record(_LONGEST).name) <= limits.NAME_LENGTH_MAX
