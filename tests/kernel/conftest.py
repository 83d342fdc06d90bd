"""Hosts and containers as network namespaces of this machine.

container -- br0 -- vxlan0 == eth1 of host 1 ===== eth1 of host 2 == vxlan0 -- br0 -- container
(namespace)  (sandbox)       (namespace)           (namespace)       (sandbox)     (namespace)
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.link_state import Bridge, Link, Port, Vxlan
from overlay.core.dataplane.state import (
    AddressRow,
    BridgeFdbRow,
    FdbRow,
    FloodRow,
    NeighborRow,
    Row,
    SandboxState,
)
from overlay.kernel import netns
from overlay.kernel.sandbox import kernel_support, veth
from overlay.kernel.sandbox.operation_failure import OperationFailure
from overlay.kernel.sandbox.sandbox import Sandbox
from overlay.model import Ip, Vni, gateway_mac, ip_text, mac_for, parse_ip

VNI = Vni(0x800001)
MTU = 1450
_numbers = itertools.count()


class World:
    """Creates namespaces with unique names and removes them all."""

    def __init__(self) -> None:
        self.prefix = f"ovt{os.getpid()}x{next(_numbers)}"
        self.names: list[str] = []
        self.open: list[int] = []
        self.hosts: list[Host] = []

    def namespace(self, name: str) -> str:
        """Create a namespace with loopback up and return its full name."""
        full = self.claim(name)
        self.open.append(netns.create(full))
        self.run(full, "ip", "link", "set", "lo", "up")
        return full

    def claim(self, name: str) -> str:
        """Return a full name that will be removed at the end."""
        full = f"{self.prefix}{name}"
        self.names.append(full)
        return full

    def fd(self, name: str) -> int:
        """Return a descriptor of a namespace by full name."""
        fd = netns.open_fd(netns.path_of(name))
        self.open.append(fd)
        return fd

    def run(self, namespace: str, *command: str) -> str:
        """Run a program inside a namespace.

        Returns its output; fails the test on error.
        """
        done = self._run(namespace, command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def pings(self, namespace: str, address: str, *options: str, count: int = 1) -> int:
        """Return the number of replies to `count` pings."""
        command = ("ping", "-n", "-c", str(count), "-i", "0.01", "-W", "1", *options, address)
        return self._run(namespace, command).stdout.count("bytes from")

    @staticmethod
    def _run(namespace: str, command: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["nsenter", f"--net={netns.path_of(namespace)}", *command],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    @staticmethod
    def wait_until(condition: Callable[[], bool], what: str, limit_s: float = 60) -> None:
        """Poll until the condition holds; fail the test after `limit_s`."""
        end = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < end, f"waited {limit_s} s for {what}"
            threading.Event().wait(0.005)

    def host(
        self, underlay: str = "192.168.56.11", gateway: str = "10.32.0.1", prefix_length: int = 16
    ) -> Host:
        """Create a host with an empty sandbox."""
        number = len(self.hosts)
        name = self.namespace(f"h{number}")
        with netns.inside(self.fd(name)):
            over_ipv6 = ":" in underlay
            sandbox = Sandbox.open(self.claim(f"s{number}"), create=True, over_ipv6=over_ipv6)
        host = Host(self, name, parse_ip(underlay), sandbox, parse_ip(gateway), prefix_length)
        self.hosts.append(host)
        return host

    def pair(self, one: Host, two: Host) -> None:
        """Connect two hosts by an underlay cable, and add each other's VTEP."""
        cable = ("eth1", "type", "veth", "peer", "eth1", "netns", two.name)
        self.run(one.name, "ip", "link", "add", *cable)
        for host, other in ((one, two), (two, one)):
            length, options = (24, ()) if len(host.underlay) == 4 else (64, ("nodad",))
            address = f"{ip_text(host.underlay)}/{length}"
            self.run(host.name, "ip", "address", "add", address, "dev", "eth1", *options)
            self.run(host.name, "ip", "link", "set", "eth1", "up")
            host.floods.append(other.underlay)
        # A new IPv6 link does not reply to neighbor solicitations for a while.
        target = ip_text(two.underlay)
        self.wait_until(lambda: self.pings(one.name, target) == 1, "the underlay")

    def plug(self, one: Host, two: Host) -> tuple[str, str]:
        """Attach 10.32.0.2 on one host and .3 on the other.

        Programs each other's rows.
        """
        first, second = parse_ip("10.32.0.2"), parse_ip("10.32.0.3")
        names = one.attach(first), two.attach(second)
        one.remotes.append((second, two.underlay))
        two.remotes.append((first, one.underlay))
        for host in (one, two):
            assert host.converge() == []
        return names

    def close(self) -> None:
        """Remove everything."""
        for host in self.hosts:
            host.sandbox.close()
        for fd in self.open:
            os.close(fd)
        for name in reversed(self.names):
            netns.remove(name)


