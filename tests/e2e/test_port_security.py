"""Port security: a container sends only from its own MAC and addresses, by each path."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from overlay.lab import data_path, host_process, lab
from overlay.lab.driver import AgentDriver, connect, differences, end_all, wait_until
from overlay.lab.forged_frames import FrameCapture, NamespaceRef
from overlay.lab.frames import (
    BROADCAST,
    ethernet,
    packet_frame,
    udp,
)
from overlay.model import parse_ip, parse_mac
from tests.e2e.container_frames import Guest, datagram, forged, honest, tag

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
MODES = {
    "fast": ("--fast-path", "on", "--native-path", "off"),
    "bridge": ("--fast-path", "off"),
}


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

    tags = {each for each in frames if each.startswith("tagged")}
    assert stage.arrived(stage.free, frames) == set(frames) - tags


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
    wait_until(lambda: tables() == before, "as it was", 20.0)  # sooner than the look every 30 s

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
