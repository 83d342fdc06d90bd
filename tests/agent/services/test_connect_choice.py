"""When backends are chosen at connect(2), and what is done where they are not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay.agent.gossip.context import NodeContext
from overlay.agent.services import connect_choice
from overlay.agent.services.connect_choice import ConnectChoice, LedContainer
from overlay.core.services.values import Backend, ServiceProtocol, VirtualPort
from overlay.errors import OverlayError
from overlay.model import Ip, NodeId, Vni

NODE = NodeId(bytes(16))
WEB, API = (4, 7), (4, 8)
VIRTUAL = Ip(bytes([10, 32, 0, 100]))


class FakeHook:
    """Programs that only note what they are told."""

    refusal: OSError | OverlayError | None = None
    fails_in: tuple[tuple[int, int], ...] = ()
    forgets = True

    def __init__(self, _node_id: NodeId) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.led: dict[tuple[int, int], Any] = {}
        self.is_closed = False
        self.asked: Any = None

    def close(self) -> None:
        """Note it."""
        self.is_closed = True

    def lead(self, _path: str, identity: tuple[int, int], ports: Any) -> None:
        """Note the ports of a container, also where it cannot have all of them."""
        self.led[identity] = ports
        if identity in self.fails_in:
            raise OSError(12, "no memory")

    def forget(self, identity: tuple[int, int]) -> None:
        """Note that it has none."""
        if not self.forgets:
            raise OSError(5, "no way")
        self.led.pop(identity, None)

    def unanswered(self, _path: str, _identity: tuple[int, int], ports: Any) -> list[Any]:
        """Note which ports lost a backend."""
        self.asked = ports
        return ["a move"]


class Kernel:
    """Calls what it is given, and counts."""

    calls = 0

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function of the kernel layer."""
        self.calls += 1
        return function(*args)


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> type[FakeHook]:
    """Have the agent run programs that only note."""
    monkeypatch.setattr(connect_choice, "ConnectHook", FakeHook)
    monkeypatch.setattr(FakeHook, "refusal", None)
    return FakeHook


def choice(mode: str = "auto", kernel: Kernel | None = None) -> ConnectChoice:
    """Return the choice of an agent."""
    gossip = SimpleNamespace(node_id=NODE)
    context = SimpleNamespace(kernel=kernel or Kernel(), gossip=gossip)
    return ConnectChoice(cast("NodeContext", context), mode)


def port(number: int = 80, protocol: ServiceProtocol = "tcp") -> VirtualPort:
    """Return a virtual port."""
    backends = (Backend(Ip(bytes([10, 32, 0, 2])), 8080, NODE),)
    return VirtualPort(Vni(1), VIRTUAL, protocol, number, backends)


def led(identity: tuple[int, int], *ports: VirtualPort) -> LedContainer:
    """Return a container with these ports."""
    return LedContainer("/p", identity, ports)


@pytest.mark.usefixtures("hook")
def test_containers_are_led_while_the_agent_runs() -> None:
    """One without virtual addresses is forgotten; the end closes the programs."""

    async def main() -> None:
        mine = choice()
        async with mine.running():
            made: Any = mine._hook
            assert mine.why == ""
            await mine.follow([led(WEB, port())])
            assert (made.led, mine.known) == ({WEB: (port(),)}, {WEB})
            await mine.follow([led(WEB)])
            assert (made.led, mine.known) == ({}, set())
        assert made.is_closed
        await mine.follow([led(WEB, port())])
        assert (made.led, mine.known, bool(mine.why)) == ({}, set(), True)

    asyncio.run(main())


@pytest.mark.usefixtures("hook")
def test_many_containers_take_one_call() -> None:
    """And those that have not changed take none."""

    async def main() -> None:
        calls = Kernel()
        mine = choice(kernel=calls)
        async with mine.running():
            begun = calls.calls
            given = [led((4, number), port()) for number in range(22)]
            for _ in range(2):
                await mine.follow(given)
            assert calls.calls == begun + 1
            await mine.follow([led(WEB, port(), port(81)), *given[8:]])
            assert calls.calls == begun + 2

    asyncio.run(main())


@pytest.mark.parametrize(
    ("mode", "refusal", "why"),
    [
        ("off", None, "switched off by the configuration"),
        ("auto", OSError(95, "no such kernel"), "no such kernel"),
        ("auto", OverlayError("too many sockets to read"), "too many sockets to read"),
    ],
)
def test_without_programs_the_reason_is_told(
    hook: type[FakeHook], mode: str, refusal: OSError | OverlayError | None, why: str
) -> None:
    """And nothing is asked of them."""
    hook.refusal = refusal

    async def main() -> None:
        mine = choice(mode)
        async with mine.running():
            assert mine.why == why
            await mine.follow([led(WEB, port())])
            assert await mine.unanswered("/p", WEB, [port()], ()) == []

    asyncio.run(main())


@pytest.mark.usefixtures("hook")
def test_a_container_that_fails_costs_no_other() -> None:
    """It is left to its table, as what it was told may be outdated, and tried again."""

    async def main() -> None:
        mine = choice()
        async with mine.running():
            made: Any = mine._hook
            both = [led(WEB, port()), led(API, port())]
            await mine.follow(both)
            made.fails_in = (WEB,)
            now = [led(WEB, port(81)), led(API, port(81))]
            await mine.follow(now)
            assert (made.led, mine.left) == ({API: (port(81),)}, {WEB: "no memory"})
            assert (mine.known, mine.why) == ({WEB, API}, "")
            made.fails_in = ()
            await mine.follow(now)
            assert (made.led, mine.left) == ({WEB: (port(81),), API: (port(81),)}, {})
            made.fails_in = (WEB,)
            await mine.follow(both)
            await mine.follow([led(WEB)])
            assert (mine.left, mine.known) == ({}, {API})

    asyncio.run(main())


@pytest.mark.usefixtures("hook")
def test_programs_that_cannot_forget_are_ended() -> None:
    """They would lead to a backend that is gone; the tables have the right ones."""

    async def main() -> None:
        mine = choice()
        async with mine.running():
            made: Any = mine._hook
            await mine.follow([led(WEB, port()), led(API, port())])
            made.fails_in, made.forgets = (WEB,), False
            await mine.follow([led(WEB, port(81))])
            assert made.is_closed
            assert (mine.why, mine.known) == ("no way", set())

    asyncio.run(main())


@pytest.mark.usefixtures("hook")
def test_only_ports_of_tcp_that_lost_a_backend_are_asked_about() -> None:
    """With what they are now; a port that is gone has no backend."""

    async def main() -> None:
        mine = choice()
        async with mine.running():
            made: Any = mine._hook
            losing = [port(80), port(81), port(53, "udp")]
            found: list[Any] = await mine.unanswered("/p", WEB, losing, [port(80), port(82)])
            assert found == ["a move"]
            assert made.asked == {(VIRTUAL, 80): port(80), (VIRTUAL, 81): None}
            made.asked = None
            assert await mine.unanswered("/p", WEB, [port(53, "udp")], ()) == []
            assert made.asked is None

    asyncio.run(main())
