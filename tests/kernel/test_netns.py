from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from overlay.errors import ConflictError, NotFoundError, UsageError
from overlay.kernel import netns

if TYPE_CHECKING:
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns


def own_identity() -> tuple[int, int]:
    """Return the identity of this thread's namespace."""
    fd = netns.own_fd()
    try:
        return netns.identity(fd)
    finally:
        os.close(fd)


def test_create_is_seen_by_ip_netns(world: World) -> None:
    """A namespace made here is one of `ip netns`, and can be entered by name."""
    name = world.namespace("a")

    assert name in netns.names()
    assert netns.exists(name)
    assert "LOOPBACK,UP" in world.run(name, "ip", "link", "show", "lo")


def test_thread_returns_home(world: World) -> None:
    """Making and entering namespaces leaves the thread where it was, after errors too."""
    home = own_identity()
    fd = world.fd(world.namespace("a"))
    with netns.inside(fd):
        assert own_identity() == netns.identity(fd)
    with pytest.raises(ZeroDivisionError), netns.inside(fd):
        raise ZeroDivisionError
    with netns.temporary() as other, netns.inside(other):
        assert own_identity() == netns.identity(other)

    assert own_identity() == home


def test_only_the_calling_thread_moves(world: World) -> None:
    """While one thread is inside a namespace, another stays where it is."""
    home = own_identity()
    inside = threading.Event()
    seen: list[tuple[int, int]] = []

    def look() -> None:
        inside.wait(5)
        seen.append(own_identity())

    other = threading.Thread(target=look)
    other.start()
    with netns.inside(world.fd(world.namespace("a"))):
        inside.set()
        other.join()
    assert seen == [home]


def test_taken_name(world: World) -> None:
    """A second namespace of one name is a conflict; the first stays."""
    name = world.namespace("a")
    before = netns.names_identity(name)
    with pytest.raises(ConflictError, match=name):
        netns.create(name)
    assert netns.names_identity(name) == before


def test_name_left_by_a_crash_is_taken_over(world: World) -> None:
    """A file without a namespace, as a crash leaves it, is no obstacle."""
    name = world.claim("a")
    netns.path_of(world.namespace("other"))  # makes sure that the directory exists
    netns.path_of(name).touch()
    assert not netns.exists(name)

    os.close(netns.create(name))
    assert netns.exists(name)


def test_remove_twice(world: World) -> None:
    """Removing takes the name away; a second time there is nothing to remove."""
    name = world.namespace("a")

    assert netns.remove(name)
    assert not netns.remove(name)
    assert name not in netns.names()


def test_open_what_is_no_namespace(tmp_path: Path) -> None:
    """A missing path is NotFoundError; a file of another kind is UsageError."""
    with pytest.raises(NotFoundError):
        netns.open_fd(tmp_path / "none")
    with pytest.raises(UsageError):
        netns.open_fd("/proc/self/status")
    with pytest.raises(UsageError):
        netns.open_fd("/proc/self/ns/mnt")


def test_give_name_back(world: World) -> None:
    """A living namespace that lost its name can be named again."""
    name = world.namespace("a")
    fd = world.fd(name)
    netns.remove(name)
    netns.give_name(fd, name)

    assert netns.names_identity(name) == netns.identity(fd)
    with pytest.raises(FileExistsError):
        netns.give_name(fd, name)
