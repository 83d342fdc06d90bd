"""Frames of other hosts go past the VXLAN device, with the same checks, and never into the void."""

from __future__ import annotations

import json
import signal
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from overlay.core.dataplane.link_state import SHORTCUT_PREFIX
from overlay.lab import host_process, lab
from overlay.lab.driver import (
    AgentDriver,
    connect,
    differences,
    end_all,
    join_all,
    lasting,
    wait_until,
)
from overlay.lab.fixtures import LabCluster
from overlay.lab.flow import require_no_loss
from overlay.lab.forged_frames import FrameCapture, NamespaceRef
from overlay.lab.frames import packet_frame, udp
from overlay.model import parse_ip, parse_mac
from tests.e2e.native_programs import programs_of, remove_programs

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
VXLAN_PORT = 4789
SWITCH_ON = """mkdir -p /etc/overlayd; echo 'native_path = "on"' >/etc/overlayd/overlayd.toml"""
VNI_ONLY = 0x08 << 24
# A rule that could drop VXLAN packets, and does not.
RULES = """add table inet fw
add chain inet fw in { type filter hook input priority 0; }
add rule inet fw in udp dport 4789 limit rate over 1000000/second drop"""
JUDGING = "table inet fw, chain in"
SHORTCUT, DEVICE = f"{SHORTCUT_PREFIX}0", "vxlan0"


def more(pair: Pair, than: int) -> bool:
    """Return whether the first host's shortcut has received more packets."""
    return pair.received(1, SHORTCUT) > than


class Pair(LabCluster):
    """Two members with a container each, and a third host that is not a member."""

    stranger: AgentDriver

    def look(self) -> None:
        """Record the network's VNI and the containers' MACs."""
        self.vni = int(self.host(1).get("/v1/networks/blue")["vni"])
        shown = self.host(1).get("/v1/endpoints")["endpoints"]
        self.macs = {each["name"]: parse_mac(each["mac"]) for each in shown}

    def sandbox(self, number: int) -> str:
        """Return the name of a host's sandbox."""
        names = self.host(number).run("ip", "netns").split()
        (found,) = [name for name in names if name.startswith("ov-")]
        return found

    def has_shortcut(self, number: int) -> bool:
        """Return whether a host's sandbox has a shortcut."""
        return SHORTCUT in self.host(number).run("ip", "-n", self.sandbox(number), "-o", "link")

    def received(self, number: int, link: str, direction: str = "rx") -> int:
        """Return how many packets a link of a host's sandbox has received, or sent."""
        words = ("ip", "-n", self.sandbox(number), "-s", "-j", "link", "show", link)
        (shown,) = json.loads(self.host(number).run(*words))
        return int(shown["stats64"][direction]["packets"])

    def frame(self, label: str) -> bytes:
        """Return a frame from the second host's container to the first's."""
        ends = [parse_ip(self.addresses[number]) for number in (2, 1)]
        packet = udp(ends[0], ends[1], (5000, 5001), f"<{label}>".encode())
        return packet_frame(self.macs["c1"], self.macs["c2"], packet)

    def fence(self) -> None:
        """Send a legitimate frame, from container to container."""
        NamespaceRef(self.host(2).host, "c2").send_frames(self.frame("fence"))

    def inject(
        self, sender: NamespaceRef, label: str, *, flags: int = VNI_ONLY, vni: int = 0
    ) -> None:
        """Send a frame inside VXLAN to the first host's VTEP."""
        header = struct.pack(">II", flags, (vni or self.vni << 8))
        body = (header + self.frame(label)).hex()
        sender.send("datagram", self.host(1).address, str(VXLAN_PORT), "40000", body)

    def is_native(self, number: int) -> bool:
        """Return whether a host takes frames of blue past the VXLAN device."""
        status = self.host(number).get("/v1/status")
        (blue,) = status["networks"]
        return bool(blue["data_path"] == "native" and status["native_path"]["interfaces"] == 1)

    @contextmanager
    def no_loss(self) -> Iterator[None]:
        """Send packets both ways during the block; none may be lost."""
        with self.both_ways() as verdicts:
            yield
        require_no_loss(verdicts)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Return two healthy members whose frames take the native path, and a stranger."""
    assert not host_process.running(), "a lab is up on this machine: overlayd lab down"
    drivers: list[AgentDriver] = []
    try:
        drivers = connect(lab.make(3))
        made = Pair(drivers[:2])
        made.stranger = drivers[2]
        drivers[0].run("sh", "-c", SWITCH_ON)  # the second one has the default
        join_all(made.drivers)
        made.populate()
        wait_until(made.all_healthy, "all are well")
        wait_until(lambda: made.is_native(1) and made.is_native(2), "the native path")
        made.look()
        yield made
    finally:
        end_all(drivers)


def test_unicast_comes_by_the_shortcut(pair: Pair) -> None:
    """It does not pass the VXLAN device; the kernel counts it at the shortcut (Linux 6.8)."""
    shortcut, *device = (
        pair.received(1, *each) for each in ((SHORTCUT,), (DEVICE,), (DEVICE, "tx"))
    )
    with pair.no_loss():
        wait_until(partial(more, pair, shortcut + 500), "packets")

    assert pair.received(1, DEVICE) - device[0] < 100  # ARP, and what the agent probes
    assert pair.received(1, DEVICE, "tx") - device[1] < 100
    assert [*map(differences, pair.drivers)] == [[], []]


def test_forged_frames_reach_no_container(pair: Pair) -> None:
    """Not a stranger's, not a foreign VNI; a member's with another flag take the device."""
    target = NamespaceRef(pair.host(1).host, "c1")
    member, stranger = NamespaceRef(pair.host(2).host), NamespaceRef(pair.stranger.host)
    before = pair.received(1, SHORTCUT)

    with FrameCapture(target, pair.fence) as capture:
        pair.inject(stranger, "stranger")
        pair.inject(member, "foreign", vni=(pair.vni + 1) << 8)
        pair.inject(stranger, "flags", flags=VNI_ONLY | 1)
        pair.inject(member, "reserved", vni=pair.vni << 8 | 1)

    assert [label for label in capture.seen if label != "reserved"] == []
    assert pair.received(1, SHORTCUT) - before <= 2  # the fence


def test_what_another_removes_is_put_back(pair: Pair) -> None:
    """The program, by a repair, without losing a packet; and the shortcut, at once."""
    one, before = pair.host(1), programs_of(pair.host(1))
    with pair.no_loss():
        remove_programs(one)
        assert any("native path: add program" in each["text"] for each in differences(one))
        assert one.get("/v1/verify?repair=1")["repaired"]
        wait_until(partial(more, pair, pair.received(1, SHORTCUT)), "native again")
    assert programs_of(one) == before

    one.run("ip", "-n", pair.sandbox(1), "link", "del", SHORTCUT)
    wait_until(lambda: not differences(one), "the shortcut is put back")
    with pair.no_loss():
        wait_until(partial(more, pair, pair.received(1, SHORTCUT)), "native again")


def test_changes_of_the_underlay_are_followed(pair: Pair) -> None:
    """Neighbors' entries that are gone, and an interface that goes down and up."""
    one, two = pair.host(1), pair.host(2)
    with pair.no_loss():
        one.run("ip", "neighbor", "flush", "dev", "eth1")
        two.run("ip", "neighbor", "flush", "dev", "eth1")
    one.run("ip", "link", "set", "eth1", "down")
    one.run("ip", "link", "set", "eth1", "up")
    with pair.flow(2, 1):
        wait_until(partial(more, pair, pair.received(1, SHORTCUT)), "native again")
    wait_until(pair.all_healthy, "all are well")


