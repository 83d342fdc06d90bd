"""Which of this host's ports lead to services, and why others do not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay.agent.exposure.controller import ExposureController
from overlay.agent.exposure.ingress import Ingress
from overlay.agent.exposure.published_ports import PublishedPorts
from overlay.agent.exposure.rules import HostRules
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.event_log import EventLog
from overlay.agent.process.port_ranges import parse_port_ranges
from overlay.agent.state.attachments import Attachments
from overlay.core.dataplane.host_rules import IngressForward
from overlay.core.services.values import Backend, IngressMode, IngressPort, VirtualPort
from overlay.errors import ConflictError
from overlay.kernel.host import port_check
from overlay.model import Ip, NodeId, Vni
from overlay.signals import Signal

BLUE = Vni(1)
OWN, OTHER = NodeId(b"o" * 16), NodeId(b"x" * 16)
HERE, THERE = (Ip(bytes([10, 32, 0, last])) for last in (2, 3))
BACKENDS = (Backend(HERE, 80, OWN), Backend(THERE, 80, OTHER))


def port(number: int = 8080, **fields: Any) -> IngressPort:
    """Return a port of the hosts that leads to a backend here and one on another host."""
    target = VirtualPort(BLUE, Ip(bytes([10, 32, 0, 100])), "tcp", 80, BACKENDS)
    return IngressPort("tcp", number, **{"target": target, **fields})


class Bench:
    """Ports of services over a kernel, rules and records that only note what is asked."""

    def __init__(self, directory: Path, *ports: IngressPort) -> None:
        self.ports = ports
        self.used: set[int] = set()  # by programs of the host
        self.published: dict[int, str] = {}
        self.exposed: set[Vni] = {BLUE}
        self.joined: list[Vni] = []
        self.left: list[Vni] = []
        self.forwards: dict[int, IngressForward] = {}
        self.virtual: dict[Vni, frozenset[Ip]] = {}
        network = SimpleNamespace(vni=BLUE, name="blue")
        endpoint = SimpleNamespace(endpoint_id=b"e" * 8, ips=(HERE,))
        records = SimpleNamespace(
            view=SimpleNamespace(
                services=SimpleNamespace(
                    ingress_ports=lambda _network: self.ports,
                    virtual_ports=lambda _network: [each.target for each in self.ports],
                )
            ),
            networks=lambda: [network],
            network_by_vni=lambda _vni: network,
            own_endpoints=lambda _vni: [endpoint],
        )
        context = SimpleNamespace(
            gossip=SimpleNamespace(node_id=OWN),
            directory=records,
            kernel=self,
            event_log=EventLog(directory),
        )
        attachment = SimpleNamespace(
            netns_path="/proc/7/ns/net", netns_identity=(4, 7), ifname="eth0"
        )
        self.ingress = Ingress(
            cast("NodeContext", context),
            cast("ExposureController", self._exposure()),
            cast(
                "HostRules",
                SimpleNamespace(
                    set_ingress=self._set,
                    set_virtual=self.virtual.update,
                    apply=self._apply,
                    gate=SimpleNamespace(decision=SimpleNamespace(follows_host=True)),
                ),
            ),
            cast("PublishedPorts", SimpleNamespace(holder_of=self._holder_of)),
            cast("Attachments", {b"e" * 8: attachment}),
            parse_port_ranges("80, 1024-65535"),
        )

    def _exposure(self) -> SimpleNamespace:
        def wanted() -> set[Vni]:
            return {each.target.vni for each in self.ports if each.mode == "ingress"}

        async def join(vni: Vni) -> None:
            self.joined.append(vni)

        async def leave(vni: Vni) -> None:
            self.left.append(vni)

        host = SimpleNamespace(exposed_vnis=self.exposed, of=lambda vni: vni in self.exposed)
        return SimpleNamespace(
            interval_s=30.0,
            exposure_changed=Signal(),
            host_endpoints=host,
            eligibility=SimpleNamespace(preferences=SimpleNamespace(ingress_vnis=wanted)),
            expose_for_ingress=join,
            end_ingress=leave,
            refusal_reason=lambda _network: "by overlayd unexpose",
        )

    def _set(self, forwards: Any) -> None:
        self.forwards = {each.host_port: each for each in forwards}

    async def _apply(self) -> None:
        """Write nothing."""

    def _holder_of(self, _protocol: str, number: int, _size: int) -> str | None:
        return self.published.get(number)

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Answer for the kernel: which ports are free, and that replies pass this host."""
        if function is port_check.require_free:
            if args[2] in self.used:
                raise ConflictError("taken", why="a program of the host uses it")
            return None
        return True

    def reconcile(self) -> list[str]:
        """Run a pass; return the faults."""
        asyncio.run(self.ingress.attempt())
        return [fault.text for fault in self.ingress.faults()]


