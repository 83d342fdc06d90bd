from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import pytest
from overlay.errors import OverlayError, UsageError
from overlay.kernel import netns
from overlay.kernel.host import underlay
from overlay.model import Ip, parse_ip

if TYPE_CHECKING:
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns


class Machine:
    """A namespace with interfaces to choose from."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.name = world.namespace("m")

    def interface(self, name: str, *addresses: str, mtu: int = 1500) -> None:
        """Add an interface that is up and has the addresses."""
        world = self.world
        cable = ("type", "veth", "peer", f"{name}x")
        world.run(self.name, "ip", "link", "add", name, "mtu", str(mtu), *cable)
        world.run(self.name, "ip", "link", "set", f"{name}x", "up")
        world.run(self.name, "ip", "link", "set", name, "up")
        for address in addresses:
            nodad = ["nodad"] if ":" in address else []
            world.run(self.name, "ip", "address", "add", address, "dev", name, *nodad)

    def route(self, *words: str) -> None:
        """Add a route."""
        self.world.run(self.name, "ip", "route", "add", *words)

    def choose(self, text: str | None = None, peer: str | None = None) -> tuple[str, str, int]:
        """Choose, and return (address, interface, MTU)."""
        with netns.inside(self.world.fd(self.name)):
            chosen = underlay.choose_underlay(text, None if peer is None else parse_ip(peer))
        address = str(ipaddress.ip_address(bytes(chosen.address)))
        return address, chosen.interface, chosen.mtu


@pytest.fixture
def machine(world: World) -> Machine:
    """Return a machine as Vagrant creates them.

    NAT is on eth0, the private network on eth1.
    """
    made = Machine(world)
    made.interface("eth0", "10.0.2.15/24")
    made.interface("eth1", "192.168.56.11/24", "fd56::11/64", mtu=9000)
    made.route("default", "via", "10.0.2.2")
    return made


def test_route_to_the_peer(machine: Machine) -> None:
    """The default is the source address of the route to the first peer."""
    assert machine.choose(peer="192.168.56.12") == ("192.168.56.11", "eth1", 9000)
    assert machine.choose(peer="fd56::12") == ("fd56::11", "eth1", 9000)


def test_own_address_as_peer(machine: Machine) -> None:
    """The route to a local address leads to its interface, not the loopback."""
    assert machine.choose(peer="192.168.56.11") == ("192.168.56.11", "eth1", 9000)


def test_default_route(world: World) -> None:
    """Without a peer, the source address of the default route is chosen."""
    machine = Machine(world)
    machine.interface("eth0", "192.0.2.7/24")
    machine.interface("eth1", "192.168.56.11/24")
    machine.route("default", "via", "192.0.2.1")
    assert machine.choose() == ("192.0.2.7", "eth0", 1500)


def test_only_interface_without_routes(world: World) -> None:
    """Without any route, the only address is chosen."""
    machine = Machine(world)
    machine.interface("eth1", "192.168.56.11/24")
    assert machine.choose() == ("192.168.56.11", "eth1", 1500)


@pytest.mark.parametrize(
    ("text", "address"), [("192.168.56.11", "192.168.56.11"), ("eth1", "192.168.56.11")]
)
def test_by_text(machine: Machine, text: str, address: str) -> None:
    """An address or an interface of the host can be named."""
    assert machine.choose(text)[0] == address


def test_interface_in_the_family_of_the_peer(machine: Machine) -> None:
    """Of an interface with both families, the peer's family is chosen."""
    assert machine.choose("eth1", "fd56::12")[0] == "fd56::11"


def test_virtualbox_nat_is_refused(machine: Machine) -> None:
    """10.0.2.15 is refused, with the other address as a hint."""
    with pytest.raises(UsageError, match=r"VirtualBox.*192\.168\.56\.11 on eth1"):
        machine.choose()
    with pytest.raises(UsageError, match=r"VirtualBox"):
        machine.choose("eth0")


@pytest.mark.parametrize("text", ["192.168.56.99", "eth7", "127.0.0.1", "lo"])
def test_wrong_text(machine: Machine, text: str) -> None:
    """An unusable address or interface is refused with the candidates."""
    with pytest.raises(UsageError):
        machine.choose(text)


def test_no_route_to_the_peer(world: World) -> None:
    """Without a route to the peer the error says so."""
    machine = Machine(world)
    machine.interface("eth1", "192.168.56.11/24")
    with pytest.raises(UsageError, match=r"no route to 172\.16\.0\.1") as caught:
        machine.choose(peer="172.16.0.1")
    assert "--underlay" in caught.value.hint


def test_a_host_without_an_address_is_told_to_get_one(world: World) -> None:
    """There is nothing to name with --underlay."""
    machine = Machine(world)
    machine.interface("eth1")
    with pytest.raises(UsageError, match=r"no other address") as caught:
        machine.choose(peer="172.16.0.1")
    assert caught.value.hint.startswith("Give the interface that leads to the others its address")


def test_small_mtu_is_refused(world: World) -> None:
    """An underlay with an MTU below 1280 bytes is refused."""
    machine = Machine(world)
    machine.interface("eth1", "192.168.56.11/24", mtu=1000)
    with pytest.raises(OverlayError, match="MTU"):
        machine.choose("eth1")


def test_an_address_on_the_loopback_of_a_routed_host(world: World) -> None:
    """Its MTU of 65,536 is reduced to the largest possible packet size."""
    machine = Machine(world)
    world.run(machine.name, "ip", "address", "add", "10.9.9.1/32", "dev", "lo")
    world.run(machine.name, "ip", "link", "set", "lo", "up")
    assert machine.choose("10.9.9.1") == ("10.9.9.1", "lo", 65_535)


def test_overlapping_routes(machine: Machine) -> None:
    """A subnet that overlaps a route is reported with the route.

    Default routes do not count.
    """
    machine.route("10.32.5.0/24", "via", "192.168.56.1")
    with netns.inside(machine.world.fd(machine.name)):
        known = underlay.routes()

    def overlapping(text: str) -> str | None:
        return underlay.overlapping(known, ipaddress.ip_network(text))

    assert overlapping("10.32.0.0/16") == "10.32.5.0/24 via 192.168.56.1 dev eth1"
    assert overlapping("192.168.56.128/25") == "192.168.56.0/24 dev eth1"
    assert overlapping("fd56::/48") == "fd56::/64 dev eth1"
    assert overlapping("10.33.0.0/16") is None
    assert overlapping("fd99::/64") is None


def test_choice_is_a_value(machine: Machine) -> None:
    """Choosing twice on an unchanged host gives equal values."""
    with netns.inside(machine.world.fd(machine.name)):
        chosen = underlay.choose_underlay("eth1", None)
        assert chosen == underlay.choose_underlay("eth1", None)
    assert chosen == underlay.UnderlayAddress(Ip(bytes([192, 168, 56, 11])), "eth1", 9000)


def test_an_interface_that_has_just_been_made_is_awaited(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its address is listed, and it is not yet: interfaces and addresses are read one by one."""
    monkeypatch.setattr(underlay, "all_links", lambda _socket: [])

    with pytest.raises(OverlayError, match="has just been made"):
        machine.choose("192.168.56.11")
