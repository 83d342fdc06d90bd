"""Redirected DNS queries in a real kernel: where they arrive, and that nothing stays."""

from __future__ import annotations

import select
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from overlay import limits
from overlay.kernel import netns
from overlay.kernel.host import default_route, subnet_routes
from overlay.kernel.host.subnet_routes import SubnetRoute
from overlay.kernel.nft.resolver_redirect import ResolverRedirect
from overlay.model import Mac, parse_ip, parse_mac

if TYPE_CHECKING:
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns
RESOLVER, OTHER, GATEWAY = (parse_ip(text) for text in ("192.0.2.53", "192.0.2.54", "10.32.0.1"))
SETUP = """
link add eth0 type bridge
address add 172.30.0.2/24 dev eth0
link set eth0 up
route add default via 172.30.0.1
address add 10.32.0.2/16 dev ov0
link set ov0 up
"""


class Container:
    """A container with a default route by eth0, and ov0 towards a gateway."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.name, self.gateway = world.namespace("c"), world.namespace("g")
        peer = ("ov0", "type", "veth", "peer", "name", "gw0", "netns", self.gateway)
        world.run(self.name, "ip", "link", "add", *peer)
        world.run(self.gateway, "ip", "address", "add", "10.32.0.1/16", "dev", "gw0")
        world.run(self.gateway, "ip", "link", "set", "gw0", "up")
        for line in SETUP.strip().splitlines():
            world.run(self.name, "ip", *line.split())
        self.path = str(netns.path_of(self.name))
        self.identity = netns.identity(world.fd(self.name))

    def mac(self) -> Mac:
        """Return the MAC of its interface."""
        return parse_mac(self.world.run(self.name, "ip", "-br", "link", "show", "ov0").split()[2])

    def tables(self) -> str:
        """Return the container's tables."""
        return self.world.run(self.name, "nft", "list", "ruleset")


@pytest.fixture
def container(world: World) -> Container:
    """Return a container."""
    return Container(world)


def socket_of(container: Container, name: str, closing: ExitStack) -> socket.socket:
    """Return a UDP socket in a namespace."""
    with netns.inside(container.world.fd(name)):
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    closing.callback(made.close)
    made.settimeout(20)
    return made


def test_queries_arrive_at_the_gateway(container: Container) -> None:
    """From the interface's own address; the answer comes from the resolver that was asked."""
    with ExitStack() as closing:
        redirect = ResolverRedirect.open(container.path, container.identity)
        assert redirect is not None
        closing.callback(redirect.close)
        redirect.put({RESOLVER: GATEWAY})
        server = socket_of(container, container.gateway, closing)
        server.bind(("10.32.0.1", 53))
        client = socket_of(container, container.name, closing)

        client.sendto(b"query", ("192.0.2.53", 53))
        assert select.select([server], [], [], 20)[0]
        data, sender = server.recvfrom(64)
        server.sendto(b"answer", sender)

        assert (data, sender[0]) == (b"query", "10.32.0.2")
        assert client.recvfrom(64) == (b"answer", ("192.0.2.53", 53))
        for place in (("192.0.2.54", 53), ("192.0.2.53", 54)):
            client.sendto(b"other", place)
        assert not select.select([server], [], [], 0.2)[0]


def test_what_is_redirected_can_change(container: Container) -> None:
    """Only the last resolvers count, and the same again changes nothing."""
    redirect = ResolverRedirect.open(container.path, container.identity)
    assert redirect is not None
    redirect.put({RESOLVER: GATEWAY})
    redirect.put({OTHER: GATEWAY})
    shown = container.tables()
    redirect.put({OTHER: GATEWAY})

    assert "192.0.2.54" in shown
    assert "192.0.2.53" not in shown
    assert container.tables() == shown
    redirect.close()


def test_nobody_else_can_change_it(container: Container) -> None:
    """A flush by root in the container leaves it; its table goes with the socket."""
    redirect = ResolverRedirect.open(container.path, container.identity)
    assert redirect is not None
    redirect.put({RESOLVER: GATEWAY})
    container.world.run(container.name, "nft", "flush", "ruleset")
    assert "192.0.2.53" in container.tables()

    redirect.close()

    container.world.wait_until(lambda: container.tables() == "", "the table to go")


def test_tables_too_large_to_read_change_nothing(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root in a container may add any number of chains: its queries are redirected all the same."""
    monkeypatch.setattr(limits, "CONTAINER_DUMP_SIZE_MAX", 1024)
    redirect = ResolverRedirect.open(container.path, container.identity)
    assert redirect is not None
    redirect.put({RESOLVER: GATEWAY})
    chains = "".join(f"chain c{number} {{ }}\n" for number in range(100))
    container.world.run(container.name, "nft", f"table inet large {{\n{chains}}}")
    for resolver, shown in ((RESOLVER, "192.0.2.53"), (OTHER, "192.0.2.54")):
        redirect.put({resolver: GATEWAY})
        assert shown in container.world.run(container.name, "nft", "list table inet overlayd_names")
    redirect.close()


def test_a_table_of_its_name_is_replaced(container: Container) -> None:
    """Whichever program created it, unless another socket owns it."""
    for words in ("table inet overlayd_names", "chain inet overlayd_names theirs"):
        container.world.run(container.name, "nft", "add", *words.split())
    redirect = ResolverRedirect.open(container.path, container.identity)
    assert redirect is not None
    redirect.put({RESOLVER: GATEWAY})
    assert "192.0.2.53" in container.tables()
    assert "theirs" not in container.tables()
    redirect.close()


def test_a_container_that_is_gone_has_none(container: Container) -> None:
    """Its path may lead to another namespace by now."""
    device, inode = container.identity

    assert ResolverRedirect.open(container.path, (device, inode + 1)) is None


def test_routes_to_resolvers_come_and_go(container: Container) -> None:
    """Added and removed twice; a default route, and a route that is not overlayd's, stay."""
    mac = container.mac()
    at = container.path, container.identity
    route = [SubnetRoute("ov0", mac, RESOLVER, 32, GATEWAY)]
    shown = ("ip", "route", "show", "192.0.2.53")
    assert default_route.families_led_out(*at) == {4}
    for _ in range(2):
        subnet_routes.ensure(*at, route)
    assert "via 10.32.0.1 dev ov0" in container.world.run(container.name, *shown)
    container.world.run(container.name, "ip", "route", "add", "192.0.2.53", "via", "172.30.0.1")

    for _ in range(2):
        subnet_routes.drop(*at, route)

    assert container.world.run(container.name, *shown).split()[2] == "172.30.0.1"
    container.world.run(container.name, "ip", "route", "del", "default")
    assert default_route.families_led_out(*at) == set()


def test_resolvers_that_are_reached_elsewhere_are_found(container: Container) -> None:
    """By the routes: those behind overlayd's interfaces, or nowhere, are not."""
    mac = container.mac()

    def found(*texts: str) -> list[bytes]:
        destinations = [parse_ip(text) for text in texts]
        own = [("ov0", mac)]
        return list(
            default_route.reached_elsewhere(container.path, container.identity, own, destinations)
        )

    assert found("192.0.2.53", "10.32.0.9", "2001:db8::1") == [RESOLVER]
    container.world.run(container.name, "ip", "route", "add", "192.0.2.53", "via", "10.32.0.1")
    assert found("192.0.2.53", "192.0.2.54") == [OTHER]
