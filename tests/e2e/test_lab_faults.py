"""The lab's verbs for teaching: faults of the underlay, and the steps of a packet."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from overlay.errors import NotFoundError, OverlayError
from overlay.lab import explanation, lab, main, underlay_faults

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e


@pytest.fixture(autouse=True)
def healed(cluster: Cluster) -> Iterator[None]:
    """End all faults after each test."""
    yield
    underlay_faults.heal(lab.switch(), cluster.hosts)


def data_path(cluster: Cluster, number: int, peer: str) -> str:
    """Return what a host's members show of the data path to a peer."""
    listed = cluster.ok(number, "overlayd", "members", "--no-header").splitlines()
    (row,) = [line for line in listed if line.startswith(f"{peer} ")]
    return row


def test_a_cut_between_two_hosts_is_of_these_only(
    cluster: Cluster, eventually: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """VXLAN alone is cut: both name it, the third sees nothing, and it heals."""
    for _ in range(2):  # again changes nothing
        assert main.main(["cut", "vm2", "vm3", "--only", "vxlan"]) == 0
    assert capsys.readouterr().out == "cut: vm2 and vm3, vxlan only\n" * 2
    eventually(lambda: "lost" in data_path(cluster, 2, "vm3"), "vm2 names it")
    eventually(lambda: "lost" in data_path(cluster, 3, "vm2"), "vm3 names it")
    assert "lost" not in data_path(cluster, 1, "vm2")

    assert main.main(["heal", "vm3"]) == 0
    assert "healed: cut: vm2 and vm3, vxlan only" in capsys.readouterr().err
    assert underlay_faults.active(lab.switch()) == []
    eventually(lambda: "lost" not in data_path(cluster, 2, "vm3"), "it is healed")


def test_a_slow_line_is_shown_and_healed(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """A rate and a loss may be in force at once."""
    assert main.main(["slow", "vm2", "--rate", "10mbit", "--loss", "50"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "loses 50 %: vm2 and all"
    assert told[1].startswith("slow: vm2, rate 10Mbit")
    sent = cluster.inside(1, "c1", "ping", "-c", "40", "-i", "0.01", "-W", "1", "c2")[1]
    assert " 0% packet loss" not in sent

    assert main.main(["heal"]) == 0
    assert underlay_faults.slowed(lab.switch(), cluster.hosts) == []
    assert " 0% packet loss" in cluster.inside(1, "c1", "ping", "-c", "5", "-i", "0.01", "c2")[1]


@pytest.mark.vm
def test_a_delay_is_felt_and_healed(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """No answer comes sooner; this needs netem, which Debian's kernel has."""
    assert main.main(["slow", "vm2", "--delay", "300ms"]) == 0
    assert capsys.readouterr().out.startswith("slow: vm2, delay 300")
    pings = cluster.inside(1, "c1", "ping", "-c", "3", "-W", "30", "c2")[1]
    times = [float(found) for found in re.findall(r"time=([\d.]+) ms", pings)]
    assert times, pings
    assert min(times) >= 300

    assert main.main(["heal"]) == 0
    assert underlay_faults.slowed(lab.switch(), cluster.hosts) == []


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["slow", "vm2"], 2),
        (["slow", "vm2", "--rate", "fast"], 2),
        (["slow", "vm2", "--loss", "100"], 2),
        (["cut", "vm1", "vm2", "vm3"], 2),
        (["cut", "vm9"], 5),
    ],
)
@pytest.mark.usefixtures("cluster")
def test_wrong_faults_are_refused(words: list[str], code: int) -> None:
    """Nothing is in force afterwards."""
    assert main.main(words) == code
    assert underlay_faults.active(lab.switch()) == []


def test_each_step_of_a_packet_is_shown(cluster: Cluster) -> None:
    """With rows read from the kernel, and the packet as it was on the underlay."""
    text = explanation.explain(lab.switch(), cluster.hosts, "c1", "c2")
    shown = cluster.json(1, "endpoint", "ls")["endpoints"]
    (mac,) = [each["mac"] for each in shown if each["name"] == "c2"]

    steps = text.split("\n\n")[1:]
    assert [step[0] for step in steps] == list("1234567")
    assert f"lladdr {mac}" in steps[1]
    assert f"{mac} dev vxlan0 master br0" in steps[2]
    assert f"{mac} dev vxlan0 dst 192.168.56.12" in steps[3]
    assert "192.168.56.12.4789: VXLAN" in steps[4]
    assert "ICMP echo request" in steps[4]
    assert f"{mac} dev ve" in steps[5]
    assert "time=" in steps[6]


def test_only_containers_of_two_hosts_are_explained(cluster: Cluster) -> None:
    """Others cross no underlay, or are not there."""
    with pytest.raises(OverlayError, match="on one host"):
        explanation.explain(lab.switch(), cluster.hosts, "c1", "c1")
    with pytest.raises(NotFoundError, match="no container 'nope'"):
        explanation.explain(lab.switch(), cluster.hosts, "c1", "nope")
