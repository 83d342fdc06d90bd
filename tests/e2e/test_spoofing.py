"""Frames with a forged sender reach no container."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from overlay.lab import host_process, lab
from overlay.lab.driver import AgentDriver, connect, differences, end_all, join_all, wait_until
from overlay.lab.fixtures import LabCluster
from overlay.lab.forged_frames import FrameCapture, NamespaceRef
from overlay.lab.frames import fragments, packet_frame, udp, vxlan
from overlay.model import parse_ip, parse_mac
from tests.e2e.native_programs import remove_programs

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
VXLAN_PORT = 4789


class Stage(LabCluster):
    """Two members with a container each, and a third host on the underlay that is not a member."""

    outsider: AgentDriver

    def spot(self, number: int, namespace: str = "") -> NamespaceRef:
        """Return a host's namespace."""
        return NamespaceRef(self.host(number).host, namespace)

    def look(self) -> None:
        """Record the network's VNI and the containers' MACs, since a stopped agent has no API."""
        self.vni = int(self.host(1).get("/v1/networks/blue")["vni"])
        shown = self.host(1).get("/v1/endpoints")["endpoints"]
        self.macs = {each["name"]: parse_mac(each["mac"]) for each in shown}

    def mac(self, number: int) -> bytes:
        """Return the MAC of a host's container."""
        return self.macs[f"c{number}"]

    def frame(self, source: int, target: int, label: str) -> bytes:
        """Return a frame from one host's container to another's."""
        ends = [parse_ip(self.addresses[number]) for number in (source, target)]
        packet = udp(ends[0], ends[1], (5000, 5001), f"<{label}>".encode())
        return packet_frame(self.mac(target), self.mac(source), packet)

    def fence(self, source: int, target: int) -> None:
        """Send a legitimate frame, from container to container."""
        self.spot(source, f"c{source}").send_frames(self.frame(source, target, "fence"))

    def table(self, number: int) -> str:
        """Return the name of a host's filter; empty if there is none."""
        words = self.host(number).run("nft", "list", "tables").split()
        return next((word for word in words if re.fullmatch("overlayd_[0-9a-f]{6}", word)), "")

    @contextmanager
    def defenceless(self, number: int) -> Iterator[None]:
        """Remove a host's filter for the length of a block, to show its effect."""
        driver = self.host(number)
        driver.send_signal(signal.SIGSTOP)
        driver.run("nft", "delete", "table", "inet", self.table(number))
        try:
            yield
        finally:
            driver.send_signal(signal.SIGCONT)
            wait_until(lambda: self.table(number) != "", "the filter")


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """Return the two members and the stranger; behind vm1 a masqueraded container, `rogue`."""
    assert not host_process.running(), "a lab is up on this machine: overlayd lab down"
    drivers: list[AgentDriver] = []
    try:
        drivers = connect(lab.make(3))
        made = Stage(drivers[:2])
        made.outsider = drivers[2]
        join_all(made.drivers)
        made.populate()
        drivers[0].run("sh", "-c", ROGUE)
        wait_until(made.all_healthy, "all are well")
        made.look()
        yield made
    finally:
        end_all(drivers)


ROGUE = """set -e
ip netns add rogue
ip link add out type veth peer name eth0 netns rogue
ip address add 10.9.0.1/24 dev out
ip link set out up
ip -n rogue address add 10.9.0.2/24 dev eth0
ip -n rogue link set eth0 up
ip -n rogue route add default via 10.9.0.1
echo 1 > /proc/sys/net/ipv4/ip_forward
for each in all out eth1; do echo 0 > /proc/sys/net/ipv4/conf/$each/rp_filter; done
nft 'table ip nat { chain leaving {
    type nat hook postrouting priority 100; ip saddr 10.9.0.0/24 oifname eth1 masquerade; }; }'
"""


