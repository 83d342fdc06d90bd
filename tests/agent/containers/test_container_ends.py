"""Changes in containers are restored, and reported only so often."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock

import pytest
from overlay import limits
from overlay.agent.containers.container_ends import ContainerEnds
from overlay.agent.process import tasks
from overlay.agent.state.documents import Attachment
from overlay.errors import OverlayError
from overlay.kernel.containers import container_interface
from overlay.kernel.containers.container_interface import InterfaceDifference, WantedInterface
from overlay.kernel.netlink.socket import LargeDumpError
from overlay.model import Endpoint, Network, NodeId, Subnet, Vni, mac_for, parse_ip
from overlay.signals import AsyncSignal

VNI, IP = Vni(7), parse_ip("10.32.0.2")
SUBNET = Subnet(parse_ip("10.32.0.0"), 16, parse_ip("10.32.0.1"))
NETWORK = Network(VNI, "blue", (SUBNET,), NodeId(b"1" * 16))
ENDPOINT = Endpoint(b"1" * 8, VNI, "web", mac_for(VNI, IP), (IP,), (), ())


def attachment(**changes: object) -> Attachment:
    """Return the attachment of a container."""
    fields: dict[str, Any] = {
        "endpoint_id": "31" * 8, "vni": VNI, "target": "netns:web", "netns_path": "/run/netns/web",
        "netns_identity": (4, 5), "container_id": None, "ifname": "eth0", "port": "ve1",
        "subnet_index": 0, "gateway": True, "plugged": True,
    }  # fmt: skip
    return Attachment(**{**fields, **changes})


class Host:
    """A host with one container, whose interface lacks what a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, attached: Attachment) -> None:
        self.lacks: list[str] | OverlayError = []
        self.asked: list[WantedInterface] = []
        self.events: list[str] = []
        self.routed = 0
        self.calls = 0  # of the kernel thread
        self.attached_again: AsyncSignal[[tuple[int, int]]] = AsyncSignal()
        self.container_changed: AsyncSignal[[tuple[int, int]]] = AsyncSignal()
        directory = SimpleNamespace(
            network_by_vni=lambda _vni: NETWORK, endpoint_of=lambda _attachment: ENDPOINT
        )
        log = SimpleNamespace(record=lambda _kind, text, **_: self.events.append(text))
        context = SimpleNamespace(
            node=SimpleNamespace(
                directory=directory, kernel=SimpleNamespace(call=self._call), event_log=log
            ),
            attachments=SimpleNamespace(
                values=lambda: [attached],
                of_target=lambda _identity: [attached],
                alone_with=self._alone_with,
            ),
            default_routes=SimpleNamespace(reconcile=self._route),
            subnet_routes=SimpleNamespace(ensure=self._route),
            container_changed=self.container_changed,
        )
        attacher = SimpleNamespace(context=context, attached_again=self.attached_again)
        self.ends = ContainerEnds(cast("Any", attacher))
        for name in ("restore", "differences"):
            monkeypatch.setattr(container_interface, name, self._found)
        monkeypatch.setattr(
            container_interface,
            "all_differences",
            lambda containers: [self._found(*each) for each in containers],
        )

    def _found(
        self, _path: str, _identity: tuple[int, int], wanted: Sequence[WantedInterface]
    ) -> list[InterfaceDifference]:
        self.asked = list(wanted)
        if isinstance(self.lacks, OverlayError):
            raise self.lacks
        return [InterfaceDifference("blue", text, None) for text in self.lacks]

    async def _call(self, function: Any, *args: object) -> Any:
        self.calls += 1
        return function(*args)

    async def _route(self, _identity: tuple[int, int]) -> None:
        self.routed += 1

    @asynccontextmanager
    async def _alone_with(self, _identity: tuple[int, int]) -> AsyncIterator[None]:
        yield

    def check(self, lacks: list[str] | OverlayError) -> list[str]:
        """Return the events of one check."""
        self.lacks = lacks
        self.events.clear()
        asyncio.run(self.ends.reconcile())
        return list(self.events)


