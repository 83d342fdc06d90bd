"""Two hosts whose sandboxes are as the planner has them from the records of their containers."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.planning.inputs import LocalPort, PlanInput, RemoteEndpoint
from overlay.core.dataplane.planning.planner import plan_sandbox
from overlay.core.dataplane.planning.ports import required_hooks
from overlay.core.dataplane.planning.segments import port_name
from overlay.core.dataplane.port_security import guard_row
from overlay.core.dataplane.state import SandboxState
from overlay.core.vlan.vlans import port_mtu, vlans_of
from overlay.kernel import netns
from overlay.kernel.bpf.fast_path import FastPath
from overlay.kernel.sandbox import veth
from overlay.model import Endpoint, Network, NodeId, Subnet, ip_text, mac_for, parse_ip
from tests.kernel.conftest import MTU, VNI

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.kernel.conftest import Capture, Host, World

_LABEL = re.compile(rb"<[^<>]+>")
SUBNETS = (
    Subnet(parse_ip("10.32.0.0"), 16, parse_ip("10.32.0.1")),
    Subnet(parse_ip("fd32::"), 64, parse_ip("fd32::1")),
)
Labels = tuple[tuple[str, str], ...]


@dataclass
class Guest:
    """A container on a planned host."""

    namespace: str
    endpoint: Endpoint
    host: int

    @property
    def port(self) -> str:
        """The sandbox's end of its interface."""
        return port_name(self.endpoint.endpoint_id)

    def address(self, family: int) -> str:
        """Return its address of a family, 4 or 6."""
        return ip_text(self.endpoint.ips[family == 6])


@dataclass
class PlannedHosts:
    """Two hosts on one underlay, and the containers of one network on them."""

    world: World
    fast: bool
    labels: Labels = ()  # of the network
    hosts: list[Host] = field(default_factory=list)
    guests: list[Guest] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.hosts = [self.world.host(f"192.168.56.1{number}") for number in (1, 2)]
        for host in self.hosts:
            host.sandbox.fast_path = FastPath()
        self.world.pair(*self.hosts)
        self.converge()

    @property
    def network(self) -> Network:
        """The network."""
        return Network(VNI, "blue", SUBNETS, NodeId(bytes(16)), labels=self.labels)

    def attach(self, number: int, *labels: tuple[str, str]) -> Guest:
        """Attach a container to a host, the first of which is 0."""
        order = len(self.guests) + 2
        ips = (parse_ip(f"10.32.0.{order}"), parse_ip(f"fd32::{order}"))
        endpoint = Endpoint(
            bytes([order]) * 8, VNI, f"c{order}", mac_for(VNI, ips[0]), ips, labels=labels
        )
        host, namespace = self.hosts[number], self.world.namespace(f"c{order}")
        guest = Guest(namespace, endpoint, number)
        veth.attach_interface(
            host.sandbox,
            port_name=guest.port,
            bridge="br0",
            netns_fd=self.world.fd(namespace),
            ifname=None,
            mac=endpoint.mac,
            addresses=[(ips[0], 16), (ips[1], 64)],
            mtu=port_mtu(MTU, vlans_of(endpoint)),
            gateway=SUBNETS[0].gateway,
            further_gateways=[SUBNETS[1].gateway],
            allowed=guard_row(self.network, guest.port, endpoint),
            hooks=tuple(
                required_hooks(
                    self.network,
                    LocalPort(guest.port, 0, endpoint.endpoint_id),
                    vlans_of(endpoint),
                    is_policed=False,
                )
            ),
        )
        self.guests.append(guest)
        self.converge()
        return guest

    def desired(self, number: int) -> SandboxState:
        """Return the plan of a host."""
        here = [each for each in self.guests if each.host == number]
        there = [each for each in self.guests if each.host != number]
        other = self.hosts[1 - number].underlay
        given = PlanInput(
            self.network,
            4789,
            self.hosts[number].underlay,
            MTU,
            tuple(LocalPort(each.port, 0, each.endpoint.endpoint_id) for each in here),
            tuple(each.endpoint for each in here),
            tuple(RemoteEndpoint(NodeId(bytes(16)), other, each.endpoint) for each in there),
            (other,),
        )
        return plan_sandbox(given, fast_path=self.fast, guarded=True)

    def converge(self) -> None:
        """Run a pass on both hosts; a second one has nothing to do."""
        for number, host in enumerate(self.hosts):
            desired = self.desired(number)
            failures = host.sandbox.apply(diff(desired, host.sandbox.read(), prune=True))
            assert failures == []
            assert [str(each) for each in diff(desired, host.sandbox.read(), prune=True)] == []

    def reaches(self, source: Guest, target: Guest, family: int) -> bool:
        """Return whether a ping is answered."""
        return self.world.pings(source.namespace, target.address(family), f"-{family}") == 1

    def misses(self, source: Guest, target: Guest, family: int) -> bool:
        """Return whether pings are not answered, within the time that others' replies take."""
        words = (target.address(family), f"-{family}", "-W", "0.1")
        return self.world.pings(source.namespace, *words, count=2) == 0

    def send(self, source: Guest, *frames: bytes) -> None:
        """Send frames from a container's interface, as they are."""
        with (
            netns.inside(self.world.fd(source.namespace)),
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw,
        ):
            raw.bind(("eth0", 0))
            for frame in frames:
                raw.send(frame)

    def arrived(
        self,
        capture: Callable[[str, str], Capture],
        targets: Sequence[Guest],
        sender: Guest,
        frames: Sequence[bytes],
        end: tuple[Guest, bytes],
    ) -> list[set[bytes]]:
        """Return the labels of the frames that arrive at containers, as `<label>` in the frame.

        `end` is a container, and a frame with the label `<end>` that it sends last to all.
        """
        captures = [capture(target.namespace, "eth0") for target in targets]
        self.send(sender, *frames)
        found: list[set[bytes]] = []
        for each in captures:
            labels: set[bytes] = set()

            def has_ended(each: Capture = each, labels: set[bytes] = labels) -> bool:
                self.send(end[0], end[1])
                labels.update(label for frame in each.frames() for label in _LABEL.findall(frame))
                return b"<end>" in labels

            self.world.wait_until(has_ended, "the last frame")
            found.append(labels - {b"<end>"})
        return found
