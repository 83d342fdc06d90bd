"""Containers that hold an outdated MAC of an address receive the new one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator

import pytest
from overlay.agent.dataplane.reconcile_pass import run_pass
from overlay.agent.dataplane.sandbox_runtime import SandboxRuntime
from overlay.core.dataplane.mac_changes import MacChange
from overlay.core.dataplane.planning.inputs import LocalPort, PlanInput, RemoteEndpoint
from overlay.kernel.bpf.fast_path import FastPath
from overlay.kernel.sandbox import gratuitous_arp, veth
from overlay.model import Endpoint, Ip, Mac, Network, NodeId, Subnet, ip_text, mac_text, parse_ip
from tests.kernel.conftest import MTU, VNI, Capture, World

pytestmark = pytest.mark.netns
FORMER, LATER = Mac(bytes.fromhex("020000000aaa")), Mac(bytes.fromhex("020000000bbb"))
ASKER, FAR4, FAR6 = parse_ip("10.32.0.2"), parse_ip("10.32.0.9"), parse_ip("fd40::9")
VTEP, OTHER = parse_ip("192.168.56.12"), NodeId(b"o" * 16)
NETWORK = Network(
    VNI,
    "blue",
    (
        Subnet(parse_ip("10.32.0.0"), 16, parse_ip("10.32.0.1")),
        Subnet(parse_ip("fd40::"), 64, parse_ip("fd40::1")),
    ),
    NodeId(b"c" * 16),
)


class Place:
    """A reconciled sandbox, and a container in it that pings."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sandbox = world.host().sandbox
        self.sandbox.fast_path = FastPath()
        self.runtime = SandboxRuntime(self.sandbox, self.sandbox.monitor(), asyncio.Lock())
        self.ports: list[LocalPort] = []
        self.locals: list[Endpoint] = []
        self.remotes: list[Endpoint] = []
        self.passes()
        self.asker = self.plug(Mac(bytes.fromhex("020000000001")), ASKER, parse_ip("fd40::2"))
        self.passes()

    def plug(self, mac: Mac, *ips: Ip) -> str:
        """Create a container with an interface, and plan for it.

        Returns its namespace.
        """
        number = len(self.world.names)
        space = self.world.namespace(f"c{number}")
        port = LocalPort(f"p{number}", 0, bytes([number]) * 8)
        self.runtime.reconnected.add(port.name)
        veth.attach_interface(
            self.sandbox,
            port_name=port.name,
            bridge="br0",
            netns_fd=self.world.fd(space),
            ifname=None,
            mac=mac,
            addresses=[(ip, 16 if len(ip) == 4 else 64) for ip in ips],
            mtu=MTU,
            gateway=None,
        )
        self.ports.append(port)
        self.locals.append(Endpoint(port.endpoint_id, VNI, f"c{number}", mac, ips))
        return space

    def unplug(self) -> None:
        """Remove the last container, as a detach does."""
        veth.detach_interface(self.sandbox, self.ports.pop().name)
        self.locals.pop()

    def remote(self, mac: Mac) -> Endpoint:
        """Return another node's endpoint with that MAC."""
        return Endpoint(b"far" + mac[:5], VNI, "far", mac, (FAR4, FAR6))

    def passes(self) -> None:
        """Run a pass, which must succeed."""
        remotes = tuple(RemoteEndpoint(OTHER, VTEP, endpoint) for endpoint in self.remotes)
        given = PlanInput(
            NETWORK, 4789, parse_ip("192.168.56.11"), MTU,
            tuple(self.ports), tuple(self.locals), remotes, (VTEP,),
        )  # fmt: skip
        assert run_pass(self.runtime, given, prune=True, read=False).failures == []

    def asks(self) -> None:
        """Let the container resolve the addresses."""
        for ip in (FAR4, FAR6):
            self.world.pings(self.asker, ip_text(ip))
        self.world.wait_until(lambda: self.believed() == [FORMER, FORMER], "the former MAC")

    def believed(self) -> list[Mac]:
        """Return the MACs by which the container knows the two addresses."""
        shown = json.loads(self.world.run(self.asker, "ip", "-j", "neigh"))
        macs = {each["dst"]: each.get("lladdr", "") for each in shown}
        found = [macs.get(ip_text(ip), "") for ip in (FAR4, FAR6)]
        return [Mac(bytes.fromhex(text.replace(":", ""))) for text in found]


