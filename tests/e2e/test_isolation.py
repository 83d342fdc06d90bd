"""Containers of one network that are kept apart, on three hosts, with real packets."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from overlay.lab.forged_frames import FrameCapture, NamespaceRef
from overlay.lab.frames import BROADCAST, arp, arp_frame, ethernet, packet_frame, udp
from overlay.model import parse_ip, parse_mac

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e
FLOOR = ("--subnet", "10.73.0.0/24", "--subnet", "fd73::/64")
SUBNETS = ("--subnet", "10.71.0.0/24", "--subnet", "fd71::/64")


@dataclass(frozen=True, slots=True)
class Guest:
    """A container: its host and its addresses."""

    number: int
    name: str
    mac: bytes
    ips: tuple[str, str]

    def packet(self, target: Guest, label: str, family: int = 4) -> bytes:
        """Return a labelled datagram to another one."""
        at = family == 6
        ends = parse_ip(self.ips[at]), parse_ip(target.ips[at])
        return udp(*ends, (5000, 5001), f"<{label}>".encode())

    def frame(self, target: Guest, label: str, family: int = 4) -> bytes:
        """Return that datagram in a frame."""
        return packet_frame(target.mac, self.mac, self.packet(target, label, family))


def attach(cluster: Cluster, number: int, name: str, network: str, *options: str) -> Guest:
    """Attach a container; return it as its network has it."""
    cluster.attach(number, name, *options, network=network)
    shown = cluster.json(number, "endpoint", "ls", "--network", network)["endpoints"]
    found = next(each for each in shown if each["name"] == name)
    return Guest(number, name, parse_mac(found["mac"]), tuple(found["ips"]))


def reaches(cluster: Cluster, one: Guest, other: Guest, wait: str = "5") -> list[bool]:
    """Return whether a ping is answered, by IPv4 and IPv6."""
    words = ("ping", "-n", "-c2", "-i0.1", "-W", wait)
    return [cluster.inside(one.number, one.name, *words, ip)[0] == 0 for ip in other.ips]


def arrived(
    cluster: Cluster, sender: Guest, fence: Guest, target: Guest, frames: Iterable[bytes]
) -> list[str]:
    """Return the labels of what arrives at a container; `fence` may send to it."""

    def spot(guest: Guest) -> NamespaceRef:
        return NamespaceRef(cluster.hosts[guest.number - 1], guest.name)

    def end() -> None:
        spot(fence).send_frames(fence.frame(target, "fence"))

    with FrameCapture(spot(target), end) as capture:
        spot(sender).send_frames(*frames)
    return capture.seen


def tagged(frame: bytes, number: int, kind: int = 0x8100) -> bytes:
    """Return a frame with a VLAN tag."""
    return frame[:12] + struct.pack(">HH", kind, number) + frame[12:]


def doors(sender: Guest, target: Guest, common: Guest, gateway: bytes) -> list[bytes]:
    """Return frames by which a container tries to reach another one that it must not reach."""
    mine = (sender.mac, parse_ip(sender.ips[0]))
    return [
        sender.frame(target, "unicast"),
        sender.frame(target, "unicast ipv6", 6),
        packet_frame(BROADCAST, sender.mac, sender.packet(target, "broadcast")),
        packet_frame(bytes.fromhex("3333000000fb"), sender.mac, sender.packet(target, "mc", 6)),
        packet_frame(bytes.fromhex("02fe00000001"), sender.mac, sender.packet(target, "unknown")),
        packet_frame(gateway, sender.mac, sender.packet(target, "routed")),
        packet_frame(gateway, sender.mac, sender.packet(target, "routed ipv6", 6)),
        packet_frame(common.mac, sender.mac, sender.packet(target, "by another")),
        arp_frame(sender.mac, arp(mine, (bytes(6), parse_ip(target.ips[0]))), b"<asked>"),
        arp_frame(sender.mac, arp(mine, mine, 2), b"<announced>"),
        packet_frame(target.mac, common.mac, common.packet(target, "forged")),
        ethernet(target.mac, sender.mac, 0x88B5, b"<no ip>"),
        tagged(sender.frame(target, "tagged"), 10),
        tagged(tagged(sender.frame(target, "tagged twice"), 10), 10, 0x88A8),
    ]


def test_isolated_ports_meet_nowhere(cluster: Cluster) -> None:
    """No frame of one reaches another, near or far, also without the agents; others are reached."""
    made = cluster.ok(1, "overlayd", "network", "create", "tenants", *SUBNETS, "--isolate-ports")
    assert "isolate ports" in made
    tenant, near = (attach(cluster, 1, name, "tenants") for name in ("tenant", "near"))
    far = attach(cluster, 2, "far", "tenants")
    common = attach(cluster, 3, "common", "tenants", "--not-isolated")

    for each in (tenant, far):
        assert reaches(cluster, each, common) == [True, True]
        assert reaches(cluster, common, each) == [True, True]
        assert cluster.inside(each.number, each.name, "ping", "-c1", "-W5", "10.71.0.1")[0] == 0
    shown = cluster.json(1, "network", "inspect", "tenants")
    gateway = parse_mac(shown["subnets"][0]["gateway_mac"])
    for target in (near, far):
        frames = doors(tenant, target, common, gateway)
        assert arrived(cluster, tenant, common, target, frames) == []
        assert reaches(cluster, tenant, target, "0.3") == [False, False]
    told = cluster.run(1, "overlayd", "trace", "tenant", "far")
    assert "tenant and far are isolated" in told[1]
    assert cluster.differences(1) == []


def test_vlans_cross_hosts_under_policies(cluster: Cluster) -> None:
    """Ports meet in their VLAN only, policies judge them there, and the next agent keeps both."""
    cluster.ok(1, "overlayd", "network", "create", "floor", *FLOOR, "--default-deny")
    allow = ["--from", "name=camera", "--from", "name=peer"]
    for name in ("recorder", "office", "plain"):
        allow += ["--to", f"name={name}"]
    cluster.ok(1, "overlayd", "policy", "create", "seen", "--network", "floor", *allow)
    camera = attach(cluster, 1, "camera", "floor", "--vlan", "10")
    recorder = attach(cluster, 2, "recorder", "floor", "--vlan", "10")
    denied = attach(cluster, 2, "denied", "floor", "--vlan", "10")
    office = attach(cluster, 2, "office", "floor", "--vlan", "20")
    plain = attach(cluster, 3, "plain", "floor")

    def check() -> None:
        assert reaches(cluster, camera, recorder) == [True, True]
        for other in (office, plain, denied):
            assert reaches(cluster, camera, other, "0.2") == [False, False]

    check()
    gateway = parse_mac(cluster.json(1, "network", "inspect", "floor")["subnets"][0]["gateway_mac"])
    frames = [*doors(camera, office, plain, gateway), tagged(camera.frame(office, "hop"), 20)]
    peer = attach(cluster, 1, "peer", "floor", "--vlan", "20")
    assert arrived(cluster, camera, peer, office, frames) == []
    for target, told in (("office", "in VLAN 10, office is in VLAN 20"), ("plain", "in no VLAN")):
        assert told in cluster.run(1, "overlayd", "trace", "camera", target)[1]
    assert "VLANs 10 20" in cluster.ok(1, "overlayd", "network", "inspect", "floor")
    for number in (1, 2):
        assert cluster.differences(number) == []
        assert cluster.complaints(number) == []


def test_what_cannot_be_kept_apart_is_refused(cluster: Cluster) -> None:
    """In words, before anything is attached."""
    cluster.ok(1, "ip", "netns", "add", "wrong")
    for options, code, told in (
        (("--vlan", "1"), 2, "'1' is not a VLAN of a port"),
        (("--vlan", "ten"), 2, "'ten' does not name VLANs"),
        (("--vlan", "30-20"), 2, "--vlan 10,20-30 for a trunk"),
        (("--isolated", "--not-isolated"), 2, "exclude each other"),
        (("--isolated", "--no-port-security"), 2, "isolation goes by the sender's MAC"),
    ):
        done = cluster.run(1, "overlayd", "attach", "wrong", "--network", "blue", *options)
        assert (done[0], told in done[2]) == (code, True), done[2]
    assert "wrong" not in cluster.ok(1, "overlayd", "endpoint", "ls")
