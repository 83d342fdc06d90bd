"""When backends are chosen at connect(2), and what is done where they are not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay.agent.gossip.context import NodeContext
from overlay.agent.services import connect_choice
from overlay.agent.services.connect_choice import ConnectChoice
from overlay.core.services.values import Backend, ServiceProtocol, VirtualPort
from overlay.model import Ip, NodeId, Vni

NODE = NodeId(bytes(16))
WEB = (4, 7)
VIRTUAL = Ip(bytes([10, 32, 0, 100]))


class FakeHook:
    """Programs that only note what they are told."""

    refusal: OSError | None = None
    error: OSError | None = None

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
        """Note the ports of a container."""
        if self.error is not None:
            raise self.error
        self.led[identity] = ports

    def forget(self, identity: tuple[int, int]) -> None:
        """Note that it has none."""
        self.led.pop(identity, None)

    def unanswered(self, _path: str, _identity: tuple[int, int], ports: Any) -> list[Any]:
        """Note which ports lost a backend."""
        self.asked = ports
        return ["a move"]


class Kernel:
    """Calls what it is given."""

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function of the kernel layer."""
        return function(*args)


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> type[FakeHook]:
    """Have the agent run programs that only note."""
    monkeypatch.setattr(connect_choice, "ConnectHook", FakeHook)
    monkeypatch.setattr(FakeHook, "refusal", None)
    monkeypatch.setattr(FakeHook, "error", None)
    return FakeHook


def choice(mode: str = "auto") -> ConnectChoice:
    """Return the choice of an agent."""
    gossip = SimpleNamespace(node_id=NODE)
    return ConnectChoice(cast("NodeContext", SimpleNamespace(kernel=Kernel(), gossip=gossip)), mode)


def port(number: int = 80, protocol: ServiceProtocol = "tcp") -> VirtualPort:
    """Return a virtual port."""
    backends = (Backend(Ip(bytes([10, 32, 0, 2])), 8080, NODE),)
    return VirtualPort(Vni(1), VIRTUAL, protocol, number, backends)


@pytest.mark.usefixtures("hook")
def test_containers_are_led_while_the_agent_runs() -> None:
    """One without virtual addresses is forgotten; the end closes the programs."""

    async def main() -> None:
        mine = choice()
        async with mine.running():
            made: Any = mine._hook
            assert mine.why == ""
            await mine.follow("/p", WEB, [port()])
            assert made.led == {WEB: [port()]}
            await mine.follow("/p", WEB, ())
            assert made.led == {}
        assert made.is_closed
        await mine.follow("/p", WEB, [port()])
        assert (made.led, bool(mine.why)) == ({}, True)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("mode", "refusal", "why"),
    [
        ("off", None, "switched off by the configuration"),
        ("auto", OSError(95, "no such kernel"), "no such kernel"),
    ],
)
def test_without_programs_the_reason_is_told(
    hook: type[FakeHook], mode: str, refusal: OSError | None, why: str
) -> None:
    """And nothing is asked of them."""
    hook.refusal = refusal

    async def main() -> None:
        mine = choice(mode)
        async with mine.running():
            assert mine.why == why
            await mine.follow("/p", WEB, [port()])
            assert await mine.unanswered("/p", WEB, [port()], ()) == []

    asyncio.run(main())


def test_programs_that_cannot_follow_are_ended(hook: type[FakeHook]) -> None:
    """They might lead to a backend that is gone; the tables have the right ones."""

    async def main() -> None:
        mine = choice()
        async with mine.running():
            made: Any = mine._hook
            hook.error = OSError(12, "no memory")
            await mine.follow("/p", WEB, [port()])
            assert made.is_closed
            assert "no memory" in mine.why

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
