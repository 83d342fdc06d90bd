"""Changes by a container's programs in its interface are found and restored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from overlay import limits
from overlay.kernel import netns
from overlay.kernel.containers import container_interface
from overlay.kernel.containers.container_interface import InterfaceDifference, WantedInterface
from overlay.kernel.host.default_route import DefaultRouteCandidate, reconcile
from overlay.kernel.netlink import address_rows, codec, link_decoder, link_lookup, routes
from overlay.kernel.netlink.link_lookup import find_link
from overlay.kernel.netlink.socket import LargeDumpError
from overlay.kernel.sandbox.container_namespace import NAMESPACE_ALIAS, socket_in
from overlay.model import Vni, mac_for, parse_ip

if TYPE_CHECKING:
    from pathlib import Path

    from overlay.kernel.netlink.link_decoder import LinkInfo
    from overlay.kernel.netlink.socket import NetlinkSocket
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns
IP, IP6 = parse_ip("10.32.0.2"), parse_ip("fd32::2")
ADDRESSES = ((IP, 16), (IP6, 64))
DUMPS = (
    (codec.RTM_GETLINK, link_decoder.DUMP_BODY),
    (codec.RTM_GETADDR, address_rows.ADDRESS_DUMP),
    (codec.RTM_GETROUTE, routes.DUMP),
)


class Container:
    """A container with an interface as an attach makes it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.name = world.namespace("c")
        self.path = str(netns.path_of(self.name))
        self.identity = netns.identity(world.fd(self.name))
        self.wanted = WantedInterface(
            "blue", "eth0", mac_for(Vni(1), IP), ADDRESSES, frozenset({4, 16})
        )
        mac = self.wanted.mac.hex(":")
        self.ip("link", "add", "eth0", "address", mac, "type", "veth", "peer", "eth0x")
        self.ip("link", "set", "eth0x", "up")
        assert len(self.restore()) == 5
        self.routes()

    def ip(self, *words: str) -> str:
        """Run `ip` inside."""
        return self.world.run(self.name, "ip", *words)

    def restore(self) -> list[InterfaceDifference]:
        """Restore state and addresses."""
        return container_interface.restore(self.path, self.identity, [self.wanted])

    def routes(self) -> None:
        """Give it the default routes."""
        gateways = (parse_ip("10.32.0.1"), parse_ip("fd32::1"))
        candidate = DefaultRouteCandidate((0, 0), "eth0", self.wanted.mac, gateways)
        reconcile(self.path, self.identity, [candidate])

    def texts(self) -> list[str]:
        """Return what is missing."""
        found = container_interface.differences(self.path, self.identity, [self.wanted])
        return [each.text for each in found]


@pytest.fixture
def container(world: World) -> Container:
    """Return a container that lacks nothing."""
    made = Container(world)
    assert made.texts() == []
    return made


NO_ROUTES = ["there is no default route for IPv4", "there is no default route for IPv6"]


@pytest.mark.parametrize(
    ("changes", "texts"),
    [
        (["addr flush dev eth0"], [
            "eth0 has no address 10.32.0.2/16", "eth0 has no address fd32::2/64", NO_ROUTES[0]]),
        (["link set eth0 down"], ["eth0 is down", "eth0 has no address fd32::2/64", *NO_ROUTES]),
        (["link set eth0 down", "link set eth0 up"], [
            "eth0 has no address fd32::2/64", *NO_ROUTES]),
        (["route del default", "-6 route del default"], NO_ROUTES),
    ],
)  # fmt: skip
def test_what_is_missing_is_restored(
    container: Container, changes: list[str], texts: list[str]
) -> None:
    """State and addresses by one call, default routes by their own rule."""
    for words in changes:
        container.ip(*words.split())

    assert container.texts() == texts
    assert [each.text for each in container.restore()] == texts
    container.routes()
    assert container.texts() == []


def test_what_is_there_besides_is_left_alone(container: Container) -> None:
    """Further addresses, another name, a smaller MTU, and a default route of somebody else."""
    container.ip("addr", "add", "10.32.9.9/16", "dev", "eth0")
    container.ip("link", "set", "eth0", "mtu", "1400")
    container.ip("link", "set", "eth0x", "up")
    container.ip("route", "replace", "default", "via", "10.32.0.99", "dev", "eth0")
    container.ip("link", "property", "add", "dev", "eth0", "altname", "lan")
    before = container.ip("-o", "addr")

    assert container.texts() == []
    assert container.restore() == []
    assert container.ip("-o", "addr") == before


@pytest.mark.parametrize("name", ["\x1b[2J\x1b[1m", "\u202egnol", "\x9b31m"])
def test_a_name_controls_no_terminal(container: Container, name: str) -> None:
    """The kernel takes any that has no slash, colon or space; root in a container chooses it."""
    container.ip("link", "set", "eth0", "down")
    container.ip("link", "set", "eth0", "name", name)
    texts = container.texts()

    assert texts[0].endswith(" is down")
    assert all(text.isprintable() for text in texts)
    assert len(container.restore()) == len(texts)
    container.routes()
    assert container.texts() == []


def test_an_interface_that_is_gone_lacks_nothing(container: Container) -> None:
    """It is recreated from its port in the sandbox; a namespace that is gone has no interface."""
    container.ip("link", "del", "eth0")
    assert container.texts() == []
    container.identity = (container.identity[0], 1)
    assert container.texts() == []


def test_a_sandbox_is_left_alone(container: Container) -> None:
    """Its path may lead to one, as the kernel gives a namespace's inode to another one."""
    container.ip("link", "set", "eth0", "down")
    container.ip("link", "set", "lo", "alias", "overlayd:sandbox")
    assert container.restore() == []
    container.ip("link", "set", "lo", "alias", NAMESPACE_ALIAS)
    assert container.restore()


def test_an_interface_made_anew_is_for_the_next_check(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root in a container can do so all the time; a KeyError ended the agent."""
    seen = link_lookup.all_links

    def outdated(inside: NetlinkSocket) -> list[LinkInfo]:
        found = seen(inside)
        mac = container.wanted.mac.hex(":")
        container.ip("link", "del", "eth0")
        container.ip("link", "add", "eth0", "address", mac, "type", "veth", "peer", "eth0x")
        return found

    monkeypatch.setattr(container_interface, "all_links", outdated)
    assert container.texts()
    monkeypatch.undo()
    assert container.restore()


@pytest.mark.parametrize(
    "row",
    [
        "route add 192.0.{high}.{low}/32 dev eth0",
        "addr add 192.0.{high}.{low}/32 dev eth0",
        "link add t{high}x{low} type bridge",
    ],
)
def test_too_many_rows_are_not_read(
    container: Container, row: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root in a container may add millions; that it is so is an error of this container's."""
    monkeypatch.setattr(limits, "CONTAINER_DUMP_SIZE_MAX", 64 * 1024)
    count = 60 if row.startswith("link") else 1_500
    batch = tmp_path / "batch"
    rows = [row.format(high=number >> 8, low=number & 255) for number in range(count)]
    batch.write_text("\n".join(rows))
    container.ip("-batch", str(batch))

    for read in (container.texts, container.restore):
        with pytest.raises(LargeDumpError, match="more than 64 KiB"):
            read()
    with socket_in(container.path, container.identity) as inside:
        assert inside is not None
        for _ in range(2):
            with pytest.raises(LargeDumpError):
                _ = [inside.dump(kind, body) for kind, body in DUMPS]
        assert find_link(inside, "eth0")  # the socket is of use, and still in the container

    monkeypatch.undo()
    assert container.texts() == []
