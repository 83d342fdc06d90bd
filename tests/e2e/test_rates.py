"""Bandwidth limits of an endpoint, by the throughput of several seconds.

A 10 Mbit limit must move less than 20 Mbit a second, and no limit more than 50. The bounds are
loose because the machine is shared.
"""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e
KILL = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"
SECONDS = 2
BUSY_MAX_S = 15
LIMITED_MAX, UNLIMITED_MIN = 20e6, 50e6


@pytest.fixture(scope="module")
def limited(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """Start servers on c2 of vm2, and on c1 and slow (10 Mbit) of vm1."""
    slow = cluster.ok(
        1, "overlayd", "container", "add", "slow", "--network", "blue", "--rate", "10mbit"
    ).strip()
    far = cluster.ok(1, "overlayd", "dns", "lookup", "c2").strip()
    for number, name in ((1, "slow"), (1, "c1"), (2, "c2")):
        command = "iperf3 --server --daemon --pidfile /run/iperf3-$0"
        code, out, err = cluster.inside(number, name, "bash", "-c", command, name)
        assert code == 0, out + err
    yield slow, far
    for number, name in ((1, "slow"), (1, "c1"), (2, "c2")):
        cluster.run(number, "bash", "-c", f"kill $(tr -d '\\0' </run/iperf3-{name})")


def speed(cluster: Cluster, number: int, container: str, ip: str, *options: str) -> float:
    """Return the receiver's bits per second over some seconds of TCP."""
    command = ("iperf3", "--json", "--client", ip, "--time", str(SECONDS), *options)
    deadline = time.monotonic() + BUSY_MAX_S
    while True:
        _, out, err = cluster.inside(number, container, *command)
        told = json.loads(out)
        if "error" not in told:
            return float(told["end"]["sum_received"]["bits_per_second"])
        # A server busy with the test before refuses at once.
        assert time.monotonic() < deadline, out + err


def test_both_directions_are_limited_and_others_are_not(
    cluster: Cluster, limited: tuple[str, str]
) -> None:
    """To and from both hosts slow is limited; the other two containers are not."""
    slow, far = limited
    near = cluster.ok(1, "overlayd", "dns", "lookup", "c1").strip()
    assert speed(cluster, 1, "slow", far) < LIMITED_MAX
    assert speed(cluster, 1, "slow", far, "--reverse") < LIMITED_MAX
    assert speed(cluster, 2, "c2", slow) < LIMITED_MAX
    assert speed(cluster, 1, "slow", near) < LIMITED_MAX
    assert speed(cluster, 1, "c1", slow) < LIMITED_MAX
    assert speed(cluster, 1, "c1", far) > UNLIMITED_MIN


def test_it_is_shown_and_changes_while_the_container_runs(
    cluster: Cluster, limited: tuple[str, str], eventually: Callable[..., None]
) -> None:
    """The limit of one direction is removed and the other kept, as every host shows."""
    _, far = limited

    def rates(number: int) -> tuple[int, int | None]:
        shown = cluster.json(number, "endpoint", "ls")["endpoints"]
        (found,) = [each for each in shown if each["name"] == "slow"]
        return found["rate_in"], found["rate_out"]

    assert rates(1) == (10_000_000, 10_000_000)
    lift = ["attach", "slow", "--network", "blue", "--rate-out", "none"]
    code, _, told = cluster.run(1, "overlayd", *lift)
    note = "slow was already attached to blue, as eth0; changed: rate out 10mbit -> none\n"
    assert (code, note in told) == (0, True)
    assert "changed" not in cluster.run(1, "overlayd", *lift)[2], "it has nothing to change"
    eventually(lambda: rates(3) == (10_000_000, None), "vm3 knows")
    assert speed(cluster, 1, "slow", far) > UNLIMITED_MIN
    assert speed(cluster, 1, "slow", far, "--reverse") < LIMITED_MAX
    assert cluster.differences(1) == []
    cluster.ok(1, "overlayd", "attach", "slow", "--network", "blue", "--rate", "10mbit")
    assert speed(cluster, 1, "slow", far) < LIMITED_MAX


def test_changed_limits_are_restored(
    cluster: Cluster, limited: tuple[str, str], eventually: Callable[..., None]
) -> None:
    """Queue, device and filter are restored; a restart of the agent keeps them."""
    slow, far = limited
    sandbox = cluster.sandbox(1)
    (shown,) = [e for e in cluster.json(1, "endpoint", "ls")["endpoints"] if e["name"] == "slow"]
    port, shaper = f"ve{shown['id'][:12]}", f"sh{shown['id'][:12]}"

    def discipline(link: str) -> str:
        return cluster.inside(1, sandbox, "tc", "qdisc", "show", "dev", link)[1]

    def whole() -> bool:
        queues = all("rate 10Mbit" in discipline(link) for link in (port, shaper))
        told = cluster.inside(1, sandbox, "tc", "filter", "show", "dev", port, "ingress")[1]
        return queues and re.search(f"Redirect to device {shaper}", told) is not None

    assert whole()
    for damage in (
        ("tc", "qdisc", "del", "dev", port, "root"),
        ("tc", "qdisc", "change", "dev", shaper, "handle", "6f76:", "root",
         "tbf", "rate", "1gbit", "burst", "1mb", "latency", "1ms"),
        ("tc", "qdisc", "del", "dev", port, "clsact"),
        ("tc", "filter", "del", "dev", port, "ingress", "prio", str(0x6F77)),
        ("ip", "link", "del", shaper),
    ):  # fmt: skip
        code, out, err = cluster.inside(1, sandbox, *damage)
        assert code == 0, out + err
        eventually(whole, " ".join(damage))
    cluster.ok(1, "bash", "-c", KILL)
    assert speed(cluster, 1, "slow", far) < LIMITED_MAX
    cluster.inside(1, sandbox, "ip", "link", "del", shaper)
    cluster.ok(1, "overlayd", "join")
    eventually(whole, "the next agent puts it right")
    assert speed(cluster, 1, "slow", far) < LIMITED_MAX
    assert speed(cluster, 1, "c1", slow) < LIMITED_MAX
    assert cluster.differences(1) == []


def test_limits_are_removed_with_the_container(cluster: Cluster) -> None:
    """A removed container leaves no device behind; invalid rates are refused."""
    cluster.ok(1, "overlayd", "container", "add", "gone", "--network", "blue", "--rate", "1mbit")
    sandbox = cluster.sandbox(1)
    before = cluster.inside(1, sandbox, "ip", "-o", "link", "show", "type", "ifb")[1].count("sh")
    cluster.ok(1, "overlayd", "container", "rm", "gone")
    after = cluster.inside(1, sandbox, "ip", "-o", "link", "show", "type", "ifb")[1].count("sh")
    assert after == before - 1
    for bad, told in (
        ("10", "invalid rate"),
        ("1kbit", "out of range"),
        ("10mbps", "invalid rate"),
    ):
        code, _, err = cluster.run(
            1, "overlayd", "container", "add", "x", "--network", "blue", "--rate", bad
        )
        assert (code, told in err) == (2, True), err
