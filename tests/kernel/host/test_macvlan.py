"""macvlan and ipvlan interfaces in containers that change all the time."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from overlay.errors import OverlayError
from overlay.kernel import netns, reset
from overlay.kernel.host import macvlan
from overlay.kernel.host.macvlan import InterfaceLocation
from overlay.kernel.netlink import socket
from overlay.kernel.sandbox.monitor import SandboxMonitor

if TYPE_CHECKING:
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns
LINKS = 150
SCRIPT = "".join(
    f"link set dev d{n} name e{n}\nlink set dev e{n} name d{n}\n"
    f"link add x{n} type bridge\nlink del x{n}\n"
    for n in range(LINKS)
)


@pytest.fixture
def restless(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[InterfaceLocation]:
    """Create a namespace whose links change all the time.

    One torn dump is as good as five.
    """
    monkeypatch.setattr(socket, "_DUMP_ATTEMPTS", 1)
    name = world.namespace("restless")
    made = "".join(f"link add d{n} type bridge\n" for n in range(LINKS))
    subprocess.run(["ip", "-n", name, "-batch", "-"], input=made, text=True, check=True)
    again = f"while :; do echo '{SCRIPT}'; done | ip -force -n {name} -batch - 2>/dev/null"
    with subprocess.Popen(["sh", "-c", again], start_new_session=True) as running:
        yield InterfaceLocation(str(netns.path_of(name)), netns.identity(world.fd(name)), "ve0")
        os.killpg(running.pid, signal.SIGKILL)


def test_reset_removes_interfaces_despite_torn_dumps(
    world: World, restless: InterfaceLocation
) -> None:
    """A reset finds a macvlan device in torn dumps, every time."""
    host, inside = world.namespace("host"), Path(restless.netns_path).name
    world.run(host, "ip", "link", "add", "p0", "type", "veth", "peer", "p1")
    descriptor = world.fd(inside)
    for _ in range(8):
        world.run(host, "ip", "link", "add", "link", "p0", "m0", "type", "macvlan")
        world.run(host, "ip", "link", "set", "m0", "alias", "overlayd:ve0")
        world.run(host, "ip", "link", "set", "m0", "netns", inside)
        with netns.inside(world.fd(host)):
            assert macvlan.remove_interfaces_from(descriptor) == ["m0"]


def test_checks_survive_torn_dumps(restless: InterfaceLocation) -> None:
    """A check of many interfaces raises nothing.

    A failed removal does not count as done.
    """
    refused, deadline = 0, time.monotonic() + 20
    while refused < 3 and time.monotonic() < deadline:
        macvlan.missing_interfaces([restless])
        try:
            macvlan.detach_interface(restless)
        except OverlayError:
            refused += 1
    assert refused == 3, "the links held still: nothing was shown"


def test_a_host_with_torn_dumps_can_be_reset(world: World, restless: InterfaceLocation) -> None:
    """A reset finds overlayd's device among links that always change.

    A single torn dump may miss it.
    """
    name = Path(restless.netns_path).name
    world.run(name, "ip", "link", "add", "up0", "type", "bridge")
    world.run(name, "ip", "link", "set", "up0", "alias", "overlayd:uplink")
    with netns.inside(world.fd(name)):
        removed = [reset._remove_devices([]) for _ in range(8)]
    assert removed.count(["interface up0"]) == 1


def test_a_namespace_with_torn_dumps_can_be_watched(
    world: World, restless: InterfaceLocation
) -> None:
    """A monitor that starts, or lost notifications, learns all links."""
    descriptor = world.fd(Path(restless.netns_path).name)
    for _ in range(8):
        SandboxMonitor(descriptor).close()
