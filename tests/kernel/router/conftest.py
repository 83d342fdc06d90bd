"""Hosts with sandboxes of two networks, which a router connects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.planning.inputs import (
    LocalPort,
    PlanInput,
    PolicyRows,
    RemoteEndpoint,
    RoutedNetwork,
)
from overlay.core.dataplane.planning.planner import plan_sandbox
from overlay.core.dataplane.planning.segments import port_name
from overlay.core.dataplane.state import SandboxState
from overlay.core.policy.compiler import PolicyCompiler
from overlay.core.policy.policy import Policy
from overlay.core.policy.population import Population
from overlay.kernel import netns
from overlay.kernel.bpf.fast_path import FastPath
from overlay.kernel.router.link import RouterPeers
from overlay.kernel.sandbox import veth
from overlay.kernel.sandbox.sandbox import Sandbox
from overlay.model import Endpoint, Ip, Network, NodeId, Subnet, Vni, mac_for, parse_ip

if TYPE_CHECKING:
    from tests.kernel.conftest import World


def network(vni: int, name: str, number: int) -> Network:
    """Return a network with a subnet of each family."""
    four = Subnet(parse_ip(f"10.{number}.0.0"), 16, parse_ip(f"10.{number}.0.1"))
    six = Subnet(parse_ip(f"fd00:{number}::"), 64, parse_ip(f"fd00:{number}::1"))
    return Network(Vni(vni), name, (four, six), NodeId(b"A" * 16))


BLUE, RED = network(0x800020, "blue", 32), network(0x800021, "red", 33)
NETWORKS = {each.vni: each for each in (BLUE, RED)}


@dataclass
class RoutedHost:
    """One host: its sandboxes, containers, and which networks a router connects."""

    world: World
    name: str
    underlay: Ip
    fast: bool = True
    sandboxes: dict[Vni, Sandbox] = field(default_factory=dict)
    locals: list[Endpoint] = field(default_factory=list)
    remotes: list[RemoteEndpoint] = field(default_factory=list)
    floods: list[Ip] = field(default_factory=list)
    policies: dict[Vni, tuple[Policy, ...]] = field(default_factory=dict)
    mtus: dict[Vni, int] = field(default_factory=dict)
    is_routed: bool = True
    _compilers: dict[Vni, PolicyCompiler] = field(default_factory=dict)

    def open(self, network: Network) -> None:
        """Create or adopt a network's sandbox, as a new agent does."""
        sandbox_name = self._sandbox_name(network.vni)
        with netns.inside(self.world.fd(self.name)):
            self.sandboxes[network.vni] = Sandbox.open(
                sandbox_name,
                create=True,
                fast_path=FastPath(),
                peers=RouterPeers(network.vni, self._sandbox_name),
            )

    def close(self) -> None:
        """Close the sandboxes."""
        for sandbox in self.sandboxes.values():
            sandbox.close()

    def _sandbox_name(self, vni: Vni) -> str:
        name = f"{self.world.prefix}-{vni:06x}-{self.name[-2:]}"
        if name not in self.world.names:
            self.world.names.append(name)
        return name

    def desired(self, network: Network) -> SandboxState:
        """Return the plan of a network's sandbox."""
        others = (each for each in NETWORKS.values() if each.vni != network.vni)
        given = PlanInput(
            network,
            4789,
            self.underlay,
            self._mtu(network),
            tuple(LocalPort(port_name(e.endpoint_id), 0, e.endpoint_id) for e in self._on(network)),
            self._on(network),
            tuple(each for each in self.remotes if each.endpoint.vni == network.vni),
            tuple(self.floods),
            policy=self._policy(network),
            routed=tuple(
                RoutedNetwork(each.vni, each.subnets, self._mtu(each))
                for each in others
                if self.is_routed and each.vni in self.sandboxes
            ),
        )
        return plan_sandbox(given, fast_path=self.fast, guarded=True)

    def _policy(self, network: Network) -> PolicyRows | None:
        policies = self.policies.get(network.vni)
        if policies is None:
            return None
        remotes = tuple(e.endpoint for e in self.remotes if e.endpoint.vni == network.vni)
        known = tuple((each.name, each.subnets) for each in NETWORKS.values())
        population = Population(network, self._on(network), remotes, networks=known)
        compiler = self._compilers.setdefault(network.vni, PolicyCompiler())
        return compiler.compile(policies, population)

    def _mtu(self, network: Network) -> int:
        return self.mtus.get(network.vni, 1450)

    def _on(self, network: Network) -> tuple[Endpoint, ...]:
        return tuple(each for each in self.locals if each.vni == network.vni)

    def converge(self) -> None:
        """Run a pass over each sandbox, as often as there was something to do."""
        for _ in range(3):
            for vni, sandbox in self.sandboxes.items():
                operations = diff(self.desired(NETWORKS[vni]), sandbox.read(), prune=True)
                assert sandbox.apply(operations) == [], operations
        assert self.differences() == []

    def differences(self) -> list[str]:
        """Return what a further pass would do, as texts."""
        return [
            str(operation)
            for vni, sandbox in self.sandboxes.items()
            for operation in diff(self.desired(NETWORKS[vni]), sandbox.read(), prune=True)
        ]

    def attach(self, network: Network, number: int) -> str:
        """Create a container; return its namespace's name."""
        ips = tuple(Ip(each.base[:-1] + bytes([number])) for each in network.subnets)
        identity = bytes([network.vni & 0xFF, number]) + bytes(6)
        endpoint = Endpoint(identity, network.vni, f"c{number}", mac_for(network.vni, ips[0]), ips)
        name = self.world.namespace(f"c{len(self.world.names)}")
        self.locals.append(endpoint)
        sandbox = self.sandboxes[network.vni]
        gateways = [each.gateway for each in network.subnets]
        veth.attach_interface(
            sandbox,
            port_name=port_name(identity),
            bridge="br0",
            netns_fd=self.world.fd(name),
            ifname=None,
            mac=endpoint.mac,
            addresses=[
                (ip, subnet.prefix_length) for ip, subnet in zip(ips, network.subnets, strict=True)
            ],
            mtu=self._mtu(network),
            gateway=gateways[0],
            further_gateways=gateways[1:],
        )
        return name


