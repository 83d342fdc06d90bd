"""Record an event for each change of the status that nobody else records.

Most changes are recorded where they happen. This compares what `status` would show with what it
showed before: networks, whichever host made them; sandboxes; the authority's holders; the fast
path; and those health lines whose begin or end has no event.

Owns: when it compares, and the texts. Does not: know how a fault is found (`health`).
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from overlay import limits
from overlay.agent.components import Components
from overlay.agent.health import silent_faults
from overlay.agent.process.controller import Controller, Fault
from overlay.agent.process.event_log import EventLog
from overlay.core.dataplane.network_drivers import driver_of
from overlay.model import Network, Vni

# A number that stands alone; those within names and addresses do not.
_NUMBER = re.compile(r"(?<![\w.:-])\d+(?:\.\d+)?(?![\w.:-])")


class StatusChange(NamedTuple):
    """An event to record."""

    kind: str
    text: str
    network: str = ""
    level: int = logging.INFO


@dataclass(frozen=True, slots=True)
class StatusSnapshot:
    """The parts of the status at one moment that are compared."""

    networks: dict[Vni, Network] = field(default_factory=dict)
    sandboxes: frozenset[Vni] = frozenset()  # networks with a sandbox on this host
    holders: tuple[str, ...] = ()  # names of those that hold the authority
    fast_path: str = ""  # why there is none; empty: it is active
    native_path: str = ""
    faults: dict[str, Fault] = field(default_factory=dict)  # by text without its numbers


class StatusEvents(Controller):
    """Compares the status every few seconds; `membership` returns the current one, if any."""

    name = "status events"
    interval_s = limits.STATUS_CHECK_INTERVAL_S
    level = "warn"

    def __init__(self, event_log: EventLog, membership: Callable[[], Components | None]) -> None:
        super().__init__(event_log)
        self._membership = membership
        self._compared: Components | None = None  # the membership that `_before` is of
        self._before = StatusSnapshot()
        # Texts of events since the last comparison.
        self._recorded: deque[str] = deque(maxlen=limits.RECENT_EVENTS_MAX)
        event_log.follow(lambda event: self._recorded.append(str(event["text"])))

    async def reconcile(self) -> None:
        """Record what has changed since the last pass; of a new membership only its faults."""
        components = self._membership()
        recorded = list(self._recorded)
        self._recorded.clear()
        if components is None:
            self._compared = None
            return
        after = snapshot(components)
        before = self._before
        if components is not self._compared:
            before = replace(after, faults={})
        self._compared, self._before = components, after
        found = list(status_changes(before, after, recorded))
        for change in found[: limits.STATUS_EVENTS_MAX]:
            fields = {"network": change.network} if change.network else {}
            self._event_log.record(change.kind, change.text, level=change.level, **fields)
        more = len(found) - limits.STATUS_EVENTS_MAX
        if more > 0:
            self._event_log.record("health", f"{more} more changes at once: overlayd status")
        self._recorded.clear()  # its own


def snapshot(components: Components) -> StatusSnapshot:
    """Return what the status shows now."""
    networks, reconciler = components.directory.networks(), components.forwarding.reconciler
    return StatusSnapshot(
        {network.vni: network for network in networks},
        frozenset(
            network.vni for network in networks if reconciler.runtime(network.vni) is not None
        ),
        tuple(components.administration.holders.names()),
        reconciler.fast_path.why,
        reconciler.fast_path.native_why,
        {without_numbers(fault.text): fault for fault in silent_faults(components)},
    )


def status_changes(
    before: StatusSnapshot, after: StatusSnapshot, recorded: Sequence[str]
) -> Iterator[StatusChange]:
    """Yield the events of a change; a fault that an event of `recorded` tells of has none."""
    yield from _network_changes(before, after)
    if after.holders != before.holders:
        now, was = (", ".join(names) or "no member" for names in (after.holders, before.holders))
        yield StatusChange("authority", f"held by {now}, before by {was}")
    if after.fast_path != before.fast_path:
        off = f"off: {after.fast_path}"
        yield StatusChange("fast path", off if after.fast_path else "on")
    if after.native_path != before.native_path:
        off = f"off: {after.native_path}"
        yield StatusChange("native path", off if after.native_path else "on")
    for key, fault in after.faults.items():
        if key not in before.faults and not _is_told(fault.text, recorded):
            level = logging.ERROR if fault.level == "error" else logging.WARNING
            yield StatusChange("health", fault.text, level=level)
    for key, fault in before.faults.items():
        if key not in after.faults:
            yield StatusChange("health-over", f"no longer: {fault.text}")


def _network_changes(before: StatusSnapshot, after: StatusSnapshot) -> Iterator[StatusChange]:
    for vni in sorted(after.networks.keys() | before.networks.keys()):
        was, now = before.networks.get(vni), after.networks.get(vni)
        if was == now:
            continue
        if was is None and now is not None:
            yield StatusChange("network", f"created: {_description(now)}", now.name)
        elif was is not None and now is None:
            yield StatusChange("network", f"removed: {_description(was)}", was.name)
        elif now is not None:
            yield StatusChange("network", f"changed: {_description(now)}", now.name)
    known = before.networks | after.networks
    for vni in sorted(after.sandboxes - before.sandboxes):
        yield StatusChange("sandbox", "this host is on the network now", known[vni].name)
    for vni in sorted(before.sandboxes - after.sandboxes):
        yield StatusChange("sandbox", "this host is no longer on the network", known[vni].name)


def without_numbers(text: str) -> str:
    """Return a text without the numbers that stand alone: counts change, the fault stays."""
    return _NUMBER.sub("N", text)


def _is_told(text: str, recorded: Sequence[str]) -> bool:
    return any(text in each or (each and each in text) for each in recorded)


def _description(network: Network) -> str:
    parts = [f"driver {driver_of(network)}", f"vni {network.vni}", *map(str, network.subnets)]
    return ", ".join(parts)
