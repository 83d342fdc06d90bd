"""The device, its routes and the fence, by whatever WireGuard this machine has."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from overlay import limits
from overlay.core.encryption.device import DEVICES, TunnelPeer, TunnelState
from overlay.core.encryption.inner_address import inner_address, inner_prefix
from overlay.errors import ConflictError, OverlayError
from overlay.kernel import netns, reset
from overlay.kernel.wireguard import backend, leftovers, link, process, tunnel, uapi
from overlay.kernel.wireguard.backend import Backend
from overlay.model import NodeId, ip_text, parse_ip

if TYPE_CHECKING:
    from tests.kernel.conftest import World


pytestmark = pytest.mark.netns
DEVICE = DEVICES[0]
PREFIX = inner_prefix(bytes.fromhex("01020304"))
OWN = inner_address(PREFIX, NodeId(b"S" * 16))


def peer(number: int) -> TunnelPeer:
    """Return a peer."""
    inner = inner_address(PREFIX, NodeId(bytes([number]) * 16))
    return TunnelPeer(bytes([number]) * 31 + b"\x01", inner, parse_ip("192.0.2.2"), 7949)


KEY = b"\x08" + bytes(30) + b"\x40"
WANTED = TunnelState(KEY, 17949, PREFIX, OWN, 1440, frozenset({peer(1), peer(2)}))


class Place:
    """A host's namespace, in which calls are made."""

    def __init__(self, world: World, name: str = "wg") -> None:
        self.name = world.namespace(name)
        self._world = world
        self.run("ip address add 192.0.2.1/24 dev lo")  # packets to peers leave
        self._descriptor = world.fd(self.name)
        found = backend.find_support().backend
        assert found is not None, "scripts/setup installs wireguard-go"
        self.backend = found

    def inside(self) -> AbstractContextManager[None]:
        """Return a context in which calls are made inside."""
        return netns.inside(self._descriptor)

    def run(self, line: str) -> str:
        """Run a shell line inside."""
        return self._world.run(self.name, "sh", "-c", line)

    def establish(self, wanted: TunnelState, before: TunnelState | None) -> list[str]:
        """Make the device what it should be."""
        with self.inside():
            link.ensure_fence(PREFIX)
            return tunnel.establish(wanted, before, self.backend)

    def differences(self, wanted: TunnelState) -> list[str]:
        """Return how the device differs."""
        with self.inside():
            return tunnel.differences(wanted, wanted)


@pytest.fixture
def place(world: World) -> Iterator[Place]:
    """Return a host without a device; what is left is removed."""
    made = Place(world)
    yield made
    with made.inside():
        tunnel.remove(PREFIX)


def test_the_device_is_made_read_and_removed(place: Place) -> None:
    """Key, port, peers, address, routes, MTU and mark, behind the unreachable route."""
    place.establish(WANTED, None)

    assert place.differences(WANTED) == []
    assert place.establish(WANTED, WANTED) == []
    with place.inside():
        found = tunnel.read(DEVICE)
    assert found is not None
    assert (found.private_key, found.port) == (KEY, 17949)
    assert {each.inner for each in found.peers.values()} == {
        ((peer(number).inner, 128),) for number in (1, 2)
    }
    routes = place.run("ip -6 route")
    assert f"{ip_text(peer(1).inner)} dev {DEVICE}" in routes
    assert "unreachable fd6f:766c:102:304::/64 dev lo" in routes
    assert f"{ip_text(OWN)}/128" in place.run(f"ip -6 address show {DEVICE}")
    with place.inside():
        assert tunnel.remove(PREFIX)
    assert "fd6f" not in place.run("ip -6 route")
    assert DEVICE not in place.run("ip link")


@pytest.mark.parametrize(
    "damage",
    [
        "ip link del wg-ovl",
        "ip link set wg-ovl down",
        "ip link set wg-ovl down; ip link set wg-ovl up",
        "ip link set wg-ovl mtu 1280",
        "ip link set wg-ovl alias x",
        "ip link set wg-ovl addrgenmode eui64",
        "ip -6 address flush dev wg-ovl",
        "ip -6 address add fd6f:766c:102:304::9/64 dev wg-ovl",
        "ip -6 route flush dev wg-ovl",
        "ip -6 route add fd6f:766c:102:304::/64 dev wg-ovl",
        "ip link set wg-ovl down; ip link set wg-ovl name x; ip link set x up",
    ],
)
def test_every_damage_is_found_and_repaired(place: Place, damage: str) -> None:
    """Differences that `verify` reports are gone after the next pass, and nothing remains."""
    place.establish(WANTED, None)
    place.run(damage)

    assert place.differences(WANTED)
    assert place.establish(WANTED, WANTED)
    assert place.differences(WANTED) == []
    assert place.run("ip -o link").count("\n") == 2