def test_the_same_change_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until a check finds nothing; a refusal is told once, too. Routes follow each repair."""
    host = Host(monkeypatch, attachment())
    told = ["in netns:web: eth0 is down: repaired (--hands-off leaves it so)"]

    assert host.check([]) == []
    assert host.routed == 0
    assert host.check(["eth0 is down"]) == told
    assert host.routed == 2
    assert host.check(["eth0 is down"]) == []
    assert host.check([]) == []
    assert host.check(["eth0 is down"]) == told
    refusal = OverlayError("refused")
    assert host.check(refusal) == [
        "in netns:web: refused: the agent retries (--hands-off leaves it so)"
    ]
    assert host.check(refusal) == []


def test_one_that_cannot_be_read_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root in it may have added a million routes; `verify` shows what all others lack."""
    host = Host(monkeypatch, attachment())
    host.lacks = LargeDumpError(4096)
    ((network, text),) = asyncio.run(host.ends.differences())
    assert network == "blue"
    assert text.startswith("netns:web cannot be read: there is too much in the kernel's tables")


def test_containers_that_lack_nothing_are_read_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each that lacks something, or did so before, is looked at once more by itself."""
    host = Host(monkeypatch, attachment())
    several = [(4, number) for number in range(5, 5 + limits.CONTAINER_CHECKS_AT_ONCE)]
    monkeypatch.setattr(host.ends, "_identities", lambda: {*several})

    for lacks, calls in (([], 1), (["eth0 is down"], 1 + len(several)), ([], 1 + len(several))):
        host.calls = 0
        host.check(lacks)
        assert host.calls == calls


def test_those_that_time_did_not_allow_are_read_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root in one may fill its tables: the others of the call are not left out for that."""
    host = Host(monkeypatch, attachment())
    several = [(4, number) for number in range(5, 8)]
    monkeypatch.setattr(host.ends, "_identities", lambda: {*several})
    first = container_interface.all_differences
    monkeypatch.setattr(container_interface, "all_differences", lambda each: first(each[:1]))

    host.check([])
    assert host.calls == 3


