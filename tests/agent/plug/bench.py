"""A member with its plugs, over stand-ins for the kernel that note what happens in which order."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay.agent.dataplane.fabric_table import FabricTable
from overlay.agent.declared.service import DeclaredService
from overlay.agent.gossip.context import NodeContext
from overlay.agent.plug import controller as controller_module
from overlay.agent.plug.controller import PlugController
from overlay.agent.plug.intents import PluggedInterfaces
from overlay.agent.plug.port import PlugPortState
from overlay.agent.records.directory import Directory
from overlay.agent.records.plug_catalog import PlacedPlug, PlugCatalog
from overlay.agent.state.documents import PluggedInterface
from overlay.core.declared.objects import DeclaredObjects
from overlay.core.ipam.address_space import AddressSpace
from overlay.core.plug.election import PlugRole
from overlay.core.plug.records import Machine, Plug
from overlay.core.protocol.records import Participation
from overlay.model import Ip, Mac, Network, NodeId, Subnet, Vni, parse_ip
from overlay.signals import Signal
from tests.agent.conftest import Site

BLUE, RED = Vni(7), Vni(9)
FAR = NodeId(b"far node here..!")
ETH2 = PluggedInterface(BLUE, "eth2", "default")
ETH3 = PluggedInterface(BLUE, "eth3", "hall", number=1)
MACHINE = Machine(Mac(b"\x52\x54\0\0\0\x63"), parse_ip("10.7.0.200"))


class FakeGuard:
    """The table of one port in memory; `log` notes what is done, for all guards of a bench."""

    def __init__(self, port: str, log: list[str]) -> None:
        self.port, self.log = port, log
        self.is_port_open = False
        self.lease_ms = 0
        self.heard_macs: set[Mac] = set()
        self.machines: set[Machine] = set()
        self.failure: Exception | None = None
        self.protected: tuple[set[Mac], set[Ip]] = (set(), set())
        self.is_removed = False
        self.before_open: Callable[[], None] = lambda: None

    def repair(self) -> bool:
        """Fail, if it is to fail."""
        if self.failure is not None:
            raise self.failure
        return False

    def open_port(self, lease_ms: int) -> None:
        """Open."""
        self.before_open()
        if not self.is_port_open:
            self.log.append(f"open {self.port}")
        self.is_port_open, self.lease_ms = True, lease_ms

    def close_port(self) -> None:
        """Close."""
        if self.is_port_open:
            self.log.append(f"close {self.port}")
        self.is_port_open = False

    def is_open(self) -> bool:
        """Return whether frames pass."""
        return self.is_port_open

    def protect(self, macs: Collection[Mac], ips: Collection[Ip]) -> None:
        """Note what is protected."""
        self.protected = (set(macs), set(ips))

    def heard(self) -> frozenset[Mac]:
        """Return whose probes were heard."""
        return frozenset(self.heard_macs)

    def seen(self) -> frozenset[tuple[Mac, Ip]]:
        """Return what was seen."""
        return frozenset(self.machines)

    def refused(self) -> int:
        """Return nothing."""
        return 0

    def remove(self) -> None:
        """Remove the table."""
        self.log.append(f"remove guard {self.port}")
        self.is_removed = True

    def close(self) -> None:
        """Do nothing."""


class FakeSandbox:
    """A sandbox in which all ports are there, unless they are cut."""

    netns_fd = -1

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.socket = self
        self.without_carrier: set[str] = set()

    def transact(self, requests: list[Any]) -> list[Any]:
        """Note that the bridge forgets what it has learned."""
        self.log.append(f"flush {len(requests)}")
        return []

    def apply(self, operations: list[Any]) -> list[Any]:
        """Note what is changed."""
        self.log += map(str, operations)
        return []


class Catalog(PlugCatalog):
    """The records, and the plugs of a far host that a test gives."""

    far: tuple[Plug, ...] = ()
    is_far_live = True

    def plugs(self, vni: Vni | None = None) -> list[PlacedPlug]:
        """Return the far host's plugs as well."""
        found = [PlacedPlug(FAR, plug) for plug in self.far if vni in (None, plug.vni)]
        return [*super().plugs(vni), *found]

    def is_live(self, node_id: NodeId) -> bool:
        """Return whether the far host lives; another one as ever."""
        return self.is_far_live if node_id == FAR else super().is_live(node_id)


class Runtime:
    """The sandbox of a network, after its first pass."""

    def __init__(self, sandbox: FakeSandbox) -> None:
        self.sandbox = sandbox
        self.passes = 1
        self.failures: list[str] = []
        self.stale = False

    @contextlib.asynccontextmanager
    async def change_ports(self, *_names: str) -> AsyncIterator[None]:
        """Do nothing besides."""
        yield