def test_a_port_leads_to_all_backends(tmp_path: Path) -> None:
    """The one of another host is masqueraded, that of this host sees the client."""
    bench = Bench(tmp_path, port())

    assert bench.reconcile() == []
    assert bench.forwards == {
        8080: IngressForward("tcp", 8080, BACKENDS, borrowed=frozenset({THERE}))
    }


def test_virtual_addresses_are_told_of_the_hosts_networks(tmp_path: Path) -> None:
    """Also where a port can't be led; of no other network."""
    bench = Bench(tmp_path, port())
    bench.used = {8080}
    assert bench.reconcile() != []
    assert bench.virtual == {BLUE: {port().target.ip}}
    hidden = Bench(tmp_path, port())
    hidden.exposed.clear()
    hidden.reconcile()
    assert hidden.virtual == {}


def test_the_mode_host_leads_to_backends_here(tmp_path: Path) -> None:
    """And asks for no network where there is none."""
    bench = Bench(tmp_path, port(mode="host"))

    assert bench.reconcile() == []
    assert bench.forwards[8080].backends == BACKENDS[:1]
    elsewhere = replace(port().target, backends=BACKENDS[1:])
    bench.ports = (port(mode="host", target=elsewhere),)
    bench.exposed.clear()
    assert bench.reconcile() == []
    assert (bench.forwards, bench.joined) == ({}, [])


@pytest.mark.parametrize("mode", ["ingress", "host"])
def test_a_backend_that_rests_keeps_its_place(tmp_path: Path, mode: IngressMode) -> None:
    """So nobody else's clients move; but it is none of those that the port leads to."""
    resting = replace(BACKENDS[1], node=OWN, is_resting=True)
    target = replace(port().target, backends=(BACKENDS[0], resting))
    bench = Bench(tmp_path, port(mode=mode, target=target))

    assert bench.reconcile() == []
    assert bench.forwards == {8080: IngressForward("tcp", 8080, target.backends)}
    assert bench.forwards[8080].targets() == [HERE]
    bench.ports = (port(mode=mode, target=replace(target, backends=(resting,))),)
    assert bench.reconcile() == []
    assert bench.forwards == {}


def test_a_conflict_holds_up_no_other_port(tmp_path: Path) -> None:
    """With a program of the host, or a port published here; it is named, and tried again."""
    bench = Bench(tmp_path, port(8080), port(8081), port(8082))
    bench.used, bench.published = {8080}, {8081: "web"}

    assert bench.reconcile() == [
        "port 8080/tcp is not answered here: a program of the host uses it",
        "port 8081/tcp is not answered here: it is published for web",
    ]
    assert bench.forwards.keys() == {8082}
    bench.used, bench.published = {8082}, {}  # as its own rules lead the port away, it is kept
    assert bench.reconcile() == []
    assert bench.forwards.keys() == {8080, 8081, 8082}


def test_a_port_that_the_host_keeps_is_not_led_away(tmp_path: Path) -> None:
    """Any member may publish port 22; nobody may have SSH of this host."""
    bench = Bench(tmp_path, port(22), port(80))

    assert bench.reconcile() == [
        "port 22/tcp is not answered here: cluster_ports does not allow it"
    ]
    (fault,) = bench.ingress.faults()
    assert "add this one to cluster_ports" in fault.hint
    assert bench.forwards.keys() == {80}


def test_the_host_joins_the_network_and_leaves_it(tmp_path: Path) -> None:
    """Until then the port is not answered; the last port of a network takes it away."""
    bench = Bench(tmp_path, port())
    bench.exposed.clear()
    (fault,) = bench.reconcile()
    assert (bench.joined, bench.forwards) == ([BLUE], {})
    assert "network blue is not exposed to this host: by overlayd unexpose" in fault

    bench.ports = ()
    assert bench.reconcile() == []
    assert bench.left == [BLUE]


@pytest.mark.parametrize(
    ("ranges", "sources"),
    [
        (["172.16.0.0/12", "fd00::/8"], ((Ip(bytes([172, 16, 0, 0])), 12),)),
        (["fd00::/8"], None),
    ],
)
def test_clients_are_limited_by_family(
    tmp_path: Path, ranges: list[str], sources: tuple[tuple[Ip, int], ...] | None
) -> None:
    """With ranges of the other family alone, nobody may ask by this one."""
    bench = Bench(tmp_path, port(sources=tuple(map(ip_network, ranges))))

    assert bench.reconcile() == []
    found = bench.forwards.get(8080)
    assert (found.sources if found else None) == sources