def test_the_interface_is_wanted_as_attached(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its addresses, and with a default route if it was asked for."""
    wanted = WantedInterface("blue", "eth0", ENDPOINT.mac, ((IP, 16),), frozenset({4}))
    host = Host(monkeypatch, attachment())
    host.check([])
    assert host.asked == [wanted]
    other = Host(monkeypatch, attachment(gateway=False))
    asyncio.run(other.attached_again.emit((4, 5)))
    assert other.asked[0].default_routes == frozenset()


@pytest.mark.parametrize("changes", [{"hands_off": True}, {"parent": "eth1"}, {"plugged": False}])
def test_other_interfaces_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    """Those left to their containers, those on a parent interface, and those not made yet."""
    host = Host(monkeypatch, attachment(**changes))

    assert host.check(["eth0 is down"]) == []
    assert asyncio.run(host.ends.differences()) == []


@pytest.mark.parametrize(("count", "interval_s"), [(0, 2.0), (1, 2.0), (100, 10.0), (5000, 15.0)])
async def test_many_containers_are_checked_less_often(
    monkeypatch: pytest.MonkeyPatch, count: int, interval_s: float
) -> None:
    """The kernel thread has other things to do."""
    ends = Host(monkeypatch, attachment()).ends
    monkeypatch.setattr(ends, "_identities", lambda: {(1, number) for number in range(count)})

    assert ends.next_interval_s() == interval_s  # nothing is told: it does not run


class Changes:
    """What the kernel tells, as a test says."""

    def __init__(self) -> None:
        self.are_told = True
        self.changed: set[tuple[int, int]] | None = set()
        self.followed: set[tuple[int, int]] = set()
        self.hastened = 0
        self.rest_s = 0.0

    def taken(self) -> set[tuple[int, int]] | None:
        """Return what has changed."""
        return self.changed

    def rest(self, rest_s: float) -> None:
        """Note how long nothing wakes."""
        self.rest_s = rest_s

    def unfollowed(self, identities: set[tuple[int, int]]) -> set[tuple[int, int]]:
        """Return those that are new."""
        return identities - self.followed

    async def follow(self, containers: Sequence[tuple[str, tuple[int, int]]]) -> None:
        """Follow some."""
        self.followed |= {identity for _, identity in containers}

    async def keep(self, identities: set[tuple[int, int]]) -> None:
        """Forget others."""
        self.followed &= identities

    def hasten(self) -> None:
        """Count it."""
        self.hastened += 1


class Looks:
    """The passes over some containers, and which of these each has looked at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
        self.changes = Changes()
        self.everybody = {(4, number) for number in range(5, 5 + count)}
        self.looked: list[tuple[int, int]] = []
        self.ends = Host(monkeypatch, attachment()).ends
        monkeypatch.setattr(self.ends, "_changes", self.changes)
        monkeypatch.setattr(self.ends, "_identities", lambda: self.everybody)
        monkeypatch.setattr(self.ends, "_suspects", self._suspects)

    async def _suspects(self, identities: Sequence[tuple[int, int]]) -> set[tuple[int, int]]:
        assert self.changes.followed.issuperset(identities)  # before
        self.looked.extend(identities)
        return set()

    async def at(self, changed: set[tuple[int, int]] | None) -> set[tuple[int, int]]:
        """Return what is looked at after these have changed."""
        self.changes.changed = changed
        self.looked.clear()
        await self.ends.attempt()
        return {*self.looked}


async def test_what_has_changed_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is new; all when that is due, or when notifications were lost."""
    looks = Looks(monkeypatch, 4)
    everybody = looks.everybody
    assert await looks.at(set()) == everybody  # the first time
    assert looks.ends.next_interval_s() > limits.CONTAINER_CHECK_INTERVAL_MIN_S
    assert await looks.at(set()) == set()
    assert await looks.at({(4, 5), (9, 9)}) == {(4, 5)}  # the other one was detached
    everybody.add((4, 9))
    assert await looks.at(set()) == {(4, 9)}
    assert await looks.at(None) == everybody
    monkeypatch.setattr(looks.ends, "_all_due_at", asyncio.get_running_loop().time())
    assert looks.ends.next_interval_s() == 0.0
    assert await looks.at({(4, 5)}) == everybody


async def test_all_are_looked_at_on_request_and_after_a_failed_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was told may be taken already, and of some changes nothing is told."""
    looks = Looks(monkeypatch, 4)
    await looks.at(set())
    looks.ends.mark_stale()
    assert await looks.at(set()) == looks.everybody
    assert await looks.at(set()) == set()

    with monkeypatch.context() as refusing:
        refusing.setattr(looks.changes, "follow", AsyncMock(side_effect=OSError(12, "no memory")))
        assert await looks.at({(4, 5)}) == set()
        assert looks.ends.fault is not None
    assert await looks.at(set()) == looks.everybody
    assert looks.ends.fault is None


async def test_all_are_looked_at_by_the_tick_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the loop wakes at a tick: otherwise a pass that looks at none would come before each."""
    looks = Looks(monkeypatch, 4)
    await looks.at(set())
    now = asyncio.get_running_loop().time()
    wait_s = limits.CONTAINER_CHECK_INTERVAL_S
    early_s = wait_s - tasks.pause_s(wait_s, now)
    assert early_s < tasks.TICK_S
    monkeypatch.setattr(looks.ends, "_all_due_at", now + 0.99 * tasks.TICK_S)
    assert await looks.at(set()) == looks.everybody


@pytest.mark.parametrize(("count", "lost_s"), [(4, 2.0), (100, 10.0), (5000, 15.0)])
async def test_the_rest_is_by_how_many_changes_were_looked_at(
    monkeypatch: pytest.MonkeyPatch, count: int, lost_s: float
) -> None:
    """So beside very many containers, what one changes is still looked at soon."""
    looks = Looks(monkeypatch, count)
    soon_s = limits.CONTAINER_CHECK_INTERVAL_MIN_S - limits.CONTAINER_CHANGE_SETTLE_S
    await looks.at(set())  # all are new
    assert await looks.at({(4, 5)}) == {(4, 5)}
    assert looks.changes.rest_s == soon_s
    looks.ends.mark_stale()
    assert await looks.at(set()) == looks.everybody  # at intervals of their own
    assert looks.changes.rest_s == soon_s
    assert await looks.at(None) == looks.everybody
    assert looks.changes.rest_s == lost_s - limits.CONTAINER_CHANGE_SETTLE_S


async def test_a_new_container_is_followed_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not within the attach, nor one that is followed already."""
    host, changes = Host(monkeypatch, attachment()), Changes()
    monkeypatch.setattr(host.ends, "_changes", changes)
    await host.container_changed.emit((4, 5))
    assert changes.hastened == 1
    await changes.follow([("/run/netns/web", (4, 5))])
    await host.container_changed.emit((4, 5))
    assert changes.hastened == 1
