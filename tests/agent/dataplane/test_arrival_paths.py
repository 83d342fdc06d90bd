"""Paths through which members' packets come, across a start of the agent."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay import limits
from overlay.agent.dataplane.arrival_paths import ArrivalPaths
from overlay.core.dataplane.underlay_filter import ArrivalPath
from overlay.kernel.host import arrival_paths
from overlay.kernel.host.arrival_paths import FurtherPaths
from overlay.model import Ip
from overlay.signals import AsyncSignal, Signal

PEER = Ip(bytes([192, 168, 56, 11]))
OWN = Ip(bytes([192, 168, 56, 12]))
FIRST, SECOND = ArrivalPath(2, PEER), ArrivalPath(3, PEER)


class Host:
    """The parts of a host that the paths depend on; every seen path is asymmetric."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, former: frozenset[ArrivalPath]) -> None:
        self.used: frozenset[ArrivalPath] = frozenset()
        self.path_used: Signal[[ArrivalPath]] = Signal()
        self.address_checked: AsyncSignal[[Any]] = AsyncSignal()
        self.no_hosts: frozenset[Ip] = frozenset()
        self.asked: list[frozenset[Ip]] = []
        self.events: list[str] = []
        self.replanned = 0
        self.view: Any = SimpleNamespace(
            vteps=lambda: frozenset({PEER}) - self.view.excluded_vteps,
            members=list,
            excluded_vteps=frozenset(),
        )
        self.now = 0.0
        transport = SimpleNamespace(path_used=self.path_used, now=lambda: self.now)
        context = SimpleNamespace(
            directory=SimpleNamespace(
                view=self.view, own="self", card=lambda _node: SimpleNamespace(address=OWN)
            ),
            kernel=SimpleNamespace(call=self._call),
            event_log=SimpleNamespace(record=lambda _kind, text, **_: self.events.append(text)),
            gossip=SimpleNamespace(transport=transport),
        )
        underlay = SimpleNamespace(
            address_checked=self.address_checked,
            trigger=lambda: None,
            interface="eth1",
            replan=self._replan,
        )
        vxlan_filter = SimpleNamespace(paths=former, use_paths=self._use)

        def further(members: frozenset[Ip], seen: set[ArrivalPath]) -> FurtherPaths:
            self.asked.append(members)
            asymmetric = dict.fromkeys(seen, "eth1")
            return FurtherPaths(
                frozenset(), asymmetric, frozenset(seen), frozenset(), self.no_hosts & members
            )

        monkeypatch.setattr(arrival_paths, "further_paths", further)
        self.paths = ArrivalPaths(*(cast("Any", one) for one in (context, underlay, vxlan_filter)))

    async def _call(self, function: Any, *args: object) -> Any:
        return function(*args)

    def _replan(self) -> None:
        self.replanned += 1

    async def _use(self, paths: frozenset[ArrivalPath]) -> None:
        self.used = paths


async def test_a_path_used_before_the_first_pass_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each path is announced once: gossip may come before the underlay has been looked at."""
    host = Host(monkeypatch, frozenset({SECOND}))
    host.path_used.emit(FIRST)
    await host.address_checked.emit(None)

    assert host.used == {FIRST, SECOND}


async def test_a_former_process_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths that the filter has later come from this process."""
    host = Host(monkeypatch, frozenset({SECOND}))
    await host.address_checked.emit(None)
    host.paths._filter.paths = frozenset({FIRST})
    await host.address_checked.emit(None)

    assert host.used == {SECOND}


async def test_nothing_is_sent_where_this_host_would_receive_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As long as the routes say so; it is told once, and networks are planned without it."""
    host = Host(monkeypatch, frozenset())
    for no_hosts, replanned in ((True, 1), (True, 1), (False, 2)):
        host.no_hosts = frozenset({PEER} if no_hosts else ())
        await host.address_checked.emit(None)
        assert host.view.vteps() == frozenset({PEER}) - host.no_hosts
        assert host.replanned == replanned

    assert host.asked == 3 * [frozenset({PEER})]
    assert host.events == [
        "a member names 192.168.56.11, which is no other host's seen from here: it gets nothing"
    ]


async def test_this_hosts_own_address_in_another_card_is_no_news(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is a former identity of this host, or else the card report tells of it."""
    host = Host(monkeypatch, frozenset())
    host.view.vteps = lambda: frozenset({PEER, OWN})
    host.no_hosts = frozenset({OWN})
    await host.address_checked.emit(None)

    assert host.view.excluded_vteps == {OWN}
    assert host.events == []


async def test_a_path_that_comes_during_a_pass_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next pass asks the kernel about it."""
    host = Host(monkeypatch, frozenset({SECOND}))
    further = arrival_paths.further_paths

    def meanwhile(members: Any, seen: Any) -> FurtherPaths:
        host.path_used.emit(FIRST)
        return further(members, seen)

    monkeypatch.setattr(arrival_paths, "further_paths", meanwhile)
    await host.address_checked.emit(None)
    assert host.used == {SECOND}
    await host.address_checked.emit(None)
    assert host.used == {FIRST, SECOND}


async def test_a_path_that_the_member_left_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that the filter had from a former process."""
    host = Host(monkeypatch, frozenset({SECOND}))
    for host.now, used in (
        (0.0, {SECOND, FIRST}),
        (60.0, {SECOND, FIRST}),
        (60.0 + limits.ARRIVAL_PATH_KEPT_S, {FIRST}),
    ):
        host.path_used.emit(FIRST)
        await host.address_checked.emit(None)
        assert host.used == used
