"""Port security: a container sends only from its own MAC and addresses, by each path."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from overlay.lab import data_path, host_process, lab
from overlay.lab.driver import AgentDriver, connect, differences, end_all, wait_until
from overlay.lab.forged_frames import FrameCapture, NamespaceRef
from overlay.lab.frames import (
    BROADCAST,
    arp,
    arp_frame,
    checksum,
    ethernet,
    icmpv6,
    packet_frame,
    udp,
)
from overlay.model import parse_ip, parse_mac

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
GATEWAY = parse_ip("10.32.0.1")
ALL_NODES, ALL_NODES_MAC = parse_ip("ff02::1"), bytes.fromhex("333300000001")
ANY_IPV4, ANY_IPV6 = bytes(4), bytes(16)
EVERYBODY = b"\xff" * 4
MODES = {
    "fast": ("--fast-path", "on", "--native-path", "off"),
    "bridge": ("--fast-path", "off"),
}


@dataclass(frozen=True, slots=True)
class Guest:
    """A container: its host and its name on the network."""

    spot: NamespaceRef
    mac: bytes
    ipv4: bytes
    ipv6: bytes

    @property
    def link_local(self) -> bytes:
        """The link-local address that its kernel derives from its MAC."""
        identifier = bytes([self.mac[0] ^ 2]) + self.mac[1:3] + b"\xff\xfe" + self.mac[3:]
        return parse_ip("fe80::")[:8] + identifier


class Stage:
    """c1, its neighbor and a victim on one host, and another container on the other."""

    def __init__(self, drivers: list[AgentDriver]) -> None:
        self.drivers = drivers
        self.near = self.attach(1, "near")
        self.far = self.attach(2, "far")
        self.victim = self.attach(1, "victim")
        self.guest = self.attach(1, "guest")
        self.free = self.attach(1, "free", port_security=False)
        self.server = self.attach(1, "server", allow_dhcp_server=True)
        self.router = self.attach(1, "router", allow_ra=True)

    def attach(self, number: int, name: str, **wish: Any) -> Guest:
        """Make a container."""
        driver = self.drivers[number - 1]
        made = driver.post("/v1/containers", name=name, networks=["blue"], **wish)["endpoints"][0]
        ipv4, ipv6 = (parse_ip(text) for text in made["ips"])
        return Guest(NamespaceRef(driver.host, name), parse_mac(made["mac"]), ipv4, ipv6)

    def arrived(self, sender: Guest, frames: dict[str, bytes]) -> set[str]:
        """Return the labels of the frames that reach another container, near or far."""

        def fence(source: Guest, target: Guest) -> None:
            source.spot.send_frames(datagram(source, target, "fence"))

        with (
            FrameCapture(self.near.spot, lambda: fence(self.far, self.near)) as near,
            FrameCapture(self.far.spot, lambda: fence(self.near, self.far)) as far,
        ):
            sender.spot.send_frames(*frames.values())
        return {*near.seen, *far.seen}


def datagram(
    source: Guest, target: Guest, label: str, ports: tuple[int, int] = (5000, 5001)
) -> bytes:
    """Return a frame from one container to another."""
    packet = udp(source.ipv4, target.ipv4, ports, tag(label))
    return packet_frame(target.mac, source.mac, packet)


def tag(label: str) -> bytes:
    """Return a label as it stands in a frame."""
    return f"<{label}>".encode()


def forged(stage: Stage, sender: Guest) -> dict[str, bytes]:
    """Return frames that a container has no right to send, by label."""
    near, far, victim = stage.near, stage.far, stage.victim
    nobody = bytes.fromhex("02aabbccddee")

    def to(target: Guest, packet: bytes, mac: bytes = sender.mac) -> bytes:
        return packet_frame(target.mac, mac, packet)

    def to_all(packet: bytes) -> bytes:
        return packet_frame(ALL_NODES_MAC, sender.mac, packet)

    def announced(ends: tuple[bytes, bytes], label: str) -> bytes:
        return arp_frame(sender.mac, arp(ends, (near.mac, near.ipv4), 2), tag(label))

    def plain(source: bytes, target: bytes, label: str) -> bytes:
        return udp(source, target, (5000, 5001), tag(label))

    def advertised(target: bytes, label: str) -> bytes:
        body = b"\x20\0\0\0" + target + b"\x02\x01" + sender.mac + tag(label)
        return icmpv6(sender.ipv6, ALL_NODES, 136, body)

    frames = {
        "victims mac": to(near, plain(sender.ipv4, near.ipv4, "victims mac"), victim.mac),
        "new mac": to(far, plain(sender.ipv4, far.ipv4, "new mac"), nobody),
        "victims ipv4": to(near, plain(victim.ipv4, near.ipv4, "victims ipv4")),
        "victims ipv4 afar": to(far, plain(victim.ipv4, far.ipv4, "victims ipv4 afar")),
        "new ipv4": to(far, plain(parse_ip("10.32.250.250"), far.ipv4, "new ipv4")),
        "victims ipv6": to(far, plain(victim.ipv6, far.ipv6, "victims ipv6")),
        "victims link-local": to(near, plain(victim.link_local, near.ipv6, "victims link-local")),
        "arp victim": announced((sender.mac, victim.ipv4), "arp victim"),
        "arp gateway": announced((sender.mac, GATEWAY), "arp gateway"),
        "arp mac": announced((nobody, sender.ipv4), "arp mac"),
        "advertises victim": to_all(advertised(victim.ipv6, "advertises victim")),
        "tries victims address": to_all(
            icmpv6(ANY_IPV6, ALL_NODES, 135, bytes(4) + victim.ipv6 + tag("tries victims address"))
        ),
        "router": to_all(
            icmpv6(
                sender.link_local, ALL_NODES, 134, struct.pack(">BBHII", 64, 0, 1800, 0, 0)
                + tag("router")
            )
        ),
        "redirect": to_all(
            icmpv6(
                sender.link_local, ALL_NODES, 137, bytes(4) + sender.ipv6 + far.ipv6
                + tag("redirect")
            )
        ),
        "dhcp": to(near, udp(sender.ipv4, near.ipv4, (67, 68), tag("dhcp"))),
        "dhcp afar": to(far, udp(sender.ipv4, far.ipv4, (67, 68), tag("dhcp afar"))),
        "dhcp by an odd port": to(
            near, udp(sender.ipv4, near.ipv4, (1067, 68), tag("dhcp by an odd port"))
        ),
        "dhcp to all": packet_frame(
            BROADCAST, sender.mac, udp(sender.ipv4, EVERYBODY, (67, 68), tag("dhcp to all"))
        ),
        "dhcpv6": to(near, udp(sender.ipv6, near.ipv6, (547, 546), tag("dhcpv6"))),
        "dhcpv6 by an odd port": to(
            far, udp(sender.ipv6, far.ipv6, (1547, 546), tag("dhcpv6 by an odd port"))
        ),
        "no ip at all": ethernet(near.mac, sender.mac, 0x88B5, tag("no ip at all")),
    }  # fmt: skip
    frames |= hidden(stage, sender)
    assert all(tag(label) in frame for label, frame in frames.items())
    return frames


def hidden(stage: Stage, sender: Guest) -> dict[str, bytes]:
    """Return forged frames behind headers that a careless filter would not parse."""
    near, victim = stage.near, stage.victim

    def advertisement(label: str) -> bytes:
        body = struct.pack(">BBHII", 64, 0, 1800, 0, 0) + tag(label)
        return icmpv6(sender.link_local, ALL_NODES, 134, body)

    def behind(packet: bytes, kind: int, header: bytes) -> bytes:
        """Put an extension header before the ICMPv6 message (RFC 8200 section 4)."""
        length = struct.pack(">H", len(packet) - 40 + len(header))
        return packet[:4] + length + bytes([kind]) + packet[7:40] + header + packet[40:]

    def with_options(packet: bytes) -> bytes:
        """Put four bytes of options (no operation) into an IPv4 header."""
        head = bytes([0x46]) + packet[1:2] + struct.pack(">H", len(packet) + 4) + packet[4:10]
        addresses, options = packet[12:20], b"\x01\x01\x01\x01"
        total = checksum(head + addresses + options)
        return head + struct.pack(">H", total) + addresses + options + packet[20:]

    def tagged(packet: bytes) -> bytes:
        return ethernet(near.mac, sender.mac, 0x8100, struct.pack(">HH", 7, 0x0800) + packet)

    options, fragment = b"\x3a\x00\x01\x04\0\0\0\0", b"\x3a\x00\0\0\0\0\0\x07"
    lease = udp(sender.ipv4, near.ipv4, (67, 68), tag("dhcp behind options"))
    forged_ipv4 = udp(victim.ipv4, near.ipv4, (1, 2), tag("tagged"))
    return {
        "router behind options": packet_frame(
            ALL_NODES_MAC, sender.mac, behind(advertisement("router behind options"), 60, options)
        ),
        "router in a fragment": packet_frame(
            ALL_NODES_MAC, sender.mac, behind(advertisement("router in a fragment"), 44, fragment)
        ),
        "dhcp behind options": packet_frame(near.mac, sender.mac, with_options(lease)),
        "tagged": tagged(forged_ipv4),
    }


def honest(stage: Stage, sender: Guest) -> dict[str, bytes]:
    """Return frames that a container may send, by label."""
    near, far = stage.near, stage.far
    own = (sender.mac, sender.ipv4)
    probe = arp((sender.mac, ANY_IPV4), (bytes(6), parse_ip("10.32.99.99")))
    tried = bytes(4) + sender.link_local + tag("tries its own")
    solicited = bytes(4) + near.ipv6 + tag("solicits")
    return {
        "ipv4 near": datagram(sender, near, "ipv4 near"),
        "ipv4 far": datagram(sender, far, "ipv4 far"),
        "ipv6 far": packet_frame(
            far.mac, sender.mac, udp(sender.ipv6, far.ipv6, (5000, 5001), tag("ipv6 far"))
        ),
        "link-local": packet_frame(
            near.mac, sender.mac, udp(sender.link_local, near.ipv6, (1, 2), tag("link-local"))
        ),
        "arp": arp_frame(sender.mac, arp(own, (near.mac, near.ipv4), 2), tag("arp")),
        "probe": arp_frame(sender.mac, probe, tag("probe")),
        "discover": packet_frame(
            BROADCAST, sender.mac, udp(ANY_IPV4, EVERYBODY, (68, 67), tag("discover"))
        ),
        "tries its own": packet_frame(
            ALL_NODES_MAC, sender.mac, icmpv6(ANY_IPV6, ALL_NODES, 135, tried)
        ),
        "solicits": packet_frame(
            ALL_NODES_MAC, sender.mac, icmpv6(sender.link_local, ALL_NODES, 135, solicited)
        ),
    }


@pytest.fixture(scope="module", params=[data_path.wanted()] if data_path.wanted() else MODES)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """Return two hosts and their containers, on the fast path and the bridge, or as asked for."""
    assert not host_process.running(), "a lab is up on this machine: overlayd lab down"
    drivers: list[AgentDriver] = []
    try:
        drivers = connect(lab.make(2))
        for driver in drivers:
            driver.start(*(() if data_path.wanted() else MODES[request.param]))
        drivers[0].post("/v1/join")
        token = drivers[0].get("/v1/token")["token"]
        drivers[1].post("/v1/join", peers=[drivers[0].address], token=token)
        subnets = [{"subnet": "10.32.0.0/16"}, {"subnet": "fd40::/64"}]
        drivers[0].post("/v1/networks", name="blue", subnets=subnets)
        made = Stage(drivers)
        (blue,) = drivers[0].get("/v1/status")["networks"]
        assert blue["data_path"] == request.param, blue["data_path_why"]
        yield made
    finally:
        end_all(drivers)


def test_forged_frames_reach_no_container(stage: Stage) -> None:
    """Others' MACs and addresses, rogue routers and DHCP servers are dropped near and far."""
    assert stage.arrived(stage.guest, forged(stage, stage.guest)) == set()