def test_a_stranger_on_the_underlay_reaches_no_container(stage: Stage) -> None:
    """VXLAN frames of a host that is not a member are dropped and counted.

    Without the filter they arrive.
    """
    target, outsider = stage.spot(1, "c1"), NamespaceRef(stage.outsider.host)

    def inject(label: str) -> None:
        body = vxlan(stage.vni, stage.frame(2, 1, label))
        outsider.send("datagram", stage.host(1).address, str(VXLAN_PORT), "40000", body.hex())

    def fence() -> None:
        stage.fence(2, 1)

    with FrameCapture(target, fence) as guarded:
        inject("forged")
    with stage.defenceless(1), FrameCapture(target, fence) as defenceless:
        inject("forged")

    assert guarded.seen == []
    assert defenceless.seen == ["forged"]


@pytest.fixture(params=[True, False], ids=["tracked", "untracked"])
def tracked(stage: Stage, request: pytest.FixtureRequest) -> Iterator[bool]:
    """Let vm2 track connections, which reassembles fragments before the filter, or not."""
    if not request.param:
        stage.host(2).run("overlayd", "unexpose", "blue")
    is_gated = stage.host(2).get("/v1/status")["gate"]["active"]  # then nothing is tracked
    yield request.param and not is_gated
    stage.host(2).run("overlayd", "expose", "blue")
    wait_until(stage.all_healthy, "all are well")


@pytest.mark.parametrize("first_bytes", [8, 16, 64], ids=["port", "vni", "frame"])
def test_fragments_are_filtered_like_whole_packets(
    stage: Stage, first_bytes: int, *, tracked: bool
) -> None:
    """A stranger's are dropped, however short the first; a member's pass if it has the VNI."""
    target, outsider = stage.spot(2, "c2"), NamespaceRef(stage.outsider.host)

    def inject(sender: NamespaceRef, address: str, label: str, number: int) -> None:
        ends = parse_ip(address), parse_ip(stage.host(2).address)
        packet = udp(*ends, (40000, VXLAN_PORT), vxlan(stage.vni, stage.frame(1, 2, label)))
        for part in fragments(packet, first_bytes, 1000 * number + first_bytes + tracked):
            sender.send("packet", stage.host(2).address, part.hex())

    with FrameCapture(target, lambda: stage.fence(1, 2)) as guarded:
        inject(outsider, stage.outsider.address, "forged", 1)
        inject(stage.spot(1), stage.host(1).address, "member", 2)
    with stage.defenceless(2), FrameCapture(target, lambda: stage.fence(1, 2)) as defenceless:
        inject(outsider, stage.outsider.address, "forged", 3)

    assert guarded.seen == (["member"] if tracked or first_bytes > 8 else [])
    assert defenceless.seen == ["forged"]


def test_a_container_with_a_members_address_reaches_none_either(stage: Stage) -> None:
    """A member's address is accepted only on the interface that leads back to it."""
    target, rogue = stage.spot(1, "c1"), stage.spot(1, "rogue")
    ends = parse_ip(stage.host(2).address), parse_ip(stage.host(1).address)

    def inject() -> None:
        body = vxlan(stage.vni, stage.frame(2, 1, "forged"))
        rogue.send("packet", stage.host(1).address, udp(*ends, (40000, VXLAN_PORT), body).hex())

    with FrameCapture(target, lambda: stage.fence(2, 1)) as guarded:
        inject()
    with stage.defenceless(1), FrameCapture(target, lambda: stage.fence(2, 1)) as defenceless:
        inject()

    assert guarded.seen == []
    assert defenceless.seen == ["forged"]


@pytest.mark.parametrize("sender", ["rogue", "c1"])
def test_a_container_cannot_use_its_hosts_address(stage: Stage, sender: str) -> None:
    """VXLAN packets that a masqueraded container sends to another host stay here.

    This holds for one of another bridge, and for one that leaves the network itself.
    """
    target, rogue = stage.spot(2, "c2"), stage.spot(1, sender)

    def inject() -> None:
        body = vxlan(stage.vni, stage.frame(1, 2, "forged"))
        rogue.send("datagram", stage.host(2).address, str(VXLAN_PORT), "40000", body.hex())

    with FrameCapture(target, lambda: stage.fence(1, 2)) as guarded:
        inject()
    with stage.defenceless(1), FrameCapture(target, lambda: stage.fence(1, 2)) as defenceless:
        inject()

    assert guarded.seen == []
    assert defenceless.seen == ["forged"]


