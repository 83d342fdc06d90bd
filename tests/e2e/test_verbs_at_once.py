"""Concurrent verbs on the same objects: no agent fails, and nothing is left behind."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from overlay.lab.driver import LOG, AgentDriver, ApiRefusedError, differences, wait_until

if TYPE_CHECKING:
    from overlay.lab.fixtures import LabCluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
STORM_S = 12.0
NAMES = ("s1", "s2", "s3")
LEFT = "nft list tables; ip -o link | grep -o ' ov[^:@]*'; ls /run/netns | grep ^ov-; true"


def attach(driver: AgentDriver, name: str, **more: object) -> None:
    """Attach a namespace to network edge."""
    driver.post("/v1/endpoints", target=f"netns:{name}", networks=["edge"], wait="none", **more)


def steps(driver: AgentDriver) -> list[Callable[[], object]]:
    """Return steps that run in any order: each may be refused, and none may do harm."""
    found: list[Callable[[], object]] = [
        lambda: driver.post("/v1/expose", network="edge"),
        lambda: driver.post("/v1/unexpose", network="edge"),
        lambda: driver.post("/v1/networks", name="edge", subnets=[{"subnet": "10.77.0.0/24"}]),
        lambda: driver.call("DELETE", "/v1/networks/edge"),
        lambda: driver.post("/v1/published", name="s1", network="edge", ports=["8080:80"]),
        lambda: driver.post("/v1/published", name="s2", network="edge", ports=["8080:80"]),
        lambda: driver.post("/v1/unpublish", name="s1"),
        lambda: driver.post("/v1/unpublish", name="s2"),
        lambda: driver.get("/v1/verify"),
        lambda: driver.get("/v1/verify?repair=1"),
    ]
    for name in NAMES:
        found.append(lambda name=name: attach(driver, name))  # type: ignore[misc]
        found.append(lambda name=name: driver.post("/v1/detach", target=f"netns:{name}"))  # type: ignore[misc]
        found.append(
            lambda name=name: driver.run(  # type: ignore[misc]
                "sh", "-c", f"ip -n {name} link del eth0 2>/dev/null || true"
            )
        )
    return found


def storm(driver: AgentDriver, until: float, defects: list[str], seed: int) -> None:
    """Run random steps until a moment; record every outcome that is not a plain refusal."""
    rng = random.Random(seed)
    while time.monotonic() < until:
        try:
            rng.choice(steps(driver))()
        except ApiRefusedError as error:
            if error.status >= 500 and error.status != 503:
                defects.append(str(error))


def test_all_verbs_on_one_network_at_once(three: LabCluster) -> None:
    """Many clients of two hosts expose, publish, attach and remove in random order.

    There is no traceback, each port maps to one name, the kernels are as desired, and nothing is
    left after a leave.
    """
    for driver in three.drivers[:2]:
        driver.run("sh", "-c", f"for n in {' '.join(NAMES)}; do ip netns add $n; done")
    until = time.monotonic() + STORM_S
    defects: list[str] = []
    clients = [
        threading.Thread(target=storm, args=(three.host(1 + number % 2), until, defects, number))
        for number in range(12)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()

    logs = [driver.run("cat", LOG) for driver in three.drivers]
    print(defects[:20])  # noqa: T201 - asked for
    for log in logs:
        assert "Traceback" not in log, log[log.index("Traceback") - 300 :][:3000]
    for driver in three.drivers:
        wait_until(lambda driver=driver: not differences(driver), "kernels as planned", 60)  # type: ignore[misc]
        places = [each["host_port"] for each in driver.get("/v1/published")["published"]]
        assert len(places) == len(set(places)), "a port leads to two names"
    for driver in three.drivers[1:]:
        driver.post("/v1/leave", force=True)
        assert driver.run("sh", "-c", LEFT) == ""


def test_two_names_for_one_port_at_once(three: LabCluster) -> None:
    """Of two that publish a port together, one is refused with the other's name."""
    host = three.host(1)
    host.run("ip", "netns", "add", "other")
    host.post("/v1/endpoints", target="netns:other", networks=["blue"])
    outcomes: list[tuple[str, int]] = []

    def publish(name: str, together: threading.Barrier) -> None:
        together.wait()
        try:
            host.post("/v1/published", name=name, network="blue", ports=["8081:80"])
            outcomes.append((name, 200))
        except ApiRefusedError as error:
            outcomes.append((name, error.status))

    for _ in range(20):
        outcomes.clear()
        together = threading.Barrier(2)
        clients = [threading.Thread(target=publish, args=(n, together)) for n in ("c1", "other")]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        assert sorted(status for _, status in outcomes) == [200, 409], outcomes
        for name in ("c1", "other"):
            host.post("/v1/unpublish", name=name)


def test_an_interface_removed_by_hand_while_it_is_detached(three: LabCluster) -> None:
    """The recovery of a lost interface does not restore an endpoint that is being detached."""
    host = three.host(1)
    host.run("ip", "netns", "add", "torn")
    for number in range(40):
        host.post("/v1/endpoints", target="netns:torn", networks=["blue"])
        client = threading.Thread(
            target=lambda: host.run("sh", "-c", "ip -n torn link del eth0 2>/dev/null || true")
        )
        client.start()
        time.sleep(number % 20 * 0.005)  # any moment between the two, and after
        host.post("/v1/detach", target="netns:torn")
        client.join()
        links = host.run("ip", "-n", "torn", "-o", "link")
        assert "eth0" not in links, (number, links)
    assert "torn" not in str(host.get("/v1/endpoints"))
    wait_until(lambda: not differences(host), "the kernel as planned")
    assert "Traceback" not in host.run("cat", LOG)


def test_a_port_unpublished_during_an_attach_stays_so(three: LabCluster) -> None:
    """An attach that looks up published names meanwhile does not restore the port."""
    host = three.host(1)
    host.run("ip", "netns", "add", "comes")
    ports = [f"{port}:80" for port in range(9000, 9060)]
    for number in range(15):
        host.post("/v1/published", name="c1", network="blue", ports=ports)
        client = threading.Thread(
            target=lambda: host.post("/v1/endpoints", target="netns:comes", networks=["blue"])
        )
        client.start()
        time.sleep(number * 0.01)
        host.post("/v1/unpublish", name="c1")
        client.join()
        assert "dport 90" not in host.run("nft", "list", "ruleset"), number
        host.post("/v1/detach", target="netns:comes")


def test_removal_and_attach_of_a_network_exclude_each_other(three: LabCluster) -> None:
    """At any moment either is refused, and both never succeed.

    A refused container has nothing of the network.
    """
    host = three.host(1)
    host.run("ip", "netns", "add", "late")
    for number in range(40):
        host.post("/v1/networks", name="brief", subnets=[{"subnet": "10.78.0.0/24"}])
        done: list[str] = []

        def client(done: list[str] = done) -> None:
            with contextlib.suppress(ApiRefusedError):
                host.post("/v1/endpoints", target="netns:late", networks=["brief"], wait="none")
                done.append("attached")

        attaching = threading.Thread(target=client)
        attaching.start()
        time.sleep(number % 20 * 0.002)
        with contextlib.suppress(ApiRefusedError):
            host.call("DELETE", "/v1/networks/brief")
            done.append("removed")
        attaching.join()

        assert len(done) == 1, (number, done)
        if done == ["removed"]:
            assert "eth0" not in host.run("ip", "-n", "late", "-o", "link"), number
        host.post("/v1/detach", target="netns:late")
        with contextlib.suppress(ApiRefusedError):
            host.call("DELETE", "/v1/networks/brief")
    assert "Traceback" not in host.run("cat", LOG)
