"""The tests of the data plane, each of which runs on the native path, the fast one and the bridge.

Owns: which files these are, and the check that their hosts took the path that was asked for
(OVERLAYD_LAB_DATA_PATH, `overlay/lab/data_path`; `make data-path-test`). A run that takes another
one fails.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from overlay.agent.process.config import CONFIG_DEFAULT
from overlay.lab import data_path, host_process, lab
from overlay.lab.driver import AgentDriver, ApiRefusedError
from overlay.lab.host_process import HostProcess

FILES = tuple(
    f"tests/e2e/test_{name}.py"
    for name in (
        "capture", "cluster", "controls", "dhcp_server", "encryption", "expose", "gateway_mac",
        "gateway_priority", "host_changes", "isolation", "moving", "mtu", "multicast", "paths",
        "ping_and_trace", "plug", "policy", "port_security", "publish", "random_walk", "rates",
        "router", "service_traffic", "several_subnets", "spoofing", "underlay_ipv6",
        "virtual_address",
    )
)  # fmt: skip
# Of `make chaos`: whose containers send nothing to other hosts, or encrypted.
WITHOUT_PACKETS = tuple(
    f"tests/e2e/test_{name}.py"
    for name in (
        "cluster_crash_points", "crash_points", "docker_crashes", "encryption_faults",
        "faults_at_points", "object_crash_points",
    )
)  # fmt: skip
# Whose hosts have the package's configuration, and so the defaults.
OF_PACKAGES = ("tests/e2e/test_install.py", "tests/e2e/test_upgrade.py")
# Where networks take another path than the others of their host, by what `status` says.
EXCEPTIONS = {
    "it is encrypted": "fast",
    "it is being switched": "fast",
    "its frames do not leave this host": "fast",
}
JUDGED = "the host's firewall judges"  # as a rule of the test's did until just now


class PathWatch:
    """Looks at the hosts of a file's labs after each test."""

    def __init__(self) -> None:
        self.wanted = data_path.wanted()
        self.is_taken = False  # a network was seen on the path, and if native, packets as well

    def look(self) -> None:
        """Check what each network of each host says; raises AssertionError.

        Without a wanted path, no host is configured for one, and none is looked at.
        """
        for host in host_process.running():
            if host.name != lab.SWITCH and data_path.is_configured(host):
                for network in _networks_of(host):
                    self._check(host, network)

    def _check(self, host: HostProcess, network: dict[str, Any]) -> None:
        taken, why = network.get("data_path"), network.get("data_path_why") or ""
        is_expected = EXCEPTIONS.get(why) == taken or why.startswith(JUDGED)
        if taken is None or (self.wanted == "native" and is_expected):
            return
        shown = f"{host.name}: {network['name']} takes the path {taken} ({why})"
        assert taken == self.wanted, f"{shown}, not {self.wanted}"
        if not self.is_taken:
            self.is_taken = self.wanted != "native" or _has_shortcut_traffic(host)


def _networks_of(host: HostProcess) -> list[dict[str, Any]]:
    """Return the networks of a host's status; none if no agent with the lab's file answers."""
    try:
        status = AgentDriver(host, 0).get("/v1/status")
    except (OSError, ApiRefusedError):
        return []
    found: list[dict[str, Any]] = status["networks"]
    return found if status["config"] == str(CONFIG_DEFAULT) else []


def _has_shortcut_traffic(host: HostProcess) -> bool:
    """Return whether a shortcut of a host has received a packet from the underlay."""
    return any(packets > 0 for packets in _received(host))


def _received(host: HostProcess) -> Iterator[int]:
    for sandbox in Path(f"/proc/{host.pid}/root/run/netns").glob("ov-*"):
        words = ("ip", "-n", sandbox.name, "-s", "-j", "link", "show", "type", "veth")
        for link in json.loads(host_process.run(host, *words).stdout or "[]"):
            if link["ifname"].startswith("native"):
                yield int(link["stats64"]["rx"]["packets"])