def test_a_masqueraded_container_receives_no_vxlan_frame(
    stage: Stage,
) -> None:
    """A VXLAN frame that looks like the answer to its datagram goes to the VTEP."""
    target, rogue = stage.spot(1, "c1"), stage.spot(1, "rogue")
    host = stage.spot(2)

    def answer(label: str, source_port: int) -> None:
        """Make the member send a frame from the port that the container wrote to."""
        rogue.send("datagram", stage.host(2).address, str(source_port), str(VXLAN_PORT), "00")
        body = vxlan(stage.vni, stage.frame(2, 1, label)).hex()
        there = (stage.host(1).address, str(VXLAN_PORT), str(source_port), body)
        host.send("datagram", *there)

    with FrameCapture(target, lambda: stage.fence(2, 1)) as guarded:
        answer("mine", 41000)
    with stage.defenceless(1), FrameCapture(target, lambda: stage.fence(2, 1)) as defenceless:
        remove_programs(stage.host(1))  # they take the frame before connections are looked at
        answer("mine", 41001)
    stage.host(1).get("/v1/verify?repair=1")

    assert guarded.seen == ["mine"]
    assert defenceless.seen == []


@pytest.mark.parametrize(
    "damage",
    [
        "nft delete table inet {}",
        "nft insert rule inet {} arriving accept",
        "nft add element inet {} members4 {{ 203.0.113.9 }}",
        "nft flush set inet {} members4",
    ],
    ids=["deleted", "a rule more", "a member more", "no members"],
)
def test_a_changed_filter_is_repaired(stage: Stage, damage: str) -> None:
    """Within about a second the kernel is as desired, and the log has the repair."""
    driver = stage.host(1)
    name = stage.table(1)
    before = driver.run("nft", "-s", "list", "table", "inet", name)
    known = len(driver.get("/v1/events")["events"])
    driver.send_signal(signal.SIGSTOP)
    try:
        driver.run("sh", "-c", damage.format(name))
        damaged = driver.run("nft", "-s", "list", "ruleset")
    finally:
        driver.send_signal(signal.SIGCONT)
    wait_until(
        lambda: (
            stage.table(1) != ""
            and driver.run("nft", "-s", "list", "table", "inet", name) == before
        ),
        "the filter as it was",
        20.0,  # sooner than the look every 30 s
    )

    assert before not in damaged
    assert differences(driver) == []
    texts = [event["text"] for event in driver.get("/v1/events")["events"][known:]]
    assert any("the filter of the VXLAN port" in text for text in texts), texts


def test_verify_reports_a_changed_filter(stage: Stage) -> None:
    """`verify --repair` reads the kernel again, and succeeds only if it is as desired."""
    driver = stage.host(1)
    driver.run("nft", "delete", "table", "inet", stage.table(1))
    answer = driver.get("/v1/verify?repair=1")

    assert answer["repaired"]
    assert stage.table(1)
    assert differences(driver) == []


def test_a_restart_adopts_the_filter_without_losing_a_packet(stage: Stage) -> None:
    """The table stays in force without an agent, and the next one keeps it."""
    driver = stage.host(1)

    def handles() -> str:
        return driver.run("nft", "-a", "-s", "list", "table", "inet", stage.table(1))

    before = handles()
    with stage.both_ways() as verdicts:
        driver.end(signal.SIGKILL)
        without = handles()
        driver.start()
        wait_until(stage.all_healthy, "all are well")

    assert without == before
    assert handles() == before
    assert [verdict.lost for verdict in verdicts] == [0, 0]


def test_the_filter_is_removed_by_leave_and_reset(stage: Stage) -> None:
    """A host that left has no table and is in no other's; a reset removes a dead agent's."""
    second = stage.host(2)
    second.post("/v1/leave", force=True)
    left = stage.table(2)
    wait_until(
        lambda: second.address not in stage.host(1).run("nft", "list", "ruleset"),
        "the first host lets the second in no more",
    )
    stage.host(1).end(signal.SIGKILL)
    with_dead_agent = stage.table(1)
    stage.host(1).run("overlayd", "reset", "--yes")

    assert left == ""
    assert with_dead_agent
    assert stage.table(1) == ""
