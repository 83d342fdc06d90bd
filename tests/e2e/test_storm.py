"""Many clients at once, and clients that misbehave."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
from overlay import limits
from overlay.lab.driver import AgentDriver, ApiRefusedError, wait_until
from overlay.lab.fixtures import attach

if TYPE_CHECKING:
    from overlay.lab.fixtures import LabCluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
CLIENTS = 16
STORM_S = 5.0


def churn(
    driver: AgentDriver, name: str, until: float, done: list[int], refusals: list[str]
) -> None:
    """Attach and detach one namespace until a moment; note every refusal."""
    count = 0
    while time.monotonic() < until:
        try:
            attach(driver, name)
            driver.post("/v1/detach", target=f"netns:{name}")
            count += 2
        except ApiRefusedError as error:
            refusals.append(str(error))
    done.append(count)


def reading_passes(driver: AgentDriver) -> int:
    """Return how many passes of a host have read its kernel."""
    found = re.findall(
        r"^overlayd_reconcile_reads_total\S* (\d+)", driver.run("overlayd", "metrics"), re.MULTILINE
    )
    return sum(map(int, found))


def test_a_storm_of_attaches_and_detaches(three: LabCluster) -> None:
    """Parallel clients attach and detach as fast as they can: nothing is refused or left.

    None of their changes looks as if somebody else had changed the kernel.
    """
    victim = three.host(1)
    names = [f"storm{number}" for number in range(CLIENTS)]
    victim.run("sh", "-c", f"for n in {' '.join(names)}; do ip netns add $n; done")
    done: list[int] = []
    refusals: list[str] = []
    until = time.monotonic() + STORM_S
    clients = [
        threading.Thread(target=churn, args=(victim, name, until, done, refusals)) for name in names
    ]
    read_before = reading_passes(victim)
    with three.both_ways() as verdicts:
        for client in clients:
            client.start()
        for client in clients:
            client.join()

    lost = sum(each.lost for each in verdicts)
    sent = sum(each.sent for each in verdicts)
    print(  # noqa: T201 - asked for
        f"{CLIENTS} clients: {sum(done) / STORM_S:.0f} attaches and detaches a second; "
        f"{len(refusals)} refused; {lost} of {sent} packets lost meanwhile"
    )
    assert refusals == []
    assert lost == 0
    # Two for the regular interval, and a few for late notifications on a slow machine.
    assert reading_passes(victim) - read_before <= 2 + sum(done) // 50
    wait_until(three.all_equal, "all hosts equal")
    assert (
        victim.run("sh", "-c", "ip -n $(ls /run/netns | grep ^ov-) -o link | grep -c ': ve'")
        == "1\n"
    )


def test_the_last_detach_and_a_new_attach_at_once(three: LabCluster) -> None:
    """A network's last endpoint is removed while another is added: both work, many times."""
    victim = three.host(2)
    victim.post("/v1/networks", name="edge", subnets=[{"subnet": "10.55.0.0/24"}])
    victim.run("sh", "-c", "ip netns add e1; ip netns add e2")
    failures: list[str] = []

    def swing(name: str) -> None:
        for _ in range(25):
            try:
                victim.post("/v1/endpoints", target=f"netns:{name}", networks=["edge"])
                victim.post("/v1/detach", target=f"netns:{name}")
            except ApiRefusedError as error:
                failures.append(str(error))

    swings = [threading.Thread(target=swing, args=(name,)) for name in ("e1", "e2")]
    for each in swings:
        each.start()
    for each in swings:
        each.join()

    assert failures == []
    wait_until(three.all_equal, "all hosts equal")
    assert victim.run("sh", "-c", "ls /run/netns | grep -c ^ov-") == "1\n"
    victim.call("DELETE", "/v1/networks/edge")


def test_idle_connections_are_closed(three: LabCluster) -> None:
    """Connections that send nothing, or half a request, do not keep others out."""
    victim = three.host(3)
    path = f"/proc/{victim.host.pid}/root/run/overlayd/api.sock"
    with contextlib.ExitStack() as stack:
        for number in range(2 * limits.API_CLIENTS_MAX):
            stuck = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            stuck.settimeout(5.0)
            wait_until(lambda stuck=stuck: connects(stuck, path), "a place in the backlog")  # type: ignore[misc]
            if number % 2:
                stuck.sendall(b"POST /v1/endpoints HTTP/1.1\r\nHost: x\r\nContent-Le")

        assert victim.get("/v1/status")["cluster"] is not None
        wait_until(
            lambda: descriptors(victim) < limits.API_CLIENTS_MAX + 50, "the stuck ones closed"
        )
        assert victim.get("/v1/status")["cluster"] is not None


def connects(client: socket.socket, path: str) -> bool:
    """Connect; False while the backlog is full."""
    try:
        client.connect(path)
    except BlockingIOError:
        return False
    return True


def descriptors(driver: AgentDriver) -> int:
    """Return how many files an agent has open."""
    return int(driver.run("sh", "-c", "ls /proc/$(pgrep -f '[o]verlay.cli.main agent')/fd | wc -l"))
