"""The interfaces through which a peer's packets may come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.underlay_filter import ArrivalPath
from overlay.kernel import netns
from overlay.kernel.host.arrival_paths import FurtherPaths, further_paths
from overlay.model import Ip, parse_ip

if TYPE_CHECKING:
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns
PEERS = {4: parse_ip("192.168.56.12"), 16: parse_ip("fd56::12")}
BOTH = pytest.mark.parametrize("size", [4, 16])


class Host:
    """A host whose interfaces have addresses in one or several subnets."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.name = world.namespace("a")

    def interface(self, name: str, index: int, *addresses: str) -> None:
        """Add an interface of this index that is up."""
        run = self.world.run
        cable = ("index", str(index), "type", "veth", "peer", f"{name}x")
        run(self.name, "ip", "link", "add", name, *cable)
        run(self.name, "ip", "link", "set", f"{name}x", "up")
        run(self.name, "ip", "link", "set", name, "up")
        for address in addresses:
            nodad = ("nodad",) if ":" in address else ()
            run(self.name, "ip", "addr", "add", address, "dev", name, *nodad)

    def further(self, peers: set[Ip], *seen: ArrivalPath) -> FurtherPaths:
        """Return the paths beside the best ones."""
        with netns.inside(self.world.fd(self.name)):
            return further_paths(peers, seen)


@pytest.fixture
def host(world: World) -> Host:
    """Return a host with one interface on the peers' subnets."""
    made = Host(world)
    made.interface("eth1", 101, "192.168.56.11/24", "fd56::11/64")
    return made


@BOTH
def test_a_second_interface_on_the_subnet_leads_back(host: Host, size: int) -> None:
    """As the first one does, in each family by itself."""
    second = "192.168.56.111/24" if size == 4 else "fd56::111/64"
    assert host.further(set(PEERS.values())).equal == frozenset()
    host.interface("eth2", 102, second)

    assert host.further(set(PEERS.values())).equal == {ArrivalPath(102, PEERS[size])}


@BOTH
def test_a_less_specific_route_does_not_lead_back(host: Host, size: int) -> None:
    """A stranger on the internet does not pass for a member on the local subnet."""
    gateway = {4: "203.0.113.254", 16: "2001:db8:113::254"}[size]
    host.interface("wan0", 103, "203.0.113.1/24", "2001:db8:113::1/64")
    host.world.run(host.name, "ip", "route", "add", "default", "via", gateway)

    assert host.further({PEERS[size]}).equal == frozenset()


@BOTH
def test_two_default_routes_are_alike(host: Host, size: int) -> None:
    """A member behind them may send by either, whatever their metrics are."""
    far = {4: parse_ip("10.9.0.1"), 16: parse_ip("fd99::1")}[size]
    gateways = {4: ("192.168.56.1", "192.168.57.1"), 16: ("fd56::1", "fd57::1")}[size]
    host.interface("eth2", 102, "192.168.57.11/24", "fd57::11/64")
    for metric, gateway in enumerate(gateways, 100):
        route = ("default", "via", gateway, "metric", str(metric))
        host.world.run(host.name, "ip", "route", "add", *route)

    assert host.further({far}).equal == {ArrivalPath(102, far)}


def test_paths_that_were_seen_count_while_they_exist(host: Host) -> None:
    """One is asymmetric if no route is as good; those of former peers and links are gone."""
    host.interface("wan0", 103, "203.0.113.1/24")
    peer, former = PEERS[4], parse_ip("192.168.56.99")
    paths = [ArrivalPath(101, peer), ArrivalPath(103, peer)]
    found = host.further({peer}, *paths, ArrivalPath(104, peer), ArrivalPath(103, former))

    best = frozenset({paths[0]})
    assert found == FurtherPaths(frozenset(), {paths[1]: "wan0"}, frozenset(paths), best)


@pytest.mark.parametrize("state", [("master", "over0"), ("down",)])
def test_only_what_can_receive_is_asymmetric(host: Host, state: tuple[str, ...]) -> None:
    """What comes to a port comes by its bridge; the path is kept for when that is undone."""
    host.interface("wan0", 103, "203.0.113.1/24")
    path = ArrivalPath(103, PEERS[4])
    host.world.run(host.name, "ip", "link", "add", "over0", "type", "bridge")
    host.world.run(host.name, "ip", "link", "set", "wan0", *state)
    found = host.further({PEERS[4]}, path)

    assert found.asymmetric == {}
    assert found.existing == {path}


def test_own_addresses_and_those_of_a_segment_are_no_hosts(host: Host) -> None:
    """Whatever is sent there comes back, or goes to all; other addresses may be a peer's."""
    host.interface("docker0", 105, "172.17.0.1/16")
    own = {parse_ip(text) for text in ("192.168.56.11", "fd56::11", "172.17.0.1")}
    all_hosts = {parse_ip(text) for text in ("192.168.56.255", "172.17.255.255")}
    unknown = {parse_ip("203.0.113.9"), parse_ip("172.17.0.9")}
    found = host.further(own | all_hosts | unknown | set(PEERS.values()))

    assert found.no_hosts == own | all_hosts
    assert {path.member for path in found.best} == set(PEERS.values()) | {parse_ip("172.17.0.9")}


def test_where_nothing_gets_through_may_be_another_hosts(host: Host) -> None:
    """Its route may come back."""
    for kind, text in (("blackhole", "10.9.0.1"), ("unreachable", "fd99::1")):
        host.world.run(host.name, "ip", "route", "add", kind, text)

    found = host.further({parse_ip("10.9.0.1"), parse_ip("fd99::1"), parse_ip("fd98::1")})
    assert found.no_hosts == frozenset()