def test_every_new_peer_is_greeted(place: Place) -> None:
    """A handshake begins at once: a peer that only sends to this host would wait for its own."""
    place.establish(WANTED, None)

    with place.inside():
        found = tunnel.read(DEVICE)
    assert found is not None
    assert [each.sent > 0 for each in found.peers.values()] == [True, True]


def test_one_implementation_can_be_forbidden(place: Place) -> None:
    """Only what the configuration allows is used, and what is missing is named."""
    with place.inside():
        assert backend.find_support(Backend.PROCESS).backend is Backend.PROCESS
        kernel = backend.find_support(Backend.KERNEL)
    assert kernel.backend is not Backend.PROCESS
    assert (kernel.backend is None) == ('wireguard = "kernel"' in kernel.why)


def test_a_removed_fence_is_found_and_repaired(place: Place) -> None:
    """It is an unreachable route that any root can delete."""
    place.establish(WANTED, None)
    place.run("ip -6 route del unreachable fd6f:766c:102:304::/64 metric 4278198272")

    assert place.differences(WANTED) == ["the unreachable route of the inner addresses is gone"]
    with place.inside():
        assert link.ensure_fence(PREFIX)
        assert not link.ensure_fence(PREFIX)
    assert place.differences(WANTED) == []


def test_peers_follow_without_touching_others(place: Place) -> None:
    """A former member's peer and route go, a new one's come, in place."""
    place.establish(WANTED, None)
    after = replace(WANTED, peers=frozenset({peer(2), peer(3)}))
    index = place.run("cat /proc/net/dev_snmp6/wg-ovl | head -1")
    place.establish(after, WANTED)

    assert place.differences(after) == []
    assert ip_text(peer(1).inner) not in place.run("ip -6 route")
    assert place.run("cat /proc/net/dev_snmp6/wg-ovl | head -1") == index


def test_a_rotation_moves_routes_one_by_one(place: Place) -> None:
    """Both devices have a route to a peer, and the one that is on standby comes second."""
    place.establish(WANTED, None)
    inner = [peer(number).inner for number in (1, 2)]
    second = replace(WANTED, private_key=b"\x10" + KEY[1:], port=17950, slot=1)

    def device_to(number: int) -> str:
        return (
            place.run(f"ip -6 route get {ip_text(peer(number).inner)}").split(" dev ")[1].split()[0]
        )

    waiting = replace(second, standby=frozenset(inner))
    place.establish(waiting, None)
    assert [device_to(1), device_to(2)] == ["wg-ovl", "wg-ovl"]
    moved = replace(second, standby=frozenset(inner[1:]))
    left = replace(WANTED, standby=frozenset(inner[:1]))
    place.establish(moved, waiting)
    assert [device_to(1), device_to(2)] == ["wg-ovl2", "wg-ovl"]
    place.establish(left, WANTED)
    assert [device_to(1), device_to(2)] == ["wg-ovl2", "wg-ovl"]
    assert place.differences(moved) == place.differences(left) == []
    place.establish(second, moved)
    with place.inside():
        assert tunnel.remove_surplus([second.name])
    assert [device_to(1), device_to(2)] == ["wg-ovl2", "wg-ovl2"]
    assert place.differences(second) == []


