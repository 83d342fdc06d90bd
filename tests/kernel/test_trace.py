"""Faults planted in real kernels are found at the right step, from what the kernel says."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.state import GuardRow, SandboxState
from overlay.core.paths.view import PathState, PathView
from overlay.core.protocol.trace import Outcome, Phase, Step
from overlay.core.trace import judge
from overlay.core.trace.facts import HostFacts, OwnEnd, PeerEnd
from overlay.kernel import netns
from overlay.kernel.trace import read_container
from overlay.model import Ip, NodeId, mac_for, mac_text, parse_ip
from tests.kernel.conftest import MTU, VNI, Host, World

if TYPE_CHECKING:
    from overlay.core.trace.facts import ContainerFacts

pytestmark = pytest.mark.netns
FIRST, SECOND = parse_ip("10.32.0.2"), parse_ip("10.32.0.3")
FIRST_MAC, SECOND_MAC = mac_for(VNI, FIRST), mac_for(VNI, SECOND)
PATH = PathView(NodeId(bytes(16)), PathState.OK, PathState.OK, 0.0, 1500, 1500, size_fails=False)
OK, WARN, DROP = Outcome.OK, Outcome.WARN, Outcome.DROP


class Way:
    """The first container's host, explained from what its kernel has."""

    def __init__(self, world: World, one: Host, two: Host) -> None:
        self.world, self.one, self.two = world, one, two
        self.name, _ = world.plug(one, two)
        guard = GuardRow((FIRST_MAC,), (FIRST,), "p0")
        plan = one.desired()
        self.desired = SandboxState(plan.links, plan.rows | {guard})
        assert one.sandbox.apply(diff(self.desired, one.sandbox.read(), prune=True)) == []

    def container(self, listener: tuple[str, int, Ip] | None = None) -> ContainerFacts | None:
        """Read the container."""
        return read_container(
            str(netns.path_of(self.name)),
            netns.identity(self.world.fd(self.name)),
            ("eth0", FIRST_MAC),
            SECOND,
            listener,
        )

    def bad(self) -> list[tuple[Step, Outcome]]:
        """Return the steps of sending that are not ok."""
        facts = HostFacts(
            own=OwnEnd("c1", "vm1", "eth0", FIRST_MAC, FIRST, "p0", 0, self.one.gateway),
            peer=PeerEnd("c2", "vm2", SECOND_MAC, SECOND, 0, self.two.underlay),
            local_vtep=self.one.underlay,
            vxlan_port=4789,
            is_isolated=False,
            desired=self.desired,
            actual=self.one.sandbox.read(),
            container=self.container(),
            fits=MTU,
            path=PATH,
            admits=True,
        )
        found = [each for each in judge.findings(facts) if each.phase is Phase.SEND]
        return [(Step(each.step), each.outcome) for each in found if each.outcome is not OK]

    def inside(self, command: str) -> None:
        """Run a command in the container."""
        self.world.run(self.name, *command.split())

    def sandbox(self, command: str) -> None:
        """Run a command in the sandbox."""
        self.world.run(self.one.sandbox.name, *command.split())


@pytest.fixture
def way(world: World, two_hosts: tuple[Host, Host]) -> Way:
    """Return a way between two hosts on which all is well."""
    return Way(world, *two_hosts)


def test_nothing_is_found_where_all_is_well(way: Way) -> None:
    """Also once the container has the other's MAC in its own table."""
    assert way.bad() == []
    assert way.world.pings(way.name, "10.32.0.3") == 1
    facts = way.container()
    assert facts is not None
    assert facts.cached is not None
    assert facts.cached.mac == SECOND_MAC
    assert way.bad() == []


OTHER = mac_text(FIRST_MAC)
PEER = mac_text(SECOND_MAC)


