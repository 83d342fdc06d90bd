"""Echo requests from a namespace are answered, refused, or found too large, for real."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from overlay.kernel.icmp_echo import EchoAnswer, IcmpEcho
from overlay.model import parse_ip

if TYPE_CHECKING:
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns
PATIENCE_S = 20.0  # a loaded machine


class Wire:
    """Two namespaces on one veth pair of 1400 bytes, IPv4 and IPv6."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.near, self.far = world.namespace("a"), world.namespace("b")
        self.run(self.near, "link", "add", "e0", "mtu", "1400", "type", "veth",
                 "peer", "e0", "netns", self.far, "mtu", "1400")  # fmt: skip
        for name, number in ((self.near, 1), (self.far, 2)):
            self.run(name, "addr", "add", f"10.9.0.{number}/24", "dev", "e0")
            self.run(name, "addr", "add", f"fd09::{number}/64", "dev", "e0", "nodad")
            self.run(name, "link", "set", "e0", "up")

    def run(self, name: str, *words: str) -> None:
        """Run `ip` in a namespace."""
        self.world.run(name, "ip", *words)

    @contextlib.contextmanager
    def echo(self, source: str, target: str, size: int = 56) -> Iterator[IcmpEcho]:
        """Open a socket in the near namespace."""
        opened = IcmpEcho(self.world.fd(self.near), parse_ip(source), parse_ip(target), size)
        with contextlib.closing(opened):
            yield opened

    def ask(self, target: str, size: int = 56) -> EchoAnswer | None:
        """Send one request; return its answer."""
        source = "fd09::1" if ":" in target else "10.9.0.1"
        with self.echo(source, target, size) as echo:
            refusal = echo.send(1)
            if refusal:
                return EchoAnswer(1, 0.0, refusal)
            return echo.wait(time.monotonic() + PATIENCE_S)


@pytest.fixture
def wire(world: World) -> Wire:
    """Return two namespaces that reach each other."""
    return Wire(world)


@pytest.mark.parametrize("target", ["10.9.0.2", "fd09::2"])
@pytest.mark.parametrize("size", [0, 56, 1352])
def test_a_neighbor_answers(wire: Wire, target: str, size: int) -> None:
    """With any payload that fits, in both versions of IP."""
    answer = wire.ask(target, size)

    assert answer is not None
    assert (answer.sequence, answer.problem) == (1, "")
    assert answer.seconds > 0


def test_nobody_at_an_address_is_said(wire: Wire) -> None:
    """The container's own kernel reports that ARP had no answer."""
    answer = wire.ask("10.9.0.77")

    assert answer is not None
    assert "does not answer ARP" in answer.problem or "no route" in answer.problem


@pytest.mark.parametrize("target", ["10.9.0.2", "fd09::2"])
def test_nothing_is_sent_in_fragments(wire: Wire, target: str) -> None:
    """One byte more than the interface carries is refused."""
    answer = wire.ask(target, 1353 if ":" in target else 1373)

    assert answer is not None
    assert answer.problem == "too large for the container's interface"


def test_a_forbidding_host_is_named(wire: Wire) -> None:
    """An ICMP error is matched to the request that it quotes."""
    wire.world.run(wire.far, "nft", "add table ip f; add chain ip f i { type filter hook input "
                   "priority 0; }; add rule ip f i icmp type echo-request reject with icmp "
                   "type admin-prohibited")  # fmt: skip
    answer = wire.ask("10.9.0.2")

    assert answer is not None
    assert answer.problem == "forbidden by a filter (says 10.9.0.2)"


def test_answers_to_others_are_not_taken(wire: Wire) -> None:
    """Two sockets in one namespace each get their own answers."""
    with wire.echo("10.9.0.1", "10.9.0.2") as first, wire.echo("10.9.0.1", "10.9.0.2") as second:
        assert first.send(5) == ""
        answer = first.wait(time.monotonic() + PATIENCE_S)
        assert answer is not None
        assert answer.sequence == 5
        assert second.wait(time.monotonic() + 0.05) is None


def test_an_address_that_is_missing_is_an_error(wire: Wire) -> None:
    """The container's address was flushed."""
    wire.run(wire.near, "addr", "flush", "dev", "e0")
    with pytest.raises(OSError, match="annot assign"), wire.echo("10.9.0.1", "10.9.0.2"):
        pass