def test_without_port_security_forged_frames_arrive(stage: Stage) -> None:
    """The same arrive from a container attached with --no-port-security, but for VLAN tags.

    A tag is for the ports that are in VLANs, whatever else is allowed.
    """
    frames = forged(stage, stage.free)

    assert stage.arrived(stage.free, frames) == set(frames) - {"tagged"}


def test_frames_of_switches_reach_no_container(stage: Stage) -> None:
    """Spanning tree and LLDP end at the port, also without port security."""
    sender, near = stage.free, stage.near
    macs = {
        "nearest bridge": "0180c200000e",
        "customer bridge": "0180c2000000",
        "provider bridge": "0180c2000003",
        "all": "ffffffffffff",
        "one": near.mac.hex(),
    }
    frames = {
        f"lldp {name}": ethernet(bytes.fromhex(mac), sender.mac, 0x88CC, tag(f"lldp {name}"))
        for name, mac in macs.items()
    }
    bpdu = b"\x42\x42\x03" + bytes(35) + tag("stp")
    frames["stp"] = ethernet(bytes.fromhex("0180c2000000"), sender.mac, len(bpdu), bpdu)

    assert stage.arrived(sender, frames) == set()


@pytest.mark.parametrize("role", ["server", "router"])
def test_an_allowed_role_lets_its_frames_pass_alone(stage: Stage, role: str) -> None:
    """An allowed DHCP server answers by its own addresses, and an allowed router advertises."""
    sender: Guest = getattr(stage, role)
    frames = forged(stage, sender)
    allowed = {
        "server": {each for each in frames if each.startswith("dhcp")},
        "router": {each for each in frames if each.startswith("router")},
    }

    assert stage.arrived(sender, frames) == allowed[role]


