"""A plugged interface passes permitted frames, and the kernel notes the machines behind it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.link_state import PlugPort
from overlay.core.dataplane.operations import PutLink
from overlay.core.dataplane.state import SandboxState
from overlay.core.plug.probe import probe_frame, probe_mac
from overlay.core.plug.resolution import resolution_frame
from overlay.errors import ConflictError, NotFoundError, OverlayError
from overlay.kernel import netns
from overlay.kernel.host import macvlan
from overlay.kernel.netlink.link_lookup import find_link
from overlay.kernel.plug import prober
from overlay.kernel.plug.guard import PlugGuard
from overlay.kernel.plug.interface import require_pluggable
from overlay.lab.frames import BROADCAST, arp, ethernet, icmpv6, packet_frame, udp
from overlay.model import Mac, NodeId, gateway_mac, ip_text, mac_for, parse_ip

if TYPE_CHECKING:
    from tests.kernel.conftest import Capture, Host, World

pytestmark = pytest.mark.netns
OUTSIDE_MAC = Mac(bytes.fromhex("525400000099"))
OUTSIDE, OUTSIDE6 = parse_ip("10.32.0.200"), parse_ip("fd32::200")
INSIDE, INSIDE6 = parse_ip("10.32.0.2"), parse_ip("fd32::2")
SPANNING_TREE = bytes.fromhex("0180c2000000")
ALL_NODES = parse_ip("ff02::1")
VLAN = 0x8100


class Wire:
    """A host with a container and the interface eth2, whose other end is a machine outside."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.host: Host = world.host()
        assert self.host.converge() == []
        self.container = self.host.attach(INSIDE)
        self.inside_mac = mac_for(self.host.vni, INSIDE)
        self.machine = world.namespace("machine")
        cable = ("eth2", "type", "veth", "peer", "eth0", "netns", self.machine)
        world.run(self.host.name, "ip", "link", "add", *cable)
        world.run(self.host.name, "ip", "link", "set", "eth2", "up")
        address = ("address", "add", f"{ip_text(OUTSIDE)}/16", "dev", "eth0")
        world.run(self.machine, "ip", "link", "set", "eth0", "address", OUTSIDE_MAC.hex(":"), "up")
        world.run(self.machine, "ip", *address)
        self.desired = self._desired()
        assert self.converge() == []
        self.guard = PlugGuard(self.host.sandbox.netns_fd, "plug0")

    def _desired(self, parent: str = "eth2") -> SandboxState:
        found = self.host.desired()
        port = PlugPort("plug0", parent, self.host.mtu, "br0")
        return SandboxState({**found.links, "plug0": port}, found.rows)

    def converge(self) -> list[str]:
        """Make the sandbox what it should be; return what the kernel refused, and what differs."""
        sandbox = self.host.sandbox
        with netns.inside(self.world.fd(self.host.name)):
            failed = sandbox.apply(diff(self.desired, sandbox.read(), prune=True))
        left = diff(self.desired, sandbox.read(), prune=True)
        return [each.reason for each in failed] + [str(each) for each in left]

    def send(self, *frames: bytes, namespace: str = "", interface: str = "eth0") -> None:
        """Send frames from outside, or from another namespace."""
        with (
            netns.inside(self.world.fd(namespace or self.machine)),
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw,
        ):
            raw.bind((interface, 0))
            for frame in frames:
                raw.send(frame)

    def answers(self) -> bool:
        """Return whether the container answers a machine outside."""
        return self.world.pings(self.machine, ip_text(INSIDE)) == 1


@pytest.fixture
def wire(world: World) -> Iterator[Wire]:
    """Return a plugged interface whose port is closed."""
    made = Wire(world)
    yield made
    made.guard.close()


def arriving(
    wire: Wire, watch: Capture, frames: dict[str, bytes], fence: bytes, sender: str = ""
) -> set[str]:
    """Return the names of the frames that arrive, before one that certainly does."""
    wire.send(*frames.values(), fence, namespace=sender)
    seen: list[bytes] = []

    def is_over() -> bool:
        seen.extend(watch.frames())
        return fence in seen

    wire.world.wait_until(is_over, "the fence")
    return {name for name, frame in frames.items() if frame in seen}