@pytest.fixture
def hung(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Return the number of a wireguard-go that is stopped; skips with the kernel's device."""
    if place.backend is not Backend.PROCESS:
        pytest.skip("the kernel's own WireGuard has no process")
    monkeypatch.setattr(limits, "WIREGUARD_ANSWER_S", 0.2)
    place.establish(WANTED, None)
    pid = process_of(place)
    os.kill(pid, signal.SIGSTOP)
    yield pid
    if leftovers_of(place) == [pid]:
        os.kill(pid, signal.SIGKILL)


def leftovers_of(place: Place) -> list[int]:
    """Return the processes of the device."""
    with place.inside():
        found = list(leftovers._find(DEVICE))
    for _, descriptor in found:
        os.close(descriptor)
    return [pid for pid, _ in found]


def process_of(place: Place) -> int:
    """Return the process of the device."""
    (pid,) = leftovers_of(place)
    return pid


def test_a_hung_process_is_replaced(place: Place, hung: int) -> None:
    """It is killed, which is said, and the next pass makes everything again."""
    with pytest.raises(OverlayError, match=f"no answer within .*killed process {hung}"):
        place.establish(WANTED, WANTED)
    assert leftovers_of(place) == []
    assert place.establish(WANTED, WANTED) == ["wg-ovl was gone"]
    assert process_of(place) != hung
    assert place.differences(WANTED) == []


def test_a_hung_process_without_its_device_too(place: Place, hung: int) -> None:
    """It has the socket and the UDP port still, which the next one needs."""
    place.run("ip link del wg-ovl")

    assert place.establish(WANTED, WANTED) == ["wg-ovl was gone"]
    assert process_of(place) != hung
    assert place.differences(WANTED) == []


def test_only_a_hung_process_is_hung(place: Place, hung: int) -> None:
    """Neither one that answers is, nor one that has ended: its device went with it."""
    assert uapi.is_hung(DEVICE)
    assert f"nothing answers for {DEVICE}" in str(place.differences(WANTED))
    os.kill(hung, signal.SIGCONT)
    assert not uapi.is_hung(DEVICE)
    os.kill(hung, signal.SIGKILL)
    deadline = time.monotonic() + 5.0
    while DEVICE in place.run("ip link") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not uapi.is_hung(DEVICE)


def test_processes_of_others_are_left_alone(place: Place, world: World, hung: int) -> None:
    """One in another namespace, and one of the same name that overlayd did not start."""
    elsewhere = Place(world, "other")
    with elsewhere.inside():
        assert leftovers.end(DEVICE) == []
    with place.inside():
        assert leftovers.end("wg-other") == []
    os.kill(hung, 0)
    place.run("env -u OVERLAYD_WIREGUARD wireguard-go wg-x 2>/dev/null")
    with place.inside():
        assert leftovers.end("wg-x") == []
        assert uapi.is_served("wg-x")
    place.run("ip link del wg-x")


def test_reset_ends_a_hung_process(place: Place, hung: int) -> None:
    """And removes its socket, and the folder that wireguard-go has made for it."""
    with place.inside():
        removed = reset.remove_everything(among=lambda _name: False)

    assert f"process {hung} (wireguard-go for {DEVICE})" in removed
    assert leftovers_of(place) == []
    assert not uapi.socket_path(DEVICE).exists()


def test_reset_removes_the_socket_of_a_killed_process(place: Place, hung: int) -> None:
    """It could not unlink it."""
    os.kill(hung, signal.SIGKILL)
    deadline = time.monotonic() + 5.0
    while leftovers_of(place) and time.monotonic() < deadline:
        time.sleep(0.01)
    with place.inside():
        removed = reset.remove_everything(among=lambda _name: False)

    assert f"socket of {DEVICE}" in removed
    assert not uapi.socket_path(DEVICE).exists()


def test_a_strangers_device_is_left_alone(place: Place) -> None:
    """An interface of that name that overlayd did not make is an error, not a victim."""
    place.run("ip link add wg-ovl type bridge")

    with pytest.raises(ConflictError, match="not overlayd's"):
        place.establish(WANTED, None)
    assert "wg-ovl" in place.run("ip link")


def test_a_unit_is_for_the_hosts_namespace_only(place: Place) -> None:
    """Systemd would make the device in its own, whoever asks."""
    with place.inside():
        assert not process.uses_unit()


def test_reset_finds_device_and_fence(place: Place) -> None:
    """Without any state: by alias and by metric."""
    place.establish(WANTED, None)
    with place.inside():
        removed = reset.remove_everything(among=lambda _name: False)

    assert f"interface {DEVICE}" in removed
    assert "unreachable route fd6f:766c:102:304::/64" in removed
    assert "fd6f" not in place.run("ip -6 route")