def test_allowed_types_pass_from_the_own_mac(stage: Stage) -> None:
    """And no others, except where all are; never those of switches, or behind two tags."""
    some = stage.attach(1, "some", allow_non_ip="0x88f7,llc")
    every = stage.attach(2, "every", allow_non_ip="all")
    near, far, victim = stage.near, stage.far, stage.victim

    def frames(sender: Guest, number: str) -> dict[str, bytes]:
        def made(what: str, kind: int, *, to: bytes = near.mac, mac: bytes = sender.mac) -> bytes:
            return ethernet(to, mac, kind, tag(f"{what}{number}").ljust(46))

        return {
            f"{what}{number}": frame
            for what, frame in {
                "ptp": made("ptp", 0x88F7),
                "ptp far": made("ptp far", 0x88F7, to=far.mac),
                "ptp to all": made("ptp to all", 0x88F7, to=BROADCAST),
                "llc": made("llc", 46, to=BROADCAST),
                "other": made("other", 0x88B5),
                "forged": made("forged", 0x88F7, mac=victim.mac),
                "lldp": made("lldp", 0x88CC, to=BROADCAST),
                "tags": ethernet(
                    near.mac, sender.mac, 0x88A8, struct.pack(">HHH", 7, 0x8100, 7)
                    + b"\x08\0" + udp(victim.ipv4, near.ipv4, (1, 2), tag(f"tags{number}")),
                ),
            }.items()
        }  # fmt: skip

    passing = {"ptp", "ptp far", "ptp to all", "llc"}
    assert stage.arrived(some, frames(some, "1")) == {f"{each}1" for each in passing}
    assert stage.arrived(every, frames(every, "2")) == {f"{each}2" for each in {*passing, "other"}}
    for driver, name in zip(stage.drivers, ("some", "every"), strict=True):
        listed = driver.get("/v1/endpoints")["endpoints"]
        (dropped,) = (each["dropped"] for each in listed if each["name"] == name)
        assert (dropped["mac"], dropped["ethertype"]) == (1, {"some": 2, "every": 1}[name])
        assert differences(driver) == []