@pytest.mark.parametrize(
    ("command", "step", "outcome"),
    [
        (f"bridge fdb del {PEER} dev vxlan0 dst 192.168.56.12 self", Step.FDB, WARN),
        (f"bridge fdb replace {PEER} dev vxlan0 dst 192.168.56.99 self permanent", Step.FDB, DROP),
        ("ip neighbor del 10.32.0.3 dev br0", Step.NEIGHBOR, WARN),
        (f"ip neighbor replace 10.32.0.3 lladdr {OTHER} dev br0 nud permanent", Step.NEIGHBOR,
         DROP),
        ("ip link set p0 down", Step.PORT, DROP),
        ("ip link set p0 nomaster", Step.PORT, DROP),
        ("ip link set vxlan0 down", Step.SANDBOX, DROP),
        ("ip link set br0 down", Step.SANDBOX, DROP),
        ("nft flush ruleset", Step.SECURITY, DROP),
    ],
)  # fmt: skip
def test_a_fault_in_the_sandbox(way: Way, command: str, step: Step, outcome: Outcome) -> None:
    """Rows and links that somebody has changed."""
    way.sandbox(command)

    assert next(each for each in way.bad() if each[1] is outcome) == (step, outcome)


def test_rows_that_a_restart_of_vxlan_loses(way: Way) -> None:
    """Without the flood row, nothing carries what the missing row named."""
    way.sandbox(f"bridge fdb del {PEER} dev vxlan0 dst 192.168.56.12 self")
    way.sandbox("bridge fdb del 00:00:00:00:00:00 dev vxlan0 dst 192.168.56.12 self")

    assert way.bad() == [(Step.FDB, DROP)]


@pytest.mark.parametrize(
    ("command", "step", "outcome"),
    [
        ("ip link set eth0 down", Step.INTERFACE, DROP),
        ("ip address flush dev eth0", Step.INTERFACE, DROP),
        ("ip route flush table main", Step.ROUTE, DROP),
        ("ip route replace unreachable 10.32.0.3/32", Step.ROUTE, DROP),
        (f"ip neighbor replace 10.32.0.3 lladdr {OTHER} dev eth0 nud permanent", Step.CACHE, DROP),
        ("ip link set eth0 address 02:00:00:00:00:77", Step.SECURITY, DROP),
        ("ip link set eth0 mtu 1500", Step.SIZE, WARN),
    ],
)
def test_a_fault_in_the_container(way: Way, command: str, step: Step, outcome: Outcome) -> None:
    """Faults that programs or people cause at a container's interface are found."""
    way.inside(command)

    assert way.bad()[0] == (step, outcome)


def test_another_interface_takes_the_route(way: Way) -> None:
    """A VPN in the container, for example."""
    way.inside("ip link add other type bridge")
    way.inside("ip link set other up")
    way.inside("ip route add 10.32.0.3/32 dev other")

    assert way.bad() == [(Step.ROUTE, DROP)]


def test_an_interface_that_is_gone(way: Way) -> None:
    """The kernel removes its port with it."""
    way.inside("ip link del eth0")

    assert way.bad()[0] == (Step.INTERFACE, DROP)
    assert (Step.PORT, DROP) in way.bad()


def test_a_namespace_that_is_gone_is_none(way: Way) -> None:
    """Another one under the same path is not read in its place."""
    facts = read_container(str(netns.path_of(way.name)), (0, 0), ("eth0", FIRST_MAC), SECOND, None)

    assert facts is None


@contextlib.contextmanager
def bound(way: Way, kind: int, address: str) -> Iterator[int]:
    """Open a socket in the container; yield its port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with netns.inside(way.world.fd(way.name)):
        opened = socket.socket(family, kind)
    with opened:
        opened.bind((address, 0))
        if kind == socket.SOCK_STREAM:
            opened.listen()
        yield opened.getsockname()[1]


@pytest.mark.parametrize(("protocol", "kind"), [("tcp", socket.SOCK_STREAM),
                                                ("udp", socket.SOCK_DGRAM)])  # fmt: skip
@pytest.mark.parametrize(
    ("address", "listens"),
    [
        ("0.0.0.0", True),  # noqa: S104 - in a namespace of its own
        ("10.32.0.2", True),
        ("::", True),
        ("127.0.0.1", False),
    ],
)
def test_a_listener_is_seen(
    way: Way, protocol: str, kind: int, address: str, *, listens: bool
) -> None:
    """On the container's own address, or on any; not on another port."""
    with bound(way, kind, address) as port:
        seen = way.container((protocol, port, FIRST))
        other = way.container((protocol, port - 1, FIRST))

    assert seen is not None
    assert seen.listens is listens
    assert other is not None
    assert other.listens is False