def test_a_port_is_closed_until_it_is_opened(wire: Wire) -> None:
    """And again when it is closed, or when nobody renews its lease; the interface stays."""
    assert not wire.answers()
    wire.guard.open_port(0)
    wire.world.wait_until(wire.answers, "the container to answer")
    wire.guard.open_port(500)
    wire.world.wait_until(lambda: not wire.guard.is_open(), "the lease to end")
    assert not wire.answers()
    wire.guard.open_port(60_000)
    wire.guard.open_port(60_000)
    wire.world.wait_until(wire.answers, "the container to answer")
    wire.guard.close_port()
    assert not wire.answers()
    assert "eth2" in wire.world.run(wire.host.name, "ip", "link", "show", "eth2")


def test_the_next_agent_takes_an_open_port_over(wire: Wire) -> None:
    """It stays open, and what is protected stays known."""
    wire.guard.open_port(0)
    wire.guard.protect({wire.inside_mac}, {INSIDE})

    later = PlugGuard(wire.host.sandbox.netns_fd, "plug0")
    try:
        assert later.is_open()
        assert not later.repair()
        later.protect({wire.inside_mac}, {INSIDE, INSIDE6})
        wire.world.wait_until(wire.answers, "the container to answer")
    finally:
        later.close()


def test_a_deleted_guard_comes_back_closed(wire: Wire) -> None:
    """With all that it protects."""
    wire.guard.protect({wire.inside_mac}, {INSIDE})
    wire.guard.open_port(0)
    sandbox = wire.host.sandbox.name
    wire.world.run(sandbox, "nft", "delete", "table", "bridge", "overlayd_plug0")

    assert wire.guard.repair()
    assert not wire.guard.is_open()
    shown = wire.world.run(sandbox, "nft", "list", "set", "bridge", "overlayd_plug0", "ours4")
    assert "10.32.0.2" in shown


def hostile_frames(wire: Wire) -> dict[str, bytes]:
    """Return what no machine outside may send, by name."""
    mac, near, own = OUTSIDE_MAC, wire.inside_mac, parse_ip("10.32.0.9")
    advertised = bytes(4) + INSIDE6 + b"\2\1" + mac
    datagram = udp(OUTSIDE, INSIDE, (67, 68), b"offer")
    return {
        "spanning tree": ethernet(SPANNING_TREE, mac, 0x88B6, bytes(46)),
        "lldp": ethernet(bytes.fromhex("0180c200000e"), mac, 0x88CC, bytes(46)),
        "not IP": ethernet(BROADCAST, mac, 0x88B6, bytes(46)),
        "tagged": ethernet(BROADCAST, mac, VLAN, b"\0\7\x08\6" + bytes(46)),
        "a container's MAC": packet_frame(near, near, udp(OUTSIDE, INSIDE, (5, 6), b"x")),
        "a container's address": packet_frame(near, mac, udp(own, INSIDE, (5, 6), b"x")),
        "a container's ARP": ethernet(BROADCAST, mac, 0x0806, arp((mac, own), (bytes(6), own))),
        "a container's MAC in ARP": ethernet(
            BROADCAST, mac, 0x0806, arp((near, OUTSIDE), (bytes(6), OUTSIDE))
        ),
        "dhcp offer": packet_frame(near, mac, datagram),
        "router advertisement": packet_frame(
            near, mac, icmpv6(OUTSIDE6, ALL_NODES, 134, bytes(12))
        ),
        "redirect": packet_frame(near, mac, icmpv6(OUTSIDE6, ALL_NODES, 137, bytes(36))),
        "a container's advertisement": packet_frame(
            near, mac, icmpv6(OUTSIDE6, ALL_NODES, 136, advertised)
        ),
        "a container's IPv6": packet_frame(near, mac, icmpv6(INSIDE6, ALL_NODES, 128, bytes(4))),
    }


def test_machines_outside_cannot_pose_as_others(
    wire: Wire, capture: Callable[[str, str], Capture]
) -> None:
    """Neither as a container or gateway, nor as a switch, router or DHCP server."""
    wire.guard.protect({wire.inside_mac}, {parse_ip("10.32.0.9"), INSIDE6})
    wire.guard.open_port(0)
    watch = capture(wire.container, "eth0")
    frames = hostile_frames(wire)
    good = packet_frame(wire.inside_mac, OUTSIDE_MAC, udp(OUTSIDE, INSIDE, (5, 6), b"fence"))

    assert arriving(wire, watch, frames, good) == set()
    assert wire.guard.refused() >= len(frames) - 2


