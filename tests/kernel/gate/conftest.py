"""A host with a gate, a router beside it, and another host behind the router.

one, two, away (containers) -- network -- ovh of h1 -- cable -- h2 -- far, MTU 1400 -- eth0 of far
      green (a container of another network) -- ovi of h1

Container away has no default route, as one on another host has none to this host.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from overlay.core.dataplane.host_rules import (
    ExposedLink,
    HostState,
    IngressForward,
    PortForward,
)
from overlay.core.gate.port_block import PortBlock
from overlay.core.gate.state import GatedAddress, GatedInterface, GatedNetwork, GateState
from overlay.core.gate.translation import VirtualAddress, plan_gate
from overlay.core.services.values import Backend
from overlay.kernel import netns
from overlay.kernel.bpf.hooks.interface_hooks import InterfaceHooks, hooks_of
from overlay.kernel.bpf.hooks.owner import GATE, HookOwner
from overlay.kernel.gate.gate import Gate
from overlay.kernel.gate.host_reader import read_host
from overlay.kernel.netlink import link_decoder, link_requests
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.kernel.nft.host.host_table import Gated as HostForm
from overlay.kernel.nft.host.host_table import HostTable
from overlay.kernel.nft.host.translation_table import TranslationTable
from overlay.model import Ip, Mac, NodeId, parse_ip
from tests.kernel.conftest import World
from tests.kernel.gate.traffic import Traffic

NODE = NodeId(bytes(range(32, 48)))
OWN = {4: "192.0.2.1", 6: "2001:db8::1"}
NEAR = {4: "192.0.2.2", 6: "2001:db8::2"}
FAR = {4: "198.51.100.2", 6: "2001:db8:1::2"}
GATEWAY = {4: "10.32.0.1", 6: "fd00:32::1"}
ONE = {4: "10.32.0.2", 6: "fd00:32::2"}
TWO = {4: "10.32.0.3", 6: "fd00:32::3"}
AWAY = {4: "10.32.0.4", 6: "fd00:32::4"}
SERVICE = {4: "10.32.200.1", 6: "fd00:32::200:1"}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
RANGES = {4: ("10.32.0.0", 16), 6: ("fd00:32::", 64)}
GREEN_GATEWAY = {4: "10.33.0.1", 6: "fd00:33::1"}
GREEN = {4: "10.33.0.2", 6: "fd00:33::2"}
GREEN_RANGES = {4: ("10.33.0.0", 16), 6: ("fd00:33::", 64)}
TCP_PORT, UDP_PORT, CLOSED_PORT, UNTRANSLATED_PORT = 8080, 8053, 8055, 8056
"""Published ports: to container one, to a port there at which nobody listens, and of no rule."""
AWAY_TCP_PORT, AWAY_UDP_PORT, AWAY_CLOSED_PORT = 8090, 8063, 8065
"""The same to container away; that of TCP is a service's."""
_PORTS = (("tcp", TCP_PORT, 80), ("udp", UDP_PORT, 53), ("udp", CLOSED_PORT, 5999))
WANTED = HostState(
    links=frozenset(
        ExposedLink(link, tuple((parse_ip(base), length) for base, length in ranges.values()))
        for link, ranges in (("ovh", RANGES), ("ovi", GREEN_RANGES))
    ),
    ports=frozenset(
        PortForward(protocol, Ip(b""), port, parse_ip(one), there, borrowed=False)
        for protocol, port, there in _PORTS
        for one in ONE.values()
    )
    | frozenset(
        PortForward("udp", Ip(b""), port, parse_ip(away), there, borrowed=True)
        for port, there in ((AWAY_UDP_PORT, 53), (AWAY_CLOSED_PORT, 5999))
        for away in AWAY.values()
    ),
    ingress=frozenset(
        IngressForward(
            "tcp",
            AWAY_TCP_PORT,
            (Backend(parse_ip(away), 80, NodeId(bytes(16))),),
            borrowed=frozenset({parse_ip(away)}),
        )
        for away in AWAY.values()
    ),
)
"""The networks and ports of host h1."""
VIRTUAL = frozenset(VirtualAddress("ovh", parse_ip(ip)) for ip in SERVICE.values())
"""The virtual addresses on its networks."""
BLOCK = PortBlock(19_456, 23_551)
"""The ports with which its gate masquerades."""


