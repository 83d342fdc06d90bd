"""What the kernel tells of containers' namespaces, and what it does not."""

from __future__ import annotations

import os
import select
import subprocess
from typing import TYPE_CHECKING

import pytest
from overlay.errors import OverlayError
from overlay.kernel import netns
from overlay.kernel.containers import container_monitor
from overlay.kernel.containers.container_monitor import ContainerMonitor, sender_in
from overlay.kernel.netlink.socket import LostNotificationsError
from overlay.kernel.sandbox.kernel_support import effective_capabilities

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns
_ROOTLESS = "echo ready; read line; ip link set lo up; echo done; read line"


class Watched:
    """A monitor of containers, each with an interface that is up."""

    def __init__(self, world: World, monitor: ContainerMonitor) -> None:
        self.world = world
        self.monitor = monitor

    def bare(self, name: str) -> tuple[str, tuple[int, int]]:
        """Create a container with loopback only, of which the kernel tells nothing by itself."""
        full = self.world.namespace(name)
        return full, netns.identity(self.world.fd(full))

    def container(self, name: str) -> tuple[str, tuple[int, int]]:
        """Create a container; return its full name and its identity."""
        full, identity = self.bare(name)
        for words in (
            "link add eth0 type veth peer name eth0x",
            "link set eth0x up",
            "link set eth0 up",
            "addr add 10.32.0.2/16 dev eth0",
            "addr add fd32::2/64 dev eth0 nodad",
            "route add default via 10.32.0.1",
        ):
            self.world.run(full, "ip", *words.split())
        return full, identity

    def follow(self, name: str, identity: tuple[int, int]) -> None:
        """Follow a container, from a moment at which nothing waits."""
        assert self.monitor.follow([(str(netns.path_of(name)), identity)]) == {identity}
        self.monitor.changed()

    def is_woken(self) -> bool:
        """Return whether the event loop would be woken."""
        return bool(select.select([self.monitor], [], [], 0)[0])


@pytest.fixture
def watched(world: World) -> Iterator[Watched]:
    """Return an open monitor."""
    monitor = ContainerMonitor.open()
    assert monitor is not None
    yield Watched(world, monitor)
    monitor.close()


@pytest.mark.parametrize(
    "change",
    [
        "ip link set eth0 down",
        "ip link set lo down",
        "ip addr flush dev eth0",
        "ip addr del fd32::2/64 dev eth0",
        "ip route del default",
        "ip link set eth0 address 02:00:00:00:00:07",
        "ip link set eth0 mtu 1300",
        "ip link set eth0 name lan",
        "ip link del eth0",
        "nft add table inet mine",
    ],
)
def test_a_change_is_told_of_its_container_alone(watched: Watched, change: str) -> None:
    """Not of one that is followed as well, in which nothing happens."""
    (name, identity), quiet = watched.container("a"), watched.bare("b")
    watched.follow(name, identity)
    watched.follow(*quiet)

    watched.world.run(name, *change.split())
    assert watched.is_woken()
    assert watched.monitor.changed() == {identity}


@pytest.mark.parametrize(
    "change",
    [
        "sysctl -qw net.ipv4.conf.lo.rp_filter=1",
        "ip neigh add 10.32.0.9 lladdr 02:00:00:00:00:07 dev lo",
    ],
)
def test_settings_and_neighbors_are_not_told(watched: Watched, change: str) -> None:
    """So a container that resolves addresses wakes nobody."""
    name, identity = watched.bare("a")
    watched.follow(name, identity)
    watched.world.run(name, *change.split())
    assert not watched.is_woken()


def test_a_namespace_is_not_kept_alive(watched: Watched) -> None:
    """It ends with its name, as its interfaces show, and another may follow."""
    world = watched.world
    name, outside = world.claim("a"), world.namespace("out")
    netns_fd = netns.create(name)
    identity = netns.identity(netns_fd)
    os.close(netns_fd)
    there = ("link", "add", "far", "type", "veth", "peer", "near", "netns", name)
    world.run(outside, "ip", *there)
    watched.follow(name, identity)

    netns.remove(name)
    world.wait_until(lambda: "far" not in world.run(outside, "ip", "link"), "the end")
    assert watched.monitor.follow([(str(netns.path_of(name)), identity)]) == {identity}
    watched.monitor.changed()

    again, successor = watched.container("b")
    watched.follow(again, successor)
    world.run(again, "ip", "link", "set", "eth0", "down")
    assert watched.monitor.changed() == {successor}


