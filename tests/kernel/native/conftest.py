"""Two hosts that take each other's frames out of packets by the native path."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import pytest
from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.link_state import Link, Shortcut
from overlay.core.dataplane.port_security import DEFAULT_TARGET_MAC
from overlay.core.dataplane.state import HookRow, RemoteRow, Row, SandboxState, SourceRow, TargetRow
from overlay.core.dataplane.underlay_filter import ArrivalPath
from overlay.core.native.state import NativeState, NativeVni
from overlay.kernel import netns
from overlay.kernel.bpf.fast_path import FastPath
from overlay.kernel.native.receiver import NativeReceiver
from overlay.kernel.netlink.link_lookup import find_link
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.kernel.sandbox.operation_failure import OperationFailure
from overlay.model import Ip, NodeId, gateway_mac, ip_text, mac_for, mac_text, parse_ip
from tests.kernel.conftest import Host, World

TWO, THREE = parse_ip("10.32.0.2"), parse_ip("10.32.0.3")
TWO_IPV6, THREE_IPV6 = parse_ip("fd32::2"), parse_ip("fd32::3")
NODE = NodeId(bytes(range(1, 17)))
UNDERLAYS = {4: ("192.168.56.11", "192.168.56.12"), 6: ("fd56::11", "fd56::12")}


class ReceiverThere(NativeReceiver):
    """The programs of a host; every request is made in its namespace, as its agent's thread is."""

    def __init__(self, namespace: int, node_id: NodeId) -> None:
        self._namespace = namespace
        with netns.inside(namespace):
            super().__init__(node_id, 4789)

    def read(self) -> NativeState:
        """Return the state of this object's programs."""
        with netns.inside(self._namespace):
            return super().read()

    def write(self, before: NativeState, after: NativeState) -> None:
        """Change what the programs take."""
        with netns.inside(self._namespace):
            super().write(before, after)

    def remove(self) -> None:
        """Remove the programs from all interfaces."""
        with netns.inside(self._namespace):
            super().remove()


@dataclass
class Native:
    """A host whose sandbox has a shortcut, and its container."""

    host: Host
    own: Ip  # the container's address
    other: Ip  # that of the other host's
    container: str = ""
    receiver: NativeReceiver = field(init=False)
    opened: list[NativeReceiver] = field(default_factory=list)
    is_target: bool = True
    sends: bool = False
    policies: frozenset[Row] = frozenset()

    def links(self) -> dict[str, Link]:
        """Return the planned links."""
        return {**self.host.desired().links, "native0": Shortcut("native0", self.host.mtu)}

    def desired(self) -> SandboxState:
        """Return the planned state of the sandbox."""
        host = self.host
        mac = mac_for(host.vni, self.own)
        rows: set[Row] = {
            HookRow(0, "vxlan0"),
            HookRow(0, "br0"),
            HookRow(0, "native0"),
            TargetRow(DEFAULT_TARGET_MAC, 0, "vxlan0"),
            TargetRow(gateway_mac(host.vni, 0), 0, "br0"),
        }
        if self.sends:
            rows.add(HookRow(0, "native0", is_leaving=True))
            rows |= {RemoteRow(mac_for(host.vni, ip), 0, vtep) for ip, vtep in host.remotes}
        if host.ports:
            ips = (self.own, Ip(parse_ip("fd32::")[:15] + self.own[3:]))
            rows |= {HookRow(0, "p0"), *(SourceRow(ip, mac, "p0") for ip in ips)}
            rows |= {TargetRow(mac, 0, "p0")} if self.is_target else set()
        if self.policies:
            hooks = {each for each in rows if isinstance(each, HookRow) and not each.is_leaving}
            ports = ("vxlan0", *host.ports)
            rows = (rows - hooks) | {each._replace(is_policed=True) for each in hooks}
            rows |= {HookRow(0, link, is_policed=True, is_leaving=True) for link in ports}
        return SandboxState(self.links(), host.desired().rows | rows | self.policies)

    def converge(self) -> list[OperationFailure]:
        """Run one reconcile pass."""
        return self.host.sandbox.apply(diff(self.desired(), self.host.sandbox.read(), prune=True))

    def differences(self) -> list[str]:
        """Return the operations of a further pass."""
        return [str(each) for each in diff(self.desired(), self.host.sandbox.read(), prune=True)]

    def open(self, node_id: NodeId = NODE) -> None:
        """Make a receiver, as an agent that starts does."""
        self.receiver = ReceiverThere(self.host.world.fd(self.host.name), node_id)
        self.opened.append(self.receiver)

    def wanted(self) -> NativeState:
        """Return what the host's programs should take."""
        index = self.index("eth1")
        (member,) = self.host.floods
        shortcut = self.host.sandbox.shortcuts.host_ends["native0"]
        return NativeState(
            frozenset({index}),
            frozenset({self.host.underlay}),
            frozenset({ArrivalPath(index, member)}),
            frozenset({NativeVni(self.host.vni, shortcut)}),
        )

    def receive(self) -> None:
        """Write the state of the host's programs."""
        self.receiver.write(self.receiver.read(), self.wanted())

    def index(self, link: str) -> int:
        """Return the index of a link of the host."""
        with NetlinkSocket(self.host.world.fd(self.host.name)) as socket:
            return find_link(socket, link)

    def received(self, link: str) -> int:
        """Return how many frames a link of the sandbox has received."""
        return self._count(link, "rx")

    def sent(self, link: str) -> int:
        """Return how many frames a link of the sandbox has sent."""
        return self._count(link, "tx")

    def pings_past_device(self, count: int, *options: str) -> int:
        """Return how many of that many pings were sent past the device; all must have replies."""
        before, target = self.sent("vxlan0"), ip_text(self.other)
        assert self.host.world.pings(self.container, target, *options, count=count) == count
        return count - (self.sent("vxlan0") - before)

    def counted(self, link: str, direction: str = "tx") -> int:
        """Return how many packets a link of the host has sent, or received."""
        shown = self.host.world.run(self.host.name, "ip", "-s", "-j", "link", "show", link)
        found: int = json.loads(shown)[0]["stats64"][direction]["packets"]
        return found

    def _count(self, link: str, direction: str) -> int:
        shown = self.host.world.run(self.host.sandbox.name, "ip", "-s", "-j", "link", "show", link)
        found: int = json.loads(shown)[0]["stats64"][direction]["packets"]
        return found