def test_a_closed_port_hears_probes_only(wire: Wire) -> None:
    """They come no further, and the machines behind it are not learned."""
    mac = probe_mac(NodeId(b"x" * 16), wire.host.vni, "default")
    wire.send(probe_frame(mac))
    wire.send(
        ethernet(BROADCAST, OUTSIDE_MAC, 0x0806, arp((OUTSIDE_MAC, OUTSIDE), (bytes(6), INSIDE)))
    )

    wire.world.wait_until(lambda: mac in wire.guard.heard(), "the probe")
    assert wire.guard.heard() == {mac}
    assert wire.guard.seen() == set()
    fdb = wire.world.run(wire.host.sandbox.name, "bridge", "fdb", "show", "dev", "plug0")
    assert OUTSIDE_MAC.hex(":") not in fdb


def test_a_silent_machine_answers_the_gateway(wire: Wire) -> None:
    """By both families, and is seen; what it answers goes to this host alone."""
    silent, silent6 = parse_ip("10.32.0.201"), parse_ip("fd32::201")
    inside = ("ip", "address", "add")
    wire.world.run(wire.machine, *inside, f"{ip_text(silent)}/16", "dev", "eth0")
    wire.world.run(wire.machine, *inside, f"{ip_text(silent6)}/64", "dev", "eth0", "nodad")
    wire.guard.open_port(0)
    assert not {silent, silent6} & {ip for _, ip in wire.guard.seen()}
    index = find_link(wire.host.sandbox.socket, "plug0")
    mac = gateway_mac(wire.host.vni, 0)
    asked = ((parse_ip("10.32.0.1"), silent), (parse_ip("fd32::1"), silent6))
    frames = [resolution_frame(mac, *pair) for pair in asked]

    def are_seen() -> bool:
        prober.send(wire.host.sandbox.netns_fd, index, frames)
        return {silent, silent6} <= {ip for _, ip in wire.guard.seen()}

    wire.world.wait_until(are_seen, "its addresses")


def test_probes_leave_by_a_closed_port(wire: Wire, capture: Callable[[str, str], Capture]) -> None:
    """The kernel sends them although nothing else passes."""
    frame = probe_frame(probe_mac(NodeId(b"y" * 16), wire.host.vni, "default"))
    watch = capture(wire.machine, "eth0")
    index = find_link(wire.host.sandbox.socket, "plug0")

    prober.send(wire.host.sandbox.netns_fd, index, [frame])
    wire.world.wait_until(lambda: frame in watch.frames(), "the probe")


def test_addresses_outside_are_seen(wire: Wire) -> None:
    """By ARP, neighbor discovery, and what follows; not those of routed packets."""
    wire.guard.open_port(0)
    far, near = parse_ip("203.0.113.5"), wire.inside_mac
    advertised = bytes(4) + OUTSIDE6 + b"\2\1" + OUTSIDE_MAC
    wire.send(
        packet_frame(near, OUTSIDE_MAC, udp(far, INSIDE, (5, 6), b"x")),
        ethernet(BROADCAST, OUTSIDE_MAC, 0x0806, arp((OUTSIDE_MAC, bytes(4)), (bytes(6), INSIDE))),
        packet_frame(near, OUTSIDE_MAC, icmpv6(OUTSIDE6, ALL_NODES, 136, advertised)),
    )
    wire.world.wait_until(wire.answers, "the container to answer")

    both = {(OUTSIDE_MAC, OUTSIDE), (OUTSIDE_MAC, OUTSIDE6)}
    wire.world.wait_until(lambda: both <= wire.guard.seen(), "both addresses")
    assert (OUTSIDE_MAC, far) not in wire.guard.seen()
    assert (OUTSIDE_MAC, bytes(4)) not in wire.guard.seen()


def test_nothing_but_packets_leaves(wire: Wire, capture: Callable[[str, str], Capture]) -> None:
    """Of an open port: no frames of switches, and none that is neither IP nor ARP."""
    wire.guard.open_port(0)
    watch = capture(wire.machine, "eth0")
    mac = wire.inside_mac
    frames = {
        "spanning tree": ethernet(SPANNING_TREE, mac, 0x88B6, bytes(46)),
        "not IP": ethernet(BROADCAST, mac, 0x88B6, bytes(46)),
        "tagged": ethernet(BROADCAST, mac, VLAN, b"\0\7\x08\6" + bytes(46)),
    }
    fence = ethernet(BROADCAST, mac, 0x0806, arp((mac, INSIDE), (bytes(6), OUTSIDE)))
    assert arriving(wire, watch, frames, fence, wire.container) == set()