BOTH_PATHS = pytest.mark.parametrize(
    "routed_hosts", [True, False], indirect=True, ids=["fast path", "plain"]
)


def is_refused(world: World, namespace: str, address: str, *options: str) -> bool:
    """Return whether a ping is not answered, after a short while."""
    return world.pings(namespace, address, "-W", "0.3", *options) == 0


def meet(*hosts: RoutedHost) -> None:
    """Let hosts know each other's containers, and converge."""
    for host in hosts:
        others = [each for each in hosts if each is not host]
        host.floods = [each.underlay for each in others]
        host.remotes = [
            RemoteEndpoint(NodeId(b"B" * 16), other.underlay, endpoint)
            for other in others
            for endpoint in other.locals
        ]
    for host in hosts:
        host.converge()


@pytest.fixture
def routed_hosts(
    world: World, request: pytest.FixtureRequest
) -> Iterator[tuple[RoutedHost, RoutedHost]]:
    """Return two hosts with sandboxes of both networks, on one underlay; by the fast path."""
    made = []
    with ExitStack() as close:
        for number in range(2):
            name = world.namespace(f"h{number}")
            underlay = parse_ip(f"192.168.56.{11 + number}")
            host = RoutedHost(world, name, underlay, fast=getattr(request, "param", True))
            for each in (BLUE, RED):
                host.open(each)
            close.callback(host.close)
            made.append(host)
        one, two = made
        world.run(
            one.name, "ip", "link", "add", "eth1", "type", "veth", "peer", "eth1", "netns", two.name
        )
        for number, host in enumerate(made):
            address = f"192.168.56.{11 + number}/24"
            world.run(host.name, "ip", "address", "add", address, "dev", "eth1")
            world.run(host.name, "ip", "link", "set", "eth1", "up")
        meet(one, two)
        yield one, two
