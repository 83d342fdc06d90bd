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
    """A created namespace is listed by `ip netns`, and can be entered by name."""
    name = world.namespace("a")

    assert name in netns.names()
    assert netns.exists(name)
    assert "LOOPBACK,UP" in world.run(name, "ip", "link", "show", "lo")


def test_thread_returns_home(world: World) -> None:
    """The thread stays in its own namespace, after errors too."""
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
    """While one thread is inside a namespace, another stays in its own."""
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
    """A second namespace with the same name is a conflict; the first stays."""
    name = world.namespace("a")
    before = netns.names_identity(name)
    with pytest.raises(ConflictError, match=name):
        netns.create(name)
    assert netns.names_identity(name) == before


def test_a_name_left_by_a_crash_is_reused(world: World) -> None:
    """A file without a namespace, as a crash leaves it, is reused."""
    name = world.claim("a")
    netns.path_of(world.namespace("other"))  # makes sure that the directory exists
    netns.path_of(name).touch()
    assert not netns.exists(name)

    os.close(netns.create(name))
    assert netns.exists(name)


def test_remove_twice(world: World) -> None:
    """Removing deletes the name; a second removal returns False."""
    name = world.namespace("a")

    assert netns.remove(name)
    assert not netns.remove(name)
    assert name not in netns.names()


def test_opening_something_else_fails(tmp_path: Path) -> None:
    """A missing path raises NotFoundError.

    A file of another kind raises UsageError.
    """
    with pytest.raises(NotFoundError):
        netns.open_fd(tmp_path / "none")
    with pytest.raises(UsageError):
        netns.open_fd("/proc/self/status")
    with pytest.raises(UsageError):
        netns.open_fd("/proc/self/ns/mnt")


def test_a_name_is_restored(world: World) -> None:
    """A namespace that lost its name can get it back."""
    name = world.namespace("a")
    fd = world.fd(name)
    netns.remove(name)
    netns.give_name(fd, name)

    assert netns.names_identity(name) == netns.identity(fd)
    with pytest.raises(FileExistsError):
        netns.give_name(fd, name)


def test_nothing_but_a_namespace_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a device or a FIFO may have effects: their kind is read without opening them."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    opened: list[int] = []
    real_open = os.open

    def recorded(path: str | Path, flags: int, mode: int = 0o777) -> int:
        opened.append(flags)
        return real_open(path, flags, mode)

    monkeypatch.setattr(os, "open", recorded)
    for path in (fifo, "/dev/null", "/etc/hostname", "/proc/self/ns/net/..", "/"):
        with pytest.raises((UsageError, NotFoundError)):
            netns.open_fd(path)

    assert opened
    assert all(flags & os.O_PATH for flags in opened)


def test_a_path_that_changes_is_opened_once(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The namespace that was checked is the one that is returned, wherever the path leads then."""
    path = tmp_path / "ns"
    name = world.namespace("a")
    path.symlink_to(netns.path_of(name))
    real_open = os.open

    def flipping(where: str | Path, flags: int, mode: int = 0o777) -> int:
        descriptor = real_open(where, flags, mode)
        path.unlink()
        path.symlink_to(netns.OWN_NAMESPACE)
        return descriptor

    monkeypatch.setattr(os, "open", flipping)
    found = netns.open_fd(path)
    monkeypatch.undo()

    world.open.append(found)
    assert netns.identity(found) == netns.names_identity(name)