def test_the_port_is_read_repaired_and_replaced(wire: Wire) -> None:
    """Whatever is done to it; without its interface, the kernel says so."""
    sandbox = wire.host.sandbox.name
    wire.world.run(sandbox, "ip", "link", "set", "plug0", "nomaster")
    assert wire.converge() == []
    wire.world.run(sandbox, "ip", "link", "delete", "plug0")
    assert wire.converge() == []
    wire.world.run(sandbox, "ip", "link", "set", "plug0", "alias", "overlayd")
    assert wire.converge() == []
    wire.desired = wire._desired("eth9")
    found = wire.converge()
    assert found[0] == "this host has no interface eth9"
    wire.desired = wire.host.desired()
    assert wire.converge() == []


def test_a_removed_sandbox_gives_the_interface_back(wire: Wire) -> None:
    """It is where it was, and another program may use it at once."""
    wire.host.sandbox.destroy()

    wire.world.run(wire.host.name, "ip", "link", "add", "mine", "link", "eth2", "type", "macvlan")
    assert "plug0" not in wire.world.run(wire.host.name, "ip", "link")


@pytest.mark.parametrize("end", ["destroyed", "shut and destroyed", "opened again"])
def test_no_count_is_left_on_the_interface(wire: Wire, end: str) -> None:
    """A bridge takes the interface afterwards: its count of who wants all multicast is 0."""
    run, sandbox = wire.world.run, wire.host.sandbox
    if end != "destroyed":
        port = wire.desired.links["plug0"]
        assert isinstance(port, PlugPort)
        shut = {**wire.desired.links, "plug0": port._replace(master="")}
        opened, wire.desired = wire.desired, SandboxState(shut, wire.desired.rows)
        assert wire.converge() == []
        if end == "opened again":
            wire.desired = opened
            assert wire.converge() == []
    sandbox.destroy()

    assert " allmulti 0 " in run(wire.host.name, "ip", "-d", "link", "show", "eth2")
    run(wire.host.name, "ip", "link", "add", "mine", "type", "bridge")
    run(wire.host.name, "ip", "link", "set", "eth2", "master", "mine")


def test_an_unplugged_port_leaves_no_count(wire: Wire) -> None:
    """Deleted alone, the port is down before the bridge lets go of it."""
    wire.desired = wire.host.desired()
    assert wire.converge() == []

    assert " allmulti 0 " in wire.world.run(wire.host.name, "ip", "-d", "link", "show", "eth2")


def test_an_interface_that_is_in_use_is_refused(wire: Wire) -> None:
    """By another program, by the host, or because it carries too little."""
    run, name = wire.world.run, wire.host.name
    for device in ("add0", "mtu0", "port0"):
        run(name, "ip", "link", "add", device, "type", "veth")
    run(name, "ip", "address", "add", "192.0.2.1/24", "dev", "add0")
    run(name, "ip", "link", "set", "mtu0", "mtu", "1400")
    run(name, "ip", "link", "add", "bridge0", "type", "bridge")
    run(name, "ip", "link", "set", "port0", "master", "bridge0")
    with netns.inside(wire.world.fd(name)):
        for device, why in (
            ("add0", "has the address 192.0.2.1"),
            ("mtu0", "packets of 1400 bytes"),
            ("port0", "port of a bridge"),
            ("bridge0", "is a bridge device"),
        ):
            with pytest.raises(ConflictError, match=why):
                require_pluggable(device, 1450, force=False)
        require_pluggable("add0", 1450, force=True)
        with pytest.raises(NotFoundError):
            require_pluggable("none0", 1450, force=False)
    wire.desired = wire._desired("port0")
    assert "another program uses it" in wire.converge()[0]


def test_a_vlan_is_made_or_its_module_named(wire: Wire) -> None:
    """By kernels with 802.1Q; the others say what to load, and leave nothing behind."""
    refusal: OverlayError | None = None
    with netns.inside(wire.world.fd(wire.host.name)):
        try:
            macvlan.ensure_parent("eth2.100")
            require_pluggable("eth2.100", wire.host.mtu, force=False)
        except OverlayError as error:
            refusal = error
        macvlan.release_parents(frozenset())
    if refusal is not None:
        assert refusal.what == "this kernel has no vlan devices"
        assert "modprobe 8021q" in refusal.hint
    assert "@eth2" not in wire.world.run(wire.host.name, "ip", "link")


def test_no_port_without_a_guard(world: World) -> None:
    """The guard is there before the port is, and closed."""
    host = world.host()
    assert host.converge() == []
    world.run(host.name, "ip", "link", "add", "eth2", "type", "veth")

    with netns.inside(world.fd(host.name)):
        assert host.sandbox.apply([PutLink(PlugPort("plug0", "eth2", host.mtu, "br0"))]) == []
    guard = PlugGuard(host.sandbox.netns_fd, "plug0")
    assert not guard.is_open()
    guard.remove()