@pytest.fixture
def place(world: World) -> Iterator[Place]:
    """Return a sandbox with a container in it."""
    made = Place(world)
    yield made
    made.runtime.monitor.close()


def told(place: Place) -> None:
    """Wait until the container knows the new MAC without a request."""
    place.world.wait_until(
        lambda: place.believed() == [LATER, LATER], f"{mac_text(LATER)} is announced", 3
    )


def test_a_remote_address_with_another_mac_is_announced(place: Place) -> None:
    """The MAC changes in one pass, as when two hosts' records are merged."""
    place.remotes = [place.remote(FORMER)]
    place.passes()
    place.asks()
    place.remotes = [place.remote(LATER)]
    place.passes()
    told(place)


def test_an_address_that_was_free_for_a_while_is_announced(place: Place) -> None:
    """The previous MAC is remembered after its row is gone."""
    place.remotes = [place.remote(FORMER)]
    place.passes()
    place.asks()
    place.remotes = []
    place.passes()
    place.remotes = [place.remote(LATER)]
    place.passes()
    told(place)


def test_an_address_that_moves_here_is_announced(place: Place) -> None:
    """An address moves here from another host.

    A container beside it knows the old MAC.
    """
    place.remotes = [place.remote(FORMER)]
    place.passes()
    place.asks()
    place.remotes = []
    place.plug(LATER, FAR4, FAR6)
    place.passes()
    told(place)
    assert place.world.pings(place.asker, ip_text(FAR4)) == 1
    assert place.world.pings(place.asker, ip_text(FAR6)) == 1


def test_a_local_address_with_another_mac_is_found_by_all(place: Place) -> None:
    """The container beside it and the bridge both learn the new MAC."""
    place.plug(FORMER, FAR4, FAR6)
    place.passes()
    place.asks()
    sandbox = place.sandbox.name
    assert place.world.pings(sandbox, ip_text(FAR4)) == 1, "the bridge knows the old one too"
    place.unplug()
    place.passes()
    place.plug(LATER, FAR4, FAR6)
    place.passes()
    told(place)
    assert place.world.pings(sandbox, ip_text(FAR4)) == 1
    assert place.world.pings(place.asker, ip_text(FAR6)) == 1


def test_other_hosts_receive_no_announcement(
    place: Place, capture: Callable[[str, str], Capture]
) -> None:
    """The bridge does not flood an announcement into the VXLAN."""
    seen = capture(place.sandbox.name, "vxlan0")
    at_asker = capture(place.asker, "eth0")
    for ip in (FAR4, FAR6):
        place.sandbox.announce([MacChange("br0", ip, LATER, False)])
    frames: list[bytes] = []

    def heard() -> bool:
        frames.extend(at_asker.frames())
        return {gratuitous_arp.announcement_frame(ip, LATER) for ip in (FAR4, FAR6)} <= set(frames)

    place.world.wait_until(heard, "both announcements in the container")
    assert [each for each in seen.frames() if bytes(LATER) in each] == []


def test_an_unchanged_mac_is_not_announced(
    place: Place, capture: Callable[[str, str], Capture]
) -> None:
    """Neither a new address nor one that returns unchanged is announced.

    A change is announced.
    """
    at_asker = capture(place.asker, "eth0")
    for remotes in ([FORMER], [], [FORMER], [LATER]):
        place.remotes = [place.remote(mac) for mac in remotes]
        place.passes()
    frames: list[bytes] = []

    def heard() -> bool:
        frames.extend(at_asker.frames())
        return gratuitous_arp.announcement_frame(FAR6, LATER) in frames

    place.world.wait_until(heard, "the change")
    assert [each for each in frames if bytes(FORMER) in each] == []


def test_a_missing_bridge_is_ignored(place: Place) -> None:
    """Without an announcement, the containers' entries expire."""
    place.sandbox.announce([MacChange("br7", FAR4, LATER, True)])
    place.passes()
