"""A disk that fills up while others go on: what a host hears and sees then ends no agent."""

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
    """Let a host's agent go on with its state on a disk that is full soon; twice is harmless."""
    if STATE in victim.run("cat", "/proc/mounts"):
        return
    victim.end(signal.SIGTERM)
    victim.run("sh", "-c", SMALL)
    victim.start()
    wait_until(three.all_healthy, "all well", 60.0)


def fill(victim: AgentDriver) -> None:
    """Leave no room on the disk of the state."""
    victim.run("sh", "-c", f"dd if=/dev/zero of={STATE}/ballast bs=4k 2>/dev/null; true")


def own_version(driver: AgentDriver) -> int:
    """Return how many times a host has written to its log of the cluster."""
    own = next(each for each in driver.get("/v1/members")["members"] if each["self"])
    held = (each["held"] for each in own["logs"]["versions"] if each["scope"] == "cluster")
    return int(max(held))


def test_networks_and_the_underlay_change_on_a_full_disk(three: LabCluster) -> None:
    """A network that somebody chose not to expose goes, and the underlay's MTU changes, while
    nothing can be written: the same agent does what is due when there is room again."""
    maker, victim = three.host(1), three.host(2)
    maker.post("/v1/networks", name="side", subnets=[{"subnet": "10.78.0.0/24"}])
    wait_until(lambda: "side" in str(victim.get("/v1/networks")), "the network is known")
    victim.post("/v1/unexpose", network="side")
    put_on_small_disk(three, victim)
    agent = victim.pid()
    fill(victim)

    maker.call("DELETE", "/v1/networks/side")
    victim.run("ip", "link", "set", "eth1", "mtu", "1400")
    wait_until(lambda: "full" in victim.run("cat", LOG), "the disk's fault is told")
    wait_until(lambda: "side" not in str(victim.get("/v1/networks")), "the removal is heard of")
    victim.run("sh", "-c", f"sleep 3; rm {STATE}/ballast")

    wait_until(lambda: "mtu 1350" in victim.run("ip", "-n", "c2", "link"), "the MTU follows")
    assert victim.pid() == agent
    assert "Traceback" not in victim.run("cat", LOG)
    victim.run("ip", "link", "set", "eth1", "mtu", "1500")
    wait_until(three.all_healthy, "all well", 60.0)


def test_what_others_remove_while_the_disk_of_its_maker_is_full(three: LabCluster) -> None:
    """The maker of a network deletes it for good as soon as there is room; until then the disk's
    fault is told, and nothing is a defect."""
    other, victim = three.host(1), three.host(2)
    put_on_small_disk(three, victim)
    victim.post("/v1/networks", name="mine", subnets=[{"subnet": "10.79.0.0/24"}])
    victim.post("/v1/dns", name="printer", network="mine", ips=["192.0.2.9"])
    wait_until(lambda: "mine" in str(other.get("/v1/networks")), "the network is known")
    fill(victim)

    other.call("DELETE", "/v1/networks/mine")
    wait_until(lambda: "mine" not in str(victim.get("/v1/networks")), "the removal is heard of")
    wait_until(lambda: "full" in victim.run("cat", LOG), "the disk's fault is told")
    before = own_version(victim)
    victim.run("rm", f"{STATE}/ballast")

    wait_until(lambda: own_version(victim) > before, "the maker has deleted it", 60.0)
    assert "Traceback" not in victim.run("cat", LOG)


def test_an_attach_that_a_full_disk_keeps_from_being_taken_back(three: LabCluster) -> None:
    """To two networks, of which the second has no address to give while its owner is stopped: that
    is what the caller reads, with what is left; what is left goes when there is room again."""
    owner, victim = three.host(1), three.host(2)
    put_on_small_disk(three, victim)
    victim.post("/v1/networks", name="ours", subnets=[{"subnet": "10.79.0.0/24"}])
    owner.post("/v1/networks", name="theirs", subnets=[{"subnet": "10.80.0.0/24"}])
    wait_until(lambda: "theirs" in str(victim.get("/v1/networks")), "both networks are known")
    victim.run("ip", "netns", "add", "both")
    wish = {"target": "netns:both", "networks": ["ours", "theirs"], "wait": "none"}
    before = sandboxes(victim)
    owner.send_signal(signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(victim.post, "/v1/endpoints", **wish)
            wait_until(lambda: sandboxes(victim) == before + 2, "the second network's turn")
            fill(victim)
            with pytest.raises(ApiRefusedError) as refused:
                asked.result(60)
    finally:
        owner.send_signal(signal.SIGCONT)

    assert refused.value.answer["what"] == "no free address on network theirs"
    assert "still attached to ours" in refused.value.answer["hint"]
    victim.run("rm", f"{STATE}/ballast")
    wait_until(lambda: not is_on(victim, "ours"), "what was left is taken back", 60.0)
    wait_until(lambda: "eth0" not in victim.run("ip", "-n", "both", "link"), "unplugged too")
    wait_until(three.all_healthy, "all well", 60.0)
    assert len(victim.post("/v1/endpoints", **wish)["endpoints"]) == 2
    victim.post("/v1/detach", target="both")


def sandboxes(driver: AgentDriver) -> int:
    """Return how many networks a host has a sandbox of."""
    return driver.run("ls", "/run/netns").count("ov-")


def is_on(driver: AgentDriver, network: str) -> bool:
    """Say whether anything is attached to a network, as a host knows it."""
    return bool(driver.get(f"/v1/endpoints?network={network}")["endpoints"])
