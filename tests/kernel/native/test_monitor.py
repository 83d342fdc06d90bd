"""Changes of a shortcut's end in the host's namespace are noticed when they happen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.link_state import Shortcut
from overlay.kernel import netns
from overlay.kernel.native.monitor import HookMonitor
from overlay.kernel.sandbox.monitor import NOTIFICATIONS_LOST

if TYPE_CHECKING:
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns
LINK, END = Shortcut("native0", 1450), 77


class Place:
    """A namespace with an end that is as it should be, and another interface; watched."""

    def __init__(self, world: World) -> None:
        self.world, self.name = world, world.namespace("a")
        self.ip("link", "add", "ovn0", "index", str(END), "mtu", "1450", "type", "veth")
        self.ip("link", "add", "other", "mtu", "1450", "type", "veth")
        self.ip("link", "set", "ovn0", "up", "alias", "overlayd")
        for name in ("ovn0", "other"):
            self.tc("add", name)
        with netns.inside(world.fd(self.name)):
            self.monitor = HookMonitor()

    def ip(self, *arguments: str) -> None:
        """Change links."""
        self.world.run(self.name, "ip", *arguments)

    def tc(self, verb: str, name: str) -> None:
        """Add or delete an interface's hooks."""
        self.world.run(self.name, "tc", "qdisc", verb, "dev", name, "clsact")

    def alteration(self) -> str:
        """Return what the monitor says since the last call."""
        self.monitor.drain()
        found = self.monitor.alteration(LINK, END)
        self.monitor.forget()
        return found


@pytest.fixture
def place(world: World) -> Iterator[Place]:
    """Return the place."""
    made = Place(world)
    yield made
    made.monitor.close()


def test_the_hooks_of_an_end_are_missed(place: Place) -> None:
    """Those of others are not, nor those that are added."""
    place.tc("del", "other")
    assert place.alteration() == ""
    place.tc("del", "ovn0")
    assert place.alteration() == "the hook at the host's end of native0 is gone"
    place.tc("add", "ovn0")
    assert place.alteration() == ""


def test_hooks_and_links_are_told_apart(place: Place) -> None:
    """Links come and go with containers, and say nothing about programs."""
    place.ip("link", "add", "more", "type", "veth")
    place.ip("link", "del", "more")
    place.monitor.drain()
    seen = [place.monitor.are_hooks_changed]
    place.tc("del", "other")
    place.monitor.drain()
    seen.append(place.monitor.are_hooks_changed)
    place.monitor.forget()
    assert [*seen, place.monitor.are_hooks_changed] == [False, True, False]


def test_an_end_that_is_down_is_noticed(place: Place) -> None:
    """One that was down for a moment only is as it should be."""
    place.ip("link", "set", "ovn0", "down")
    assert place.alteration() == "native0: up at ovn0 changed"
    place.ip("link", "set", "ovn0", "up")
    place.ip("link", "set", "ovn0", "down")
    place.ip("link", "set", "ovn0", "up")
    assert place.alteration() == ""


def test_lost_notifications_may_have_been_anything(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every shortcut's end is looked at."""
    monkeypatch.setattr(place.monitor, "_are_lost", True)
    assert place.alteration() == NOTIFICATIONS_LOST
    assert place.alteration() == ""
