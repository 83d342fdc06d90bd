"""Events for changes of the status that nobody else records."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from overlay import limits
from overlay.agent import status_events
from overlay.agent.process.controller import Fault
from overlay.agent.process.event_log import EventLog
from overlay.agent.status_events import (
    StatusEvents,
    StatusSnapshot,
    status_changes,
    without_numbers,
)
from overlay.model import Network, NodeId, Vni


def network(name: str, vni: int, *labels: tuple[str, str]) -> Network:
    """Return a network without subnets."""
    return Network(Vni(vni), name, (), NodeId(bytes(8)), labels=labels)


BLUE, RED = network("blue", 9000001), network("red", 9000002)
PLAIN = StatusSnapshot({BLUE.vni: BLUE}, frozenset({BLUE.vni}), ("vm1",), "")
FULL = Fault("the state cannot be written: no space", "Free space", "error")


def with_faults(*faults: Fault) -> StatusSnapshot:
    """Return a status with health lines."""
    return replace(PLAIN, faults={without_numbers(each.text): each for each in faults})


def told(before: StatusSnapshot, after: StatusSnapshot, *recorded: str) -> list[str]:
    """Return the events of a change as text."""
    return [
        " ".join(filter(None, (each.kind, each.network, each.text)))
        for each in status_changes(before, after, recorded)
    ]


def test_networks_and_sandboxes_have_events() -> None:
    """Whichever host creates or removes a network, and when this host is on it."""
    more = replace(
        PLAIN,
        networks={**PLAIN.networks, RED.vni: RED},
        sandboxes=frozenset(),
    )

    assert told(PLAIN, PLAIN) == []
    assert told(PLAIN, more) == [
        "network red created: driver overlay, vni 9000002",
        "sandbox blue this host is no longer on the network",
    ]
    assert told(more, PLAIN) == [
        "network red removed: driver overlay, vni 9000002",
        "sandbox blue this host is on the network now",
    ]


def test_a_network_made_anew_is_two_events() -> None:
    """It has another VNI; one whose definition changes is changed."""
    other = network("blue", 9000003)
    changed = network("blue", 9000001, ("team", "a"))

    assert told(PLAIN, replace(PLAIN, networks={other.vni: other}, sandboxes=frozenset())) == [
        "network blue removed: driver overlay, vni 9000001",
        "network blue created: driver overlay, vni 9000003",
        "sandbox blue this host is no longer on the network",
    ]
    assert told(PLAIN, replace(PLAIN, networks={changed.vni: changed})) == [
        "network blue changed: driver overlay, vni 9000001"
    ]


def test_holders_and_fast_path_have_events() -> None:
    """With what they were, or why it is off."""
    assert told(PLAIN, replace(PLAIN, holders=("vm1", "vm2"))) == [
        "authority held by vm1, vm2, before by vm1"
    ]
    assert told(PLAIN, replace(PLAIN, holders=())) == ["authority held by no member, before by vm1"]
    off = replace(PLAIN, fast_path="the kernel refuses eBPF")
    assert told(PLAIN, off) == ["fast path off: the kernel refuses eBPF"]
    assert told(off, PLAIN) == ["fast path on"]
    off = replace(PLAIN, native_path="the kernel refuses eBPF")
    assert told(PLAIN, off) == ["native path off: the kernel refuses eBPF"]


def test_a_health_line_begins_and_ends() -> None:
    """Its level is that of the line."""
    (begin,) = status_changes(PLAIN, with_faults(FULL), ())
    (end,) = status_changes(with_faults(FULL), PLAIN, ())

    assert (begin.kind, begin.text, begin.level) == ("health", FULL.text, logging.ERROR)
    assert (end.kind, end.text, end.level) == (
        "health-over", f"no longer: {FULL.text}", logging.INFO,
    )  # fmt: skip


def test_a_count_that_changes_is_no_event() -> None:
    """A line with another number is the same one; one about another host is not."""
    table = Fault("the IPv4 neighbor table is nearly full: 812 of 1024 entries", "")
    fuller = Fault("the IPv4 neighbor table is nearly full: 1000 of 1024 entries", "")
    one, two = Fault("vm1's underlay carries 1400 bytes", ""), Fault("vm2's underlay is 9", "")

    assert told(with_faults(table), with_faults(fuller)) == []
    assert len(told(with_faults(one), with_faults(two))) == 2
    assert without_numbers("vm2 at 192.168.56.12 fd00::1 lost 3 of 10, 1.5 s") == (
        "vm2 at 192.168.56.12 fd00::1 lost N of N, N s"
    )


@pytest.mark.parametrize(
    "recorded", [FULL.text, f"{FULL.text} (tried again every 5 s)", "no space"]
)
def test_what_is_recorded_already_has_no_second_event(recorded: str) -> None:
    """Where it began: the owner of a fault knows more."""
    assert told(PLAIN, with_faults(FULL), recorded) == []
    assert told(PLAIN, with_faults(FULL), "vm2 is alive") != []


async def test_only_changes_of_one_membership_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state at a join is no change, but its faults are events."""
    membership: Any = None
    now = PLAIN
    monkeypatch.setattr(status_events, "snapshot", lambda _components: now)
    event_log = EventLog(tmp_path)
    events = StatusEvents(event_log, lambda: membership)

    def texts() -> list[str]:
        return [f"{event['kind']}: {event['text']}" for event in event_log.since(0)]

    await events.reconcile()
    membership, now = object(), with_faults(FULL)
    await events.reconcile()
    assert texts() == [f"health: {FULL.text}"]
    membership = None
    await events.reconcile()
    membership, now = object(), StatusSnapshot(holders=PLAIN.holders)
    await events.reconcile()
    assert len(texts()) == 1
    now = PLAIN
    await events.reconcile()
    assert texts()[1].startswith("network: created")


async def test_a_flood_of_changes_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand networks at once are some events, and how many more there are."""
    membership = object()
    now = StatusSnapshot(holders=PLAIN.holders)
    monkeypatch.setattr(status_events, "snapshot", lambda _components: now)
    event_log = EventLog(tmp_path)
    given: Any = membership
    events = StatusEvents(event_log, lambda: given)
    await events.reconcile()
    now = replace(
        now, networks={Vni(number): network(f"n{number}", number) for number in range(1000)}
    )
    await events.reconcile()
    found = event_log.since(0)

    assert len(found) == limits.STATUS_EVENTS_MAX + 1
    more = 1000 - limits.STATUS_EVENTS_MAX
    assert found[-1]["text"] == f"{more} more changes at once: overlayd status"
