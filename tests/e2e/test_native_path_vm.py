"""The native path where its programs need tc's hooks: before Linux 6.6, as on Debian 12.

Run by `make vm-test`; `kernel/native` has the programs there, `test_native_path` the rest.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from overlay.kernel.bpf.hooks.tcx import has_tcx
from overlay.lab import host_process, lab
from overlay.lab.driver import AgentDriver, connect, differences, end_all, join_all, wait_until
from overlay.lab.flow import PORT, Flow, require_no_loss
from tests.e2e.native_programs import programs_of
from tests.e2e.test_native_path import DEVICE, SWITCH_ON, Pair

pytestmark = [
    pytest.mark.netns,
    pytest.mark.e2e,
    pytest.mark.vm,
    pytest.mark.skipif(has_tcx(), reason="this kernel has tcx; make vm-test has none"),
]
PATIENCE_S = 300.0  # an emulated machine is ten times slower, and slower beside other work
PER_SECOND = 50  # an emulated machine drops what comes faster
PACKETS = 300


class SlowPair(Pair):
    """Two members with a container each, whose flows are slow ones."""

    def flow(self, source: int, target: int, port: int = PORT) -> Flow:
        """Return a flow between two hosts' containers."""
        ends = (self.place(source), self.place(target))
        return Flow(*ends, self.addresses[target], port=port, per_second=PER_SECOND)

    def counted(self) -> int:
        """Return how many packets the first host's VXLAN device has received and sent."""
        return self.received(1, DEVICE) + self.received(1, DEVICE, "tx")

    def passed(self) -> int:
        """Return how many packets the first host's container has received."""
        shown = self.host(1).run(
            "ip", "netns", "exec", "c1", "cat", "/sys/class/net/eth0/statistics/rx_packets"
        )
        return int(shown)

    def wait_for_packets(self) -> None:
        """Wait until the first host's container has received more packets."""
        before = self.passed()
        wait_until(lambda: self.passed() > before + PACKETS, "packets", PATIENCE_S)

    def path(self, number: int) -> tuple[str, str]:
        """Return the path that frames of a host take, and why."""
        (blue,) = self.host(number).get("/v1/status")["networks"]
        return blue["data_path"], blue["data_path_why"] or ""


@pytest.fixture(scope="module")
def pair() -> Iterator[SlowPair]:
    """Return two healthy members: the first has the path switched on, the second the default."""
    assert not host_process.running(), "a lab is up on this machine: overlayd lab down"
    drivers: list[AgentDriver] = []
    try:
        drivers = connect(lab.make(2))
        drivers[0].run("sh", "-c", SWITCH_ON)
        join_all(drivers)
        made = SlowPair(drivers)
        made.populate()
        wait_until(made.all_healthy, "all are well", PATIENCE_S)
        yield made
    finally:
        end_all(drivers)


def test_by_default_it_stays_off(pair: SlowPair) -> None:
    """The status says why, nothing is on the interface, and it is no fault."""
    path, why = pair.path(2)
    assert path == "fast"
    assert why.startswith("before Linux 6.6 the underlay's interface drops packets")
    assert programs_of(pair.host(2)) == []
    assert not pair.has_shortcut(2)
    assert pair.host(2).get("/v1/status")["health"] == []


def test_it_can_be_switched_on(pair: SlowPair) -> None:
    """Packets of both ways go past the VXLAN device, also while the agent is replaced."""
    one = pair.host(1)
    wait_until(lambda: pair.is_native(1), "the native path", PATIENCE_S)
    assert programs_of(one)
    before = pair.counted()
    with pair.both_ways() as verdicts:
        pair.wait_for_packets()
        one.end(signal.SIGKILL)
        pair.wait_for_packets()
        one.start()
        wait_until(lambda: pair.is_native(1) and pair.all_healthy(), "all are well", PATIENCE_S)
        pair.wait_for_packets()
    require_no_loss(verdicts)
    # The device has ARP, and what the agents probe.
    assert pair.counted() - before < sum(each.sent for each in verdicts) / 4
    assert [*map(differences, pair.drivers)] == [[], []]


def test_switched_off_it_leaves_nothing(pair: SlowPair) -> None:
    """No program on the interface, and no hooks for one; packets take the VXLAN device."""
    one = pair.host(1)
    assert "clsact" in one.run("tc", "qdisc", "show", "dev", "eth1")
    one.end(signal.SIGTERM)
    one.start("--native-path", "auto")
    wait_until(lambda: not programs_of(one) and pair.all_healthy(), "all are well", PATIENCE_S)
    assert pair.path(1)[0] == "fast"
    assert "clsact" not in one.run("tc", "qdisc", "show", "dev", "eth1")
    before = pair.counted()
    with pair.no_loss():
        pair.wait_for_packets()
    assert pair.counted() - before > PACKETS
