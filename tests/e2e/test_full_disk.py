"""A disk that fills up while others go on: what a host hears and sees then ends no agent."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from overlay.lab.driver import LOG, wait_until

if TYPE_CHECKING:
    from overlay.lab.scene import Scene

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
STATE = "/var/lib/overlayd"
SMALL = f"mount -t tmpfs -o size=4m none /mnt && cp -a {STATE}/. /mnt && mount --move /mnt {STATE}"


def test_networks_and_the_underlay_change_on_a_full_disk(three: Scene) -> None:
    """A network that somebody chose not to expose goes, and the underlay's MTU changes, while
    nothing can be written: the same agent does what is due when there is room again."""
    maker, victim = three.host(1), three.host(2)
    maker.post("/v1/networks", name="side", subnets=[{"subnet": "10.78.0.0/24"}])
    wait_until(lambda: "side" in str(victim.get("/v1/networks")), "the network is known")
    victim.post("/v1/unexpose", network="side")
    victim.end(signal.SIGTERM)
    victim.run("sh", "-c", SMALL)
    victim.start()
    wait_until(three.well, "all well", 60.0)
    agent = victim.pid()
    victim.run("sh", "-c", f"dd if=/dev/zero of={STATE}/ballast bs=4k 2>/dev/null; true")

    maker.call("DELETE", "/v1/networks/side")
    victim.run("ip", "link", "set", "eth1", "mtu", "1400")
    wait_until(lambda: "full" in victim.run("cat", LOG), "the disk's fault is told")
    wait_until(lambda: "side" not in str(victim.get("/v1/networks")), "the removal is heard of")
    victim.run("sh", "-c", f"sleep 3; rm {STATE}/ballast")

    wait_until(lambda: "mtu 1350" in victim.run("ip", "-n", "c2", "link"), "the MTU follows")
    assert victim.pid() == agent
    assert "Traceback" not in victim.run("cat", LOG)
    victim.run("ip", "link", "set", "eth1", "mtu", "1500")
    wait_until(three.well, "all well", 60.0)