@pytest.mark.parametrize("change", ["add rule ip mine out accept", "flush ruleset"])
def test_rules_of_nftables_are_told(watched: Watched, change: str) -> None:
    """Root in a container may delete the table that leads it to virtual addresses."""
    name, identity = watched.bare("a")
    watched.world.run(name, "nft", "add table ip mine; add chain ip mine out")
    watched.follow(name, identity)
    watched.world.run(name, "nft", *change.split())
    assert watched.monitor.changed() == {identity}


def test_others_are_forgotten(watched: Watched) -> None:
    """What happens in them is nobody's business."""
    name, identity = watched.bare("a")
    watched.follow(name, identity)
    watched.monitor.keep(set())
    watched.world.run(name, "ip", "link", "set", "lo", "down")
    assert watched.is_woken()  # as it has an id, which is counted
    assert watched.monitor.changed() == set()
    assert watched.monitor.strangers_heard == 1
    watched.follow(name, identity)  # it has an id already
    watched.world.run(name, "ip", "link", "set", "lo", "up")
    assert watched.monitor.changed() == {identity}
    assert watched.monitor.strangers_heard == 1


def test_one_that_cannot_be_opened_is_not_followed(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again, as the host may be short of descriptors for a moment."""
    name, identity = watched.container("a")

    def refused(path: str, wanted: tuple[int, int]) -> int | None:
        raise OverlayError(f"cannot open {path} of {wanted}")

    monkeypatch.setattr(netns, "open_same", refused)
    assert watched.monitor.follow([(str(netns.path_of(name)), identity)]) == set()


def test_lost_notifications_are_told(watched: Watched, tmp_path: Path) -> None:
    """Root in a container may cause any number; then every container may have changed."""
    name, identity = watched.bare("a")
    watched.follow(name, identity)
    batch = tmp_path / "batch"
    rows = (f"addr add 10.99.{high}.{low}/32 dev lo" for high in range(10) for low in range(200))
    batch.write_text("\n".join(rows))
    watched.world.run(name, "ip", "-batch", str(batch))

    with pytest.raises(LostNotificationsError):
        watched.monitor.changed()
    assert not watched.is_woken()  # one reading holds all that the kernel keeps
    watched.world.run(name, "ip", "link", "set", "lo", "down")
    assert watched.monitor.changed() == {identity}


def test_a_container_of_another_user_is_told_of(watched: Watched) -> None:
    """As rootless Podman's: its namespace belongs to another user namespace."""
    command = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", _ROOTLESS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as container:
        assert container.stdin is not None
        assert container.stdout is not None
        assert container.stdout.readline() == b"ready\n"
        path = f"/proc/{container.pid}/ns/net"
        with netns.closing(netns.open_fd(path)) as netns_fd:
            identity = netns.identity(netns_fd)
        assert watched.monitor.follow([(path, identity)]) == {identity}
        container.stdin.write(b"\n")
        container.stdin.flush()
        assert container.stdout.readline() == b"done\n"
        assert watched.monitor.changed() == {identity}


def test_without_the_capability_there_is_no_monitor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel would tell nothing, and say nothing of that: an older unit has not granted it."""
    held = effective_capabilities()
    monkeypatch.setattr(container_monitor, "effective_capabilities", lambda: held & ~(1 << 11))
    assert ContainerMonitor.open() is None


def test_a_message_of_the_own_namespace_has_no_sender() -> None:
    """Control messages are by level and kind (linux/netlink.h)."""
    assert sender_in([]) == set()
    assert sender_in([(270, 8, b"\7\0\0\0")]) == {7}
    assert sender_in([(270, 3, b"\7\0\0\0"), (1, 8, b"\7\0\0\0")]) == set()