def test_a_container_may_use_its_own_addresses(stage: Stage) -> None:
    """Its MAC, addresses, link-local address, address probes and DHCP requests pass."""
    frames = honest(stage, stage.guest)

    assert stage.arrived(stage.guest, frames) == set(frames)


def test_a_container_that_changes_its_mac_or_address_is_silent(stage: Stage) -> None:
    """Frames from its own kernel are dropped too, until its MAC and address are restored."""
    spot = stage.attach(1, "changer").spot
    own, other = own_address(spot), "10.32.77.77"

    def pings(*options: str) -> bool:
        target = ".".join(str(byte) for byte in stage.far.ipv4)
        command = ("ip", "netns", "exec", "changer", "ping", "-c1", "-W1", *options, target)
        return host_process.run(spot.host, *command).returncode == 0

    before = pings()
    spot.run("ip", "address", "add", f"{other}/16", "dev", "eth0")
    with_other_address = pings("-I", other)
    mac = spot.run("cat", "/sys/class/net/eth0/address").strip()
    spot.run("ip", "link", "set", "eth0", "address", "02:11:22:33:44:55")
    with_other_mac = pings()
    spot.run("ip", "link", "set", "eth0", "address", mac)

    assert before
    assert not with_other_address
    assert not with_other_mac
    assert pings("-I", own)