PairMaker: TypeAlias = Callable[[int], tuple[Native, Native]]


@pytest.fixture
def make_pair(world: World) -> Iterator[PairMaker]:
    """Return a function that creates two hosts of an IP version, with a container each."""
    made: list[Native] = []

    def make(outer: int) -> tuple[Native, Native]:
        one, two = (world.host(underlay) for underlay in UNDERLAYS[outer])
        one.mtu = two.mtu = 1450 if outer == 4 else 1430
        pair = Native(one, TWO, THREE), Native(two, THREE, TWO)
        for native in pair:
            native.host.sandbox.fast_path = FastPath()
        world.pair(one, two)
        for native in pair:
            assert native.converge() == []
        names = world.plug(one, two)
        for native, name in zip(pair, names, strict=True):
            native.container = name
            assert native.converge() == []
            assert native.differences() == []
            native.open()
            native.receive()
        made.extend(pair)
        return pair

    yield make
    for native in made:
        for receiver in native.opened:
            receiver.close()


def give_ipv6(world: World, pair: tuple[Native, Native]) -> None:
    """Give both containers an IPv6 address, and the other's as a fixed neighbor."""
    addresses = ((TWO_IPV6, THREE_IPV6), (THREE_IPV6, TWO_IPV6))
    for native, (own, other) in zip(pair, addresses, strict=True):
        name, mac = native.container, mac_text(mac_for(native.host.vni, native.other))
        world.run(name, "sysctl", "-w", "net.ipv6.conf.eth0.disable_ipv6=0")
        world.run(name, "ip", "address", "add", f"{ip_text(own)}/64", "dev", "eth0", "nodad")
        known = ("lladdr", mac, "dev", "eth0", "nud", "permanent")
        world.run(name, "ip", "neigh", "replace", ip_text(other), *known)


def start_sending(pair: tuple[Native, Native]) -> None:
    """Have both hosts send natively, too."""
    for native in pair:
        native.sends = True
        with netns.inside(native.host.world.fd(native.host.name)):
            assert native.converge() == []
            assert native.differences() == []


@pytest.fixture
def pair(make_pair: PairMaker) -> tuple[Native, Native]:
    """Return two hosts on an IPv4 underlay."""
    return make_pair(4)
