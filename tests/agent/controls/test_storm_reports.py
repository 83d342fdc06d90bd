"""Frames dropped at ports: counted by port and reason, and reported when a storm begins."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from overlay.agent.controls.drops import STORM, SWITCH, DropCounters, Drops
from overlay.agent.controls.storm_reports import StormReports
from overlay.core.dataplane.controls.port_controls import ControlChanges, with_controls
from overlay.model import Endpoint, Network, NodeId, Subnet, Vni, mac_for, parse_ip

BLUE = Vni(9)
IP = parse_ip("10.32.0.2")
NETWORK = Network(
    BLUE, "blue", (Subnet(parse_ip("10.32.0.0"), 16, parse_ip("10.32.0.1")),), NodeId(bytes(16))
)


class Site:
    """A host with one container, and what its kernel has counted."""

    def __init__(self, storm: int) -> None:
        self.found: dict[str, Drops] | None = {}
        self.events: list[tuple[str, str]] = []
        self.reads = 0
        labels = with_controls((), ControlChanges(storm=storm))
        self.endpoint = Endpoint(b"1" * 8, BLUE, "web", mac_for(BLUE, IP), (IP,), (), labels)
        attachments = {b"1" * 8: SimpleNamespace(vni=BLUE, port="ve1")}
        site = cast("Any", self)
        self.drops = DropCounters(site, site, cast("Any", attachments))
        context = SimpleNamespace(
            event_log=self, directory=self, gossip=SimpleNamespace(transport=self)
        )
        self.reports = StormReports(cast("Any", context), self.drops, cast("Any", attachments))

    sandbox = None

    def runtime(self, vni: Vni) -> Any:
        """Return the sandbox of network blue."""
        return self if vni == BLUE else None

    async def call(self, *_: object) -> dict[str, Drops] | None:
        """Return what the kernel has counted."""
        self.reads += 1
        return self.found

    def now(self) -> float:
        """Return a time."""
        return 1.0

    def record(self, kind: str, text: str, **_: object) -> None:
        """Keep an event."""
        self.events.append((kind, text))

    def network_by_vni(self, _: Vni) -> Network:
        """Return network blue."""
        return NETWORK

    def endpoint_of(self, _: object) -> Endpoint:
        """Return the container's endpoint."""
        return self.endpoint


async def test_a_storm_is_one_event() -> None:
    """As long as it goes on; with the limit and the container's name."""
    site = Site(storm=200)
    for count in (0, 7, 7, 9000):
        site.found = {"ve1": {STORM: count}}
        await site.reports.reconcile()
    ((kind, text),) = site.events
    assert kind == "storm"
    assert text.startswith("web (10.32.0.2) sends more than 200 broadcast and multicast frames")


async def test_without_limits_nothing_is_read() -> None:
    """The kernel is asked only about networks with storm control."""
    site = Site(storm=0)
    await site.reports.reconcile()
    assert site.reads == 0


async def test_sums_never_fall() -> None:
    """Counters that began anew add up; a kernel that does not answer changes nothing."""
    site = Site(storm=10)
    read: list[dict[str, Drops] | None] = [
        {"ve1": {STORM: 5}, "": {SWITCH: 1}},
        None,
        {"ve1": {STORM: 2}, "": {SWITCH: 3}},
    ]
    for found in read:
        site.found = found
        await site.drops.read([BLUE])
    assert site.drops.totals == {(BLUE, STORM): 7, (BLUE, SWITCH): 3}
    assert site.drops.of_port(BLUE, "ve1") == {STORM: 2}
    await site.drops.read([Vni(99)])
    assert site.drops.of_port(Vni(99), "ve1") == {}