def own_address(spot: NamespaceRef) -> str:
    """Return a container's IPv4 address."""
    return spot.run("ip", "-4", "-o", "address", "show", "eth0").split()[3].partition("/")[0]


@pytest.mark.parametrize(
    "damage",
    [
        "nft flush ruleset",
        "nft insert rule bridge overlayd_ports arriving accept",
        "nft flush set bridge overlayd_ports macs",
    ],
    ids=["gone", "a rule more", "nobody allowed"],
)
def test_changed_port_security_is_repaired(stage: Stage, damage: str) -> None:
    """It is repaired within about a second; until then, verify reports it."""
    driver = stage.drivers[0]
    names = [line.split()[0] for line in driver.run("ip", "netns").splitlines()]
    inside = ("ip", "netns", "exec", next(name for name in names if name.startswith("ov-")))

    def tables() -> list[str]:
        listed = driver.run(*inside, "nft", "-s", "list", "ruleset").strip()
        listed = re.sub(r"(set drops \{[^{}]*?)\s*elements = \{[^}]*\}", r"\1", listed)
        return sorted(f"\n{listed}".split("\ntable "))  # one made again is listed last

    before = tables()
    driver.run(*inside, *damage.split())
    wait_until(lambda: tables() == before, "as it was", 5.0)

    assert differences(driver) == []
    assert stage.arrived(stage.guest, forged(stage, stage.guest)) == set()


def test_a_network_can_disable_port_security(stage: Stage) -> None:
    """On a network created with --no-port-security, containers may send any frame."""
    driver = stage.drivers[0]
    driver.post("/v1/networks", name="red", subnets=[{"subnet": "10.99.0.0/24"}],
                port_security=False)  # fmt: skip
    made = [
        driver.post("/v1/containers", name=name, networks=["red"])["endpoints"][0]
        for name in ("red1", "red2")
    ]
    one, two = (
        Guest(NamespaceRef(driver.host, name), parse_mac(each["mac"]), parse_ip(each["ip"]), b"")
        for name, each in zip(("red1", "red2"), made, strict=True)
    )
    packet = udp(parse_ip("10.99.0.99"), two.ipv4, (1, 2), tag("forged"))
    with FrameCapture(two.spot, lambda: one.spot.send_frames(datagram(one, two, "fence"))) as watch:
        one.spot.send_frames(packet_frame(two.mac, one.mac, packet))

    assert watch.seen == ["forged"]
    for name in ("red1", "red2"):
        driver.call("DELETE", f"/v1/containers/{name}")
    assert differences(driver) == []