@dataclass
class Host:
    """One host: its namespace, sandbox, containers and desired state."""

    world: World
    name: str
    underlay: Ip
    sandbox: Sandbox
    gateway: Ip
    prefix_length: int
    vni: Vni = VNI
    mtu: int = MTU
    floods: list[Ip] = field(default_factory=list)
    remotes: list[tuple[Ip, Ip]] = field(default_factory=list)  # (address, its VTEP)
    ports: list[str] = field(default_factory=list)

    def desired(self) -> SandboxState:
        """Return the desired state, as the planner would."""
        links: dict[str, Link] = {
            "br0": Bridge("br0", gateway_mac(self.vni, 0), self.mtu),
            "vxlan0": Vxlan("vxlan0", self.vni, self.underlay, 4789, self.mtu, "br0"),
        }
        links |= {name: Port(name, self.mtu, "br0") for name in self.ports}
        rows: set[Row] = {AddressRow("br0", self.gateway, self.prefix_length)}
        rows |= {FloodRow("vxlan0", vtep) for vtep in self.floods}
        for ip, vtep in self.remotes:
            mac = mac_for(self.vni, ip)
            rows |= {
                FdbRow("vxlan0", mac, vtep),
                BridgeFdbRow("vxlan0", mac),
                NeighborRow("br0", ip, mac),
            }
        return SandboxState(links, frozenset(rows))

    def converge(self) -> list[OperationFailure]:
        """Run one reconcile pass; return the failures."""
        operations = diff(self.desired(), self.sandbox.read(), prune=True)
        return self.sandbox.apply(operations)

    def differences(self) -> list[str]:
        """Return the operations of a further pass, as texts."""
        operations = diff(self.desired(), self.sandbox.read(), prune=True)
        return [str(operation) for operation in operations]

    def attach(self, ip: Ip) -> str:
        """Create a container with that address; return its namespace's name."""
        name = self.world.namespace(f"c{len(self.world.names)}")
        port = f"p{len(self.ports)}"
        veth.attach_interface(
            self.sandbox,
            port_name=port,
            bridge="br0",
            netns_fd=self.world.fd(name),
            ifname=None,
            mac=mac_for(self.vni, ip),
            addresses=[(ip, self.prefix_length)],
            mtu=self.mtu,
            gateway=self.gateway,
        )
        self.ports.append(port)
        return name


class Capture:
    """Captures the frames that pass an interface (packet(7))."""

    def __init__(self, netns_fd: int, interface: str) -> None:
        with netns.inside(netns_fd):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            self._socket.bind((interface, 3))

    def frames(self) -> list[bytes]:
        """Return the frames seen since the last call."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(65536, socket.MSG_DONTWAIT))
            except BlockingIOError:
                return found

    def wait_for(self, count: int, is_wanted: Callable[[bytes], bool]) -> list[bytes]:
        """Return the frames that are wanted, once so many have come.

        Whoever sent one may go on before it has come: a loaded machine hands it on later.
        """
        found: list[bytes] = []

        def have_come() -> bool:
            found.extend(filter(is_wanted, self.frames()))
            return len(found) >= count

        World.wait_until(have_come, f"{count} frames")
        return found

    def inner(self) -> list[tuple[int, bytes]]:
        """Return (VNI, inner frame) of the VXLAN frames since the last call."""
        found = []
        for frame in self.frames():
            is_vxlan = (
                frame[12:14] == b"\x08\x00" and frame[23] == 17 and frame[36:38] == b"\x12\xb5"
            )
            if is_vxlan:
                found.append((int.from_bytes(frame[46:49], "big"), frame[50:]))
        return found

    def close(self) -> None:
        """Stop reading."""
        self._socket.close()


@pytest.fixture(scope="session")
def _capable() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: makes network namespaces")
    kernel_support.require_kernel_support()


@pytest.fixture
def world(_capable: None) -> Iterator[World]:
    """Return an object that creates namespaces."""
    made = World()
    yield made
    made.close()


@pytest.fixture
def capture(world: World) -> Iterator[Callable[[str, str], Capture]]:
    """Return a function that starts a capture on (namespace, interface)."""
    made: list[Capture] = []

    def start(namespace: str, interface: str) -> Capture:
        made.append(Capture(world.fd(namespace), interface))
        return made[-1]

    yield start
    for each in made:
        each.close()


@pytest.fixture
def two_hosts(world: World) -> tuple[Host, Host]:
    """Create two hosts on one underlay, each with a converged sandbox."""
    one, two = world.host("192.168.56.11"), world.host("192.168.56.12")
    world.pair(one, two)
    for host in (one, two):
        assert host.converge() == []
    return one, two