class GateThere(Gate):
    """The gate of a host; every call is made in its namespace, as its agent's thread is."""

    def __init__(self, host_fd: int, node_id: NodeId, run_dir: Path | None = None) -> None:
        self._host_fd = host_fd
        with netns.inside(host_fd):
            super().__init__(node_id, run_dir)

    def read(self) -> GateState:
        """Return the state of this object's programs."""
        with netns.inside(self._host_fd):
            return super().read()

    def write(self, before: GateState, after: GateState) -> None:
        """Change what is led to the namespace."""
        with netns.inside(self._host_fd):
            super().write(before, after)

    def remove(self) -> None:
        """Remove the programs and the namespace."""
        with netns.inside(self._host_fd):
            super().remove()


@dataclass
class Gated:
    """The hosts and containers, by name, and the gate of host h1."""

    world: World
    names: dict[str, str] = field(default_factory=dict)
    opened: list[GateThere] = field(default_factory=list)

    def run(self, who: str, *command: str) -> str:
        """Run a command in a namespace."""
        return self.world.run(self.names[who], *command)

    def configure(self, who: str, text: str) -> None:
        """Give a namespace rules of nft(8)."""
        path = netns.path_of(self.names[who])
        done = os.memfd_create("rules")
        os.write(done, text.encode())
        self.world.run(str(path.name), "nft", "-f", f"/proc/{os.getpid()}/fd/{done}")
        os.close(done)

    def fd(self, who: str) -> int:
        """Return a new descriptor of a namespace, which the world closes."""
        return self.world.fd(self.names[who])

    def traffic(self) -> Traffic:
        """Return what opens sockets there."""
        return Traffic({who: self.fd(who) for who in self.names})

    @contextmanager
    def hooks(self) -> Iterator[InterfaceHooks]:
        """Give the gate's programs on the host's interfaces, in its namespace."""
        with netns.inside(self.fd("h1")), NetlinkSocket() as host:
            yield hooks_of(host, HookOwner(GATE, NODE))

    def interface(self, link: str, kind: str) -> GatedInterface:
        """Return an interface of the host as the agent's plan has it."""
        with NetlinkSocket(self.fd("h1")) as host:
            found = link_decoder.decode(host.get(link_requests.get_link(link))[0])
        return GatedInterface(link, found.index, Mac(found.mac or bytes(6)), found.mtu, kind)  # type: ignore[arg-type]

    def wanted(self) -> GateState:
        """Return the plan."""
        network, green = self.interface("ovh", "network"), self.interface("ovi", "network")
        with netns.inside(self.fd("h1")):
            own = plan_gate(read_host(), WANTED).gate.own
        gateways = (*GATEWAY.values(), *GREEN_GATEWAY.values())
        assert own >= {parse_ip(each) for each in (*OWN.values(), *gateways)}
        return GateState(
            frozenset(
                {
                    *(network, green),
                    *(self.interface("cable", "outside"), self.interface("lo", "loopback")),
                }
            ),
            own,
            frozenset(
                GatedNetwork(parse_ip(base), length, link.interface_index)
                for link, ranges in ((network, RANGES), (green, GREEN_RANGES))
                for base, length in ranges.values()
            ),
            frozenset(
                {(each.protocol, each.host_port) for each in WANTED.ports | WANTED.ingress}
                | {(protocol, UNTRANSLATED_PORT) for protocol in ("tcp", "udp")}
            ),
            BLOCK,
            frozenset(
                GatedAddress(parse_ip(ip), network.interface_index) for ip in SERVICE.values()
            ),
        )

    def open(self, node_id: NodeId = NODE) -> GateThere:
        """Return a gate, as an agent that starts makes it."""
        self.opened.append(GateThere(self.fd("h1"), node_id))
        return self.opened[-1]

    def pass_over(self, gate: GateThere) -> GateState:
        """Write the plan, with what there is before; return what is read then."""
        gate.write(gate.read(), self.wanted())
        return gate.read()

    def close(self) -> None:
        """Remove the gate, and all namespaces."""
        for gate in self.opened:
            gate.remove()
            gate.close()
        self.world.close()


def _link(gated: Gated, who: str, link: str, other: str, there: str, mtu: int) -> None:
    pair = ("type", "veth", "peer", there, "mtu", str(mtu), "netns", gated.names[other])
    gated.run(who, "ip", "link", "add", link, "mtu", str(mtu), *pair)
    for each, name in ((who, link), (other, there)):
        gated.run(each, "ip", "link", "set", name, "up")