class Reconciler:
    """The sandboxes of blue and red."""

    def __init__(self, sandbox: FakeSandbox, fabric: FabricTable) -> None:
        self.sandbox_closing: Signal[[Vni]] = Signal()
        self.fabric = fabric
        self.runtimes = {vni: Runtime(sandbox) for vni in (BLUE, RED)}

    def runtime(self, vni: Vni) -> Any:
        """Return a sandbox."""
        return self.runtimes.get(vni)

    def is_open(self, vni: Vni) -> bool:
        """Return whether there is one."""
        return vni in self.runtimes

    def mtu_of(self, _network: Network) -> int:
        """Return the usual one."""
        return 1450

    async def reconcile_network(self, vni: Vni) -> None:
        """Do nothing: the ports of this bench are always there, or their runtime says why not."""

    def vtep_of(self, _network: Network, _card: Any) -> Ip:
        """Return an address."""
        return parse_ip("192.0.2.1")


class PlugBench:
    """One member with the networks blue and red; time passes when a test says so."""

    def __init__(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        self.site, self.log, self.now = site, list[str](), 100.0
        self.guards: dict[str, FakeGuard] = {}
        gossip = site.gossip
        objects = DeclaredObjects(gossip.node.store, gossip.signer)
        self.directory = Directory(gossip.node, gossip.node_id, declared=objects)
        kernel = SimpleNamespace(call=self._call)
        real = NodeContext(gossip, self.directory, cast("Any", kernel), site.event_log)
        self.declared = DeclaredService(real, objects)
        self.catalog = Catalog(objects, gossip.node, gossip.node_id)
        self.space = AddressSpace(gossip.node.store, gossip.node_id, outside=self.catalog)
        self.fabric = FabricTable()
        self.plugged = PluggedInterfaces(site.state, self.fabric)
        self.sandbox = FakeSandbox(self.log)
        self.reconciler = Reconciler(self.sandbox, self.fabric)
        self.gossip = SimpleNamespace(
            node=SimpleNamespace(caught_up=True, membership=gossip.node.membership),
            node_id=gossip.node_id,
            may_write=True,
            transport=SimpleNamespace(now=lambda: self.now),
            publish=gossip.publish,
        )
        self.context = replace_gossip(real, self.gossip)
        self.create(BLUE, "blue", "10.7.0.0")
        self.create(RED, "red", "10.9.0.0")
        monkeypatch.setattr(controller_module, "PlugGuard", self._guard)
        monkeypatch.setattr(PlugPortState, "_port", lambda port: self._port(port.name))
        monkeypatch.setattr("overlay.agent.plug.port.prober.send", self._probe)
        self.questions: list[bytes] = []
        self.probe_failure: OSError | None = None
        self.controller = self.agent()

    def agent(self) -> PlugController:
        """Return the controller of an agent that has just started, on the same kernel."""
        return PlugController(
            self.context,
            self.declared,
            self.catalog,
            self.plugged,
            cast("Any", self.reconciler),
            self.space,
        )

    def create(self, vni: Vni, name: str, base: str) -> Network:
        """Write a network."""
        subnet = Subnet(parse_ip(base), 24, parse_ip(base[:-1] + "1"))
        network = Network(vni, name, (subnet,), self.site.gossip.node_id)
        self.site.write(network, Participation(vni, forwards=False))
        return network

    async def check(self, seconds: float = 0.0) -> None:
        """Let time pass, and check all plugs."""
        self.now += seconds
        await self.controller.reconcile()

    async def opened(self, *plugs: PluggedInterface) -> None:
        """Plug interfaces, and have their ports open one after the other."""
        for plug in plugs:
            self.plugged.put(plug)
        await self.check()
        for _ in plugs:
            await self.check(10.0)

    def role(self, plug: PluggedInterface) -> PlugRole:
        """Return the role of a plug."""
        return self.controller.ports[plug].election.standing.role

    def record(self, segment: str = "default") -> Plug | None:
        """Return what the records say of this host's plug on blue."""
        found = [each for each in self.own_records() if isinstance(each, Plug)]
        return next((each for each in found if each.segment == segment), None)

    def own_records(self) -> list[Any]:
        """Return all records of this host."""
        return list(self.catalog.names_of(self.site.gossip.node_id).values())

    async def _call(self, function: Callable[..., Any], *args: Any, **named: Any) -> Any:
        return function(*args, **named)

    def _guard(self, _netns_fd: int, port: str) -> FakeGuard:
        return self.guards.setdefault(port, FakeGuard(port, self.log))

    def _port(self, name: str) -> tuple[int, bool]:
        return 5, name not in self.sandbox.without_carrier

    def _probe(self, _netns_fd: int, _index: int, frames: Sequence[bytes]) -> None:
        if self.probe_failure is not None:
            raise self.probe_failure
        self.questions += frames[1:]


def replace_gossip(context: NodeContext, gossip: Any) -> NodeContext:
    """Return a context whose clock and permission to write a test sets."""
    return replace(context, gossip=gossip)


def far_plug(**changes: Any) -> Plug:
    """Return a plug of another host on the default segment of blue."""
    return replace(Plug(BLUE, "eth9", is_ready=True), **changes)
