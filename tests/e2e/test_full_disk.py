"""A full disk does not end an agent, whatever its peers and its host's kernel do meanwhile."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from overlay.lab.driver import LOG, AgentDriver, ApiRefusedError, wait_until

if TYPE_CHECKING:
    from overlay.lab.fixtures import LabCluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
STATE = "/var/lib/overlayd"
SMALL = f"mount -t tmpfs -o size=4m none /mnt && cp -a {STATE}/. /mnt && mount --move /mnt {STATE}"


def put_on_small_disk(three: LabCluster, victim: AgentDriver) -> None:
    """Move the state of a host's agent to a small disk, unless it is there already."""
    if STATE in victim.run("cat", "/proc/mounts"):
        return
    victim.end(signal.SIGTERM)
    victim.run("sh", "-c", SMALL)
    victim.start()
    wait_until(three.all_healthy, "all healthy", 60.0)


def fill(victim: AgentDriver) -> None:
    """Fill the disk with the state."""
    victim.run("sh", "-c", f"dd if=/dev/zero of={STATE}/ballast bs=4k 2>/dev/null; true")


def own_version(driver: AgentDriver) -> int:
    """Return how many times a host has written to its log of the cluster."""
    own = next(each for each in driver.get("/v1/members")["members"] if each["self"])
    held = (each["held"] for each in own["logs"]["versions"] if each["scope"] == "cluster")
    return int(max(held))


def test_a_full_disk_only_delays_changes(three: LabCluster) -> None:
    """An unexposed network is removed and the underlay's MTU changes while the disk is full.

    The same agent follows both changes once there is room again.
    """
    maker, victim = three.host(1), three.host(2)
    maker.post("/v1/networks", name="side", subnets=[{"subnet": "10.78.0.0/24"}])
    wait_until(lambda: "side" in str(victim.get("/v1/networks")), "the network is known")
    victim.post("/v1/unexpose", network="side")
    put_on_small_disk(three, victim)
    agent = victim.pid()
    fill(victim)

    maker.call("DELETE", "/v1/networks/side")
    victim.run("ip", "link", "set", "eth1", "mtu", "1400")
    wait_until(lambda: "full" in victim.run("cat", LOG), "the disk's fault in the log")
    wait_until(lambda: "side" not in str(victim.get("/v1/networks")), "the removal arrives")
    victim.run("sh", "-c", f"sleep 3; rm {STATE}/ballast")

    wait_until(lambda: "mtu 1350" in victim.run("ip", "-n", "c2", "link"), "the MTU follows")
    assert victim.pid() == agent
    assert "Traceback" not in victim.run("cat", LOG)
    victim.run("ip", "link", "set", "eth1", "mtu", "1500")
    wait_until(three.all_healthy, "all healthy", 60.0)


def test_a_full_disk_delays_the_creators_deletion(three: LabCluster) -> None:
    """The creator of a removed network deletes its record as soon as its disk has room.

    Until then, the log has the disk's fault and no traceback.
    """
    other, victim = three.host(1), three.host(2)
    put_on_small_disk(three, victim)
    victim.post("/v1/networks", name="mine", subnets=[{"subnet": "10.79.0.0/24"}])
    victim.post("/v1/dns", name="printer", network="mine", ips=["192.0.2.9"])
    wait_until(lambda: "mine" in str(other.get("/v1/networks")), "the network is known")
    fill(victim)

    other.call("DELETE", "/v1/networks/mine")
    wait_until(lambda: "mine" not in str(victim.get("/v1/networks")), "the removal arrives")
    wait_until(lambda: "full" in victim.run("cat", LOG), "the disk's fault in the log")
    before = own_version(victim)
    victim.run("rm", f"{STATE}/ballast")

    wait_until(lambda: own_version(victim) > before, "the creator has deleted it", 60.0)
    assert "Traceback" not in victim.run("cat", LOG)


def test_a_rollback_on_a_full_disk_is_done_later(three: LabCluster) -> None:
    """An attach to two networks fails at the second one, whose owner is stopped.

    The error says so, and which endpoint could not be rolled back on the full disk. That endpoint
    is removed once there is room again.
    """
    owner, victim = three.host(1), three.host(2)
    put_on_small_disk(three, victim)
    victim.post("/v1/networks", name="ours", subnets=[{"subnet": "10.79.0.0/24"}])
    # A /30 has one address, which its creator keeps.
    owner.post("/v1/networks", name="theirs", subnets=[{"subnet": "10.80.0.0/30"}])
    wait_until(lambda: "theirs" in str(victim.get("/v1/networks")), "both networks are known")
    victim.run("ip", "netns", "add", "both")
    request = {"target": "netns:both", "networks": ["ours", "theirs"], "wait": "none"}
    before = sandboxes(victim)
    owner.send_signal(signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(1) as pool:
            attach = pool.submit(victim.post, "/v1/endpoints", **request)
            wait_until(lambda: sandboxes(victim) == before + 2, "the second network's sandbox")
            fill(victim)
            with pytest.raises(ApiRefusedError) as refused:
                attach.result(60)
    finally:
        owner.send_signal(signal.SIGCONT)

    assert refused.value.answer["what"] == "no free address on network theirs"
    assert "stays attached to ours" in refused.value.answer["hint"]
    victim.run("rm", f"{STATE}/ballast")
    wait_until(lambda: not is_on(victim, "ours"), "the rollback", 60.0)
    wait_until(
        lambda: "eth0" not in victim.run("ip", "-n", "both", "link"), "the interface removed, too"
    )
    wait_until(three.all_healthy, "all healthy", 60.0)
    assert len(victim.post("/v1/endpoints", **request)["endpoints"]) == 2
    victim.post("/v1/detach", target="both")


def sandboxes(driver: AgentDriver) -> int:
    """Return the number of sandboxes on a host."""
    return driver.run("ls", "/run/netns").count("ov-")


def is_on(driver: AgentDriver, network: str) -> bool:
    """Return whether a host knows of an endpoint on a network."""
    return bool(driver.get(f"/v1/endpoints?network={network}")["endpoints"])