def _address(gated: Gated, who: str, link: str, ipv4: str, ipv6: str) -> None:
    gated.run(who, "ip", "address", "add", ipv4, "dev", link)
    gated.run(who, "ip", "address", "add", ipv6, "dev", link, "nodad")


def _build(gated: Gated) -> None:
    for who in ("h1", "h2", "far", "network", "one", "two", "away", "green"):
        gated.names[who] = gated.world.namespace(who)
    _link(gated, "h1", "cable", "h2", "cable", 1500)
    _link(gated, "h2", "far", "far", "eth0", 1400)
    _address(gated, "h1", "cable", f"{OWN[4]}/24", f"{OWN[6]}/64")
    _address(gated, "h2", "cable", f"{NEAR[4]}/24", f"{NEAR[6]}/64")
    _address(gated, "h2", "far", "198.51.100.1/24", "2001:db8:1::1/64")
    _address(gated, "far", "eth0", f"{FAR[4]}/24", f"{FAR[6]}/64")
    gated.run("network", "ip", "link", "add", "br0", "mtu", "1450", "type", "bridge")
    gated.run("network", "ip", "link", "set", "br0", "up")
    _link(gated, "h1", "ovh", "network", "ovh", 1450)
    _address(gated, "h1", "ovh", f"{GATEWAY[4]}/16", f"{GATEWAY[6]}/64")
    gated.run("network", "ip", "link", "set", "ovh", "master", "br0")
    for who, ips in (("one", ONE), ("two", TWO), ("away", AWAY)):
        _link(gated, who, "eth0", "network", who, 1450)
        gated.run("network", "ip", "link", "set", who, "master", "br0")
        _address(gated, who, "eth0", f"{ips[4]}/16", f"{ips[6]}/64")
    _link(gated, "h1", "ovi", "green", "eth0", 1450)
    _address(gated, "h1", "ovi", f"{GREEN_GATEWAY[4]}/16", f"{GREEN_GATEWAY[6]}/64")
    _address(gated, "green", "eth0", f"{GREEN[4]}/16", f"{GREEN[6]}/64")
    for who, ips in (("one", GATEWAY), ("two", GATEWAY), ("h1", NEAR), ("green", GREEN_GATEWAY),
                     ("far", {4: "198.51.100.1", 6: "2001:db8:1::1"})):  # fmt: skip
        for version in (4, 6):
            gated.run(who, "ip", f"-{version}", "route", "add", "default", "via", ips[version])
    for who in ("h1", "h2"):
        switches = ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        gated.run(who, "sysctl", "-qw", *switches)


def write_rules(gated: Gated, gate: GateThere, wanted: HostState = WANTED) -> None:
    """Write the tables of the host and its gate, as planned by what is read from the host."""
    with netns.inside(gated.fd("h1")):
        plan = plan_gate(read_host(), wanted, BLOCK, VIRTUAL)
        with closing(HostTable(NODE)) as table:
            table.write(wanted, HostForm(plan.outside, is_retiring=False))
    known = gated.wanted()
    assert replace(plan.gate, published=known.published) == known
    with closing(TranslationTable(gate.path)) as inside:
        inside.write(plan.translation)


@contextmanager
def gated_hosts() -> Iterator[Gated]:
    """Give the hosts, with a gate whose rules are written."""
    made = Gated(World())
    try:
        _build(made)
        gate = made.open()
        gate.prepare()
        gate.keep_block(BLOCK)
        assert made.pass_over(gate) == made.wanted()
        made.names["gate"] = gate.path.name
        write_rules(made, gate)
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def gated(_capable: None) -> Iterator[Gated]:
    """Return the hosts, with a gate whose rules are written."""
    with gated_hosts() as made:
        yield made


@pytest.fixture(scope="module")
def traffic(gated: Gated) -> Iterator[Traffic]:
    """Return what opens sockets there, with servers at the usual ports."""
    made = gated.traffic()
    servers = (
        *(("h2", 9000, 9001), ("far", 9000, 9001), ("one", 80, 53), ("away", 80, 53)),
        *(("h1", 20_000, 20_001), ("h1", UNTRANSLATED_PORT, UNTRANSLATED_PORT)),
    )
    for who, tcp, udp in servers:
        made.serve(who, tcp, udp)
    yield made
    made.close()
