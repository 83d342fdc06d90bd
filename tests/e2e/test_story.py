"""A host's account of itself: events across a crash, results of verify and status, reset."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest
from overlay.lab import host_process
from overlay.lab.driver import AgentDriver, ApiRefusedError, wait_until
from overlay.lab.fixtures import attach

if TYPE_CHECKING:
    from overlay.lab.fixtures import LabCluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def overlayd(driver: AgentDriver, *words: str) -> tuple[int, str]:
    """Run the command line on a host; return its exit code and output."""
    done = host_process.run(driver.host, "overlayd", *words)
    return done.returncode, done.stdout + done.stderr


def test_events_survive_a_crash(three: LabCluster) -> None:
    """They name the user of an address, its network and its end, though the agent was killed."""
    victim = three.host(2)
    victim.run("ip", "netns", "add", "short")
    address = attach(victim, "short", name="short-lived")
    victim.end(signal.SIGKILL)
    victim.run("ip", "netns", "del", "short")
    victim.start()

    def ended() -> bool:
        return f"gave up {address}" in overlayd(victim, "events", "--since", "10m")[1]

    wait_until(ended, "the end of the address in the events")
    code, said = overlayd(victim, "events", "--since", "10m", "--json")
    events = [json.loads(line) for line in said.splitlines()]
    story = [event for event in events if event.get("endpoint") == "short-lived"]
    assert code == 0
    assert [event["kind"] for event in story] == ["attach", "gone", "detach"]
    assert {event["network"] for event in story} == {"blue"}
    assert address in story[0]["text"]
    assert [event["time"] for event in story] == sorted(event["time"] for event in story)
    wait_until(three.all_healthy, "all well")


def test_verify_and_status_exit_with_the_result(three: LabCluster) -> None:
    """A difference that cannot be repaired is named, with exit code 4; later both exit with 0."""
    victim = three.host(1)
    vni = victim.get("/v1/networks/blue")["vni"]
    sandbox = victim.run("sh", "-c", "ls /run/netns | grep ^ov-").strip()
    wait_until(lambda: overlayd(victim, "verify")[0] == 0, "no difference")
    wait_until(lambda: overlayd(victim, "status", "--check") == (0, "ok\n"), "no complaint")
    # Another program uses the VNI on the same port while the agent is stopped.
    victim.send_signal(signal.SIGSTOP)
    victim.run("ip", "-n", sandbox, "link", "del", "vxlan0")
    theft = f"ip link add thief type vxlan id {vni} dstport 4789 local 192.168.56.11"
    victim.run(*theft.split())
    victim.send_signal(signal.SIGCONT)

    wait_until(lambda: overlayd(victim, "verify")[0] == 4, "verify finds it")
    code, said = overlayd(victim, "verify", "--repair")
    assert "vxlan0" in said
    wait_until(lambda: overlayd(victim, "status", "--check")[0] == 4, "status finds it")
    assert "thief" in overlayd(victim, "status")[1]
    assert "some differences could not be repaired" in said
    assert code == 4
    victim.run("ip", "link", "del", "thief")

    assert overlayd(victim, "verify", "--repair")[0] == 0
    wait_until(lambda: overlayd(victim, "verify")[0] == 0, "no difference any more")
    assert overlayd(victim, "status", "--wait", "--timeout", "30")[0] == 0
    wait_until(three.all_healthy, "all well")


@pytest.mark.parametrize("without_state", [False, True], ids=["dead agent", "no state either"])
def test_reset_needs_no_agent_and_no_state(three: LabCluster, *, without_state: bool) -> None:
    """It removes overlayd's objects only, and the host can join again."""
    victim = three.host(3)
    victim.run("sh", "-c", "ip netns add mine 2>/dev/null; ip link add mine0 type bridge; true")
    victim.end(signal.SIGKILL)
    if without_state:
        victim.run("rm", "-rf", "/var/lib/overlayd")
    code, said = overlayd(victim, "reset", "--yes")

    assert code == 0, said
    names = victim.run("sh", "-c", "ls /run/netns").split()
    assert not [name for name in names if name.startswith("ov-")]
    assert {"c3", "mine"} <= set(names)
    assert "mine0" in victim.run("ip", "-o", "link")
    assert "overlayd" not in victim.run("sh", "-c", "ls /var/lib /run")
    assert "eth" not in victim.run("ip", "-n", "c3", "-o", "link")
    token = three.host(1).get("/v1/token")["token"]
    victim.start()
    victim.post("/v1/join", peers=[three.host(1).address], token=token, name=f"vm3-{without_state}")
    wait_until(lambda: attaches(victim, "c3", f"c3-{without_state}"), "attached as a new node")


def attaches(driver: AgentDriver, namespace: str, name: str) -> bool:
    """Attach; False where the host does not know the network yet."""
    try:
        attach(driver, namespace, name=name)
    except ApiRefusedError:
        return False
    return True
