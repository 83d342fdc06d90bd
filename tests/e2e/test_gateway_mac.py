"""A member that claims the gateway's MAC takes no frame of other hosts' containers."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from overlay.lab.driver import AgentDriver, differences, endpoints, lasting, wait_until
from overlay.lab.fixtures import LabCluster, attach

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
GATEWAY = "10.32.0.1"
HONEST = (1, 2)
# Python imports a module of this name at its start: this agent has neither check of such a MAC.
HOSTILE = """
from overlay.core.dataplane import gateways
gateways.gateway_macs = lambda network: frozenset()
from overlay.agent.api.schema import field_types
field_types.GATEWAY_MAC_PREFIX = b"none"
"""


@pytest.fixture(scope="module")
def hostile(three: LabCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentDriver]:
    """Return vm3, whose agent lets a container claim the gateway's MAC."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "sitecustomize.py").write_text(HOSTILE, encoding="utf-8")
    driver = three.host(3)
    driver.end()
    path = os.pathsep.join([str(folder), str(Path(__file__).parent.parent.parent)])
    driver.start(PYTHONPATH=path)
    wait_until(three.all_healthy, "vm3 is back")
    yield driver
    driver.end()
    driver.start()


def gateway_mac(driver: AgentDriver) -> str:
    """Return the MAC of the gateway of network blue."""
    (network,) = driver.get("/v1/networks")["networks"]
    return str(network["subnets"][0]["gateway_mac"])


def in_sandbox(driver: AgentDriver, *command: str) -> str:
    """Run a command in a host's one sandbox; return its output."""
    names = [line.split()[0] for line in driver.run("ip", "netns").splitlines()]
    (sandbox,) = [name for name in names if name.startswith("ov-")]
    return driver.run("ip", "netns", "exec", sandbox, *command)


def entries(driver: AgentDriver) -> list[str]:
    """Return the FDB entries of the gateway's MAC on a host, without their flags."""
    mac = gateway_mac(driver)
    lines = in_sandbox(driver, "bridge", "fdb", "show").splitlines()
    return [" ".join(line.split()[:3]) for line in lines if line.startswith(mac)]


def claims(driver: AgentDriver) -> list[str]:
    """Return what a host's status says about claims on the gateway."""
    texts = [each["text"] for each in driver.get("/v1/status")["health"]]
    return [text for text in texts if "claims the gateway's" in text]


def require_gateway(three: LabCluster, number: int) -> None:
    """Assert that a container reaches its own host's gateway, and that it answers for names."""
    driver, inside = three.host(number), ("ip", "netns", "exec", f"c{number}")
    assert entries(driver) == [f"{gateway_mac(driver)} dev br0"]
    pings = driver.run(*inside, "ping", "-n", "-c", "20", "-i", "0.02", "-W", "1", GATEWAY)
    assert "20 received" in pings
    asked = ("dig", "+short", "+time=20", "+tries=1", f"@{GATEWAY}", "c2.overlay")
    assert driver.run(*inside, *asked).strip() == three.addresses[2]


def require_claims(driver: AgentDriver, told: list[str]) -> None:
    """Wait for these reports; assert that the kernel has nothing that it should not have."""
    wait_until(lambda: claims(driver) == told, f"{told} at {driver.host.name}")
    assert set(told) <= {each["text"] for each in driver.get("/v1/events")["events"]}
    assert lasting(partial(differences, driver)) == []


def test_a_claim_on_the_gateways_mac_diverts_nothing(
    three: LabCluster, hostile: AgentDriver
) -> None:
    """Other hosts' containers keep their gateway and DNS, and every status names the claim."""
    mac = gateway_mac(three.host(1))
    hostile.run("ip", "netns", "add", "g1")
    ip = attach(hostile, "g1", mac=mac)
    claim = f"g1 ({ip}) on vm3 claims the gateway's MAC {mac} on network blue"
    for number in HONEST:
        require_claims(three.host(number), [f"{claim}: the claim is ignored"])
        assert ("g1", ip, "vm3") in endpoints(three.host(number))
        require_gateway(three, number)

    hostile.post("/v1/detach", target="netns:g1")
    for number in HONEST:
        require_claims(three.host(number), [])
        require_gateway(three, number)


@pytest.mark.parametrize("running", [True, False], ids=["while it runs", "before its start"])
def test_a_lost_local_entry_is_restored(three: LabCluster, *, running: bool) -> None:
    """A row for the gateway's MAC, once removed, leaves its bridge without an own MAC."""
    driver = three.host(1)
    mac = gateway_mac(driver)
    if not running:
        driver.end()
    in_sandbox(driver, "bridge", "fdb", "replace", mac, "dev", "vxlan0", "master", "extern_learn")
    in_sandbox(driver, "sh", "-c", f"bridge fdb del {mac} dev vxlan0 master || true")
    if not running:
        driver.start()
    # A notification that meets a pass under way is made good by the next full read.
    wait_until(lambda: entries(driver) == [f"{mac} dev br0"], "the bridge's own entry", 45.0)

    assert lasting(partial(differences, driver)) == []
    require_gateway(three, 1)
