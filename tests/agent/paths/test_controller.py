"""The agent's side of data-path probes: timers, and what a member's report can change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay import limits
from overlay.agent.paths.controller import PathController
from overlay.core.paths.view import PathState, PeerPath
from overlay.core.protocol.messages import PathReport
from overlay.model import Ip, NodeId, Vni
from overlay.signals import AsyncSignal, Signal
from tests.agent.conftest import until

OWN, PEER = NodeId(b"o" * 16), NodeId(b"p" * 16)
VNI = Vni(7)
CARD = SimpleNamespace(node_id=PEER, name="vm2", address=Ip(bytes([127, 0, 0, 9])))


class Host:
    """A host with one peer; no frame leaves it."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        gossip = SimpleNamespace(
            card=SimpleNamespace(node_id=OWN, address=CARD.address, underlay_mtu=1500),
            node=SimpleNamespace(send_to=lambda _to, _report: None),
            node_id=OWN,
            transport=SimpleNamespace(flush_soon=lambda: None, now=loop.time),
        )
        directory = SimpleNamespace(
            card=lambda _node: CARD,
            network_by_vni=lambda _vni: None,
            node_name=lambda _node: CARD.name,
            participants=lambda _vni, **_: [OWN, PEER],
        )
        event_log = SimpleNamespace(record=lambda *_args, **_more: None)
        context = SimpleNamespace(
            gossip=gossip, directory=directory, kernel=None, event_log=event_log
        )
        reconciler = SimpleNamespace(sandbox_ready=AsyncSignal(), sandbox_closing=Signal())
        self.controller = PathController(
            cast("Any", context), cast("Any", reconciler), cast("Any", None)
        )
        self.prober = self.controller._prober
        self.prober.set_peers({PEER: PeerPath(VNI, 1500)}, loop.time())

    def report(self, *, sent: int = 0, missed: int = 0) -> None:
        """Hand the controller a report of the peer's."""
        echo = bytes(limits.PATH_ECHO_SIZE)
        self.controller.report_received(PEER, PathReport(b"k" * 16, echo, sent, missed, 0, 0))


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    """Return a host whose probes end with the test."""
    made = Host()
    yield made
    made.controller.close()


async def test_one_timer_is_armed_however_often_it_runs(host: Host) -> None:
    """An attach probes at once: what was armed before must not run beside the new one."""
    for _ in range(5):
        host.controller.probe([VNI])
        host.controller.peer_moved(PEER)
        host.report()
    scheduled = cast("Any", asyncio.get_running_loop())._scheduled
    armed = [each for each in scheduled if not each.cancelled() and "_timers" in repr(each)]

    assert len(armed) == 1


async def test_a_path_that_was_never_proven_is_not_judged(host: Host) -> None:
    """Nothing is known of it, so nothing is said, and no attach waits."""
    peers = host.controller.probe([VNI])

    assert peers == [PEER]
    async with asyncio.timeout(limits.PATH_ATTACH_WAIT_S / 2):
        assert await host.controller.probe_outcome(peers) == ((), ())


async def test_a_lost_path_is_named_by_an_attach(host: Host) -> None:
    """The verdict that stands is enough."""
    host.report(sent=9, missed=limits.PATH_MISSES_LOST)
    path = host.controller.path(PEER)

    assert path is not None
    assert path.receiving is PathState.LOST
    outcome = await host.controller.probe_outcome(host.controller.probe([VNI]))
    assert outcome == ((PEER,), ())


async def test_a_late_answer_is_no_loss(host: Host) -> None:
    """A proven path whose probe is not answered at once has not answered yet, and no more."""
    host.prober._paths[PEER]._outgoing.state = PathState.OK
    peers = host.controller.probe([VNI])

    assert await host.controller.probe_outcome(peers) == ((), (PEER,))
    host.report(sent=9, missed=limits.PATH_MISSES_LOST)
    assert await host.controller.probe_outcome(peers) == ((PEER,), ())


@pytest.mark.parametrize(("age_s", "is_probed"), [(0.0, False), (limits.PATH_FRESH_S, True)])
async def test_a_path_that_was_just_proven_is_not_probed_again(
    host: Host, monkeypatch: pytest.MonkeyPatch, age_s: float, *, is_probed: bool
) -> None:
    """Many attaches rely on one answer, for half a second."""
    outgoing, probed = host.prober._paths[PEER]._outgoing, list[NodeId]()
    outgoing.state = PathState.OK
    outgoing.proven_at = asyncio.get_running_loop().time() - age_s
    monkeypatch.setattr(host.prober, "probe_now", lambda node_id, _now: probed.append(node_id))

    assert host.controller.probe([VNI]) == [PEER]
    assert probed == ([PEER] if is_probed else [])


async def test_no_member_makes_the_overlay_too_small(host: Host) -> None:
    """One that denies every large frame leaves at least the size that an overlay needs."""
    search, now = host.prober._paths[PEER]._outgoing.search, asyncio.get_running_loop().time()
    while search.carried is None and (size := search.next_size(now)) is not None:
        search.miss(size, now)

    assert search.carried == 0
    assert host.controller.carried_size() is None


async def test_a_check_of_sizes_waits_for_peers_that_answer(host: Host) -> None:
    """Not for one that never reported anything; and it ends with its time."""
    host.controller.probe([VNI])
    async with asyncio.timeout(limits.PATH_ATTACH_WAIT_S):
        await host.controller.check_sizes(60.0)
    outgoing = host.prober._paths[PEER]._outgoing
    outgoing.state = PathState.OK
    outgoing.search.probe_soon(asyncio.get_running_loop().time())
    assert host.prober.is_size_waiting()

    await host.controller.check_sizes(0.05)

    assert host.prober.is_size_waiting()


async def test_a_defect_does_not_end_the_probes(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timer runs again, and what it begins is begun then."""
    monkeypatch.setattr(limits, "CALLBACK_AGAIN_S", 0.01)
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    runs: list[float] = []
    handle_timer = host.prober.handle_timer
    monkeypatch.setattr(host.prober, "handle_timer", None)
    host.controller._arm(0.0)
    await until(lambda: len(found) > 0)

    def note(now: float) -> None:
        runs.append(now)
        handle_timer(now)

    monkeypatch.setattr(host.prober, "handle_timer", note)
    await until(lambda: len(runs) > 0)