def test_an_interface_with_another_name_is_followed(pair: Pair) -> None:
    """By `status`, by the path, and by the rules of the firewall that name it."""
    two = pair.host(2)

    def name(before: str, after: str) -> None:
        for words in ((before, "down"), (before, "name", after), (after, "up")):
            two.run("ip", "link", "set", *words)
        wait_until(lambda: two.get("/v1/status")["node"]["interface"] == after, after)

    two.run("nft", RULES.replace("udp", "iifname up0 udp"))
    wait_until(lambda: pair.is_native(2), "the native path beside a rule for another interface")
    name("eth1", "up0")
    wait_until(lambda: not pair.has_shortcut(2), "the native path off")
    name("up0", "eth1")
    wait_until(lambda: pair.is_native(2) and pair.has_shortcut(2), "the native path on")
    two.run("nft", "delete table inet fw")
    with pair.flow(2, 1):
        wait_until(partial(more, pair, pair.received(1, SHORTCUT)), "native again")
    wait_until(pair.all_healthy, "all are well")


def test_a_killed_agent_and_the_next_one_lose_no_packet(pair: Pair) -> None:
    """The programs run on without an agent, and the next one replaces them."""
    one = pair.host(1)
    with pair.no_loss():
        one.end(signal.SIGKILL)
        wait_until(partial(more, pair, pair.received(1, SHORTCUT)), "packets without an agent")
        one.start()
        wait_until(lambda: pair.is_native(1) and pair.all_healthy(), "all are well")
        wait_until(partial(more, pair, pair.received(1, SHORTCUT)), "packets with the next one")


def test_a_firewall_of_the_host_is_not_bypassed(pair: Pair) -> None:
    """Unless that is asked for. Switching by its rules, also at a start, loses no packet."""
    one, two = pair.host(1), pair.host(2)
    with pair.no_loss():
        two.run("nft", RULES)
        wait_until(lambda: not programs_of(two) and not pair.has_shortcut(2), "the native path off")
        why = f"the host's firewall judges VXLAN packets ({JUDGING})"
        (blue,) = two.get("/v1/status")["networks"]
        assert blue["data_path"] == "fast"
        assert blue["data_path_why"] == f'{why}; native_path = "on" would bypass it'
        assert lasting(partial(differences, two)) == []
        two.run("nft", "delete table inet fw")
        wait_until(lambda: pair.is_native(2) and pair.has_shortcut(2), "the native path on")

        one.run("nft", RULES)
        two.end(signal.SIGKILL)
        two.run("nft", RULES)
        two.start()
        wait_until(lambda: not programs_of(two) and not pair.has_shortcut(2), "the native path off")
        two.run("nft", "delete table inet fw")
        wait_until(lambda: pair.is_native(2) and pair.all_healthy(), "all are well")
    assert pair.is_native(1)
    one.run("nft", "delete table inet fw")


def test_it_can_be_switched_off(pair: Pair) -> None:
    """No packet is lost, no program is left, and the status says why frames take the device."""
    two = pair.host(2)
    with pair.no_loss():
        two.end(signal.SIGTERM)
        two.start("--native-path", "off")
        wait_until(lambda: not programs_of(two) and pair.all_healthy(), "all are well")
    (blue,) = two.get("/v1/status")["networks"]
    why = "switched off in the configuration"
    assert (blue["data_path"], blue["data_path_why"]) == ("fast", why)
    assert not pair.has_shortcut(2)


def test_a_reset_leaves_nothing(pair: Pair) -> None:
    """No program of an agent that was killed is left, nor the other end of a shortcut."""
    one = pair.host(1)
    assert programs_of(one)
    one.end(signal.SIGKILL)
    one.run("overlayd", "reset", "--yes")
    assert programs_of(one) == []
    assert "ovn" not in one.run("ip", "-o", "link")
