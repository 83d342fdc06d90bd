"""The Debian package on lab hosts: installed, upgraded under traffic, refused, purged."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.e2e.packages import (
    OVERLAYD,
    PREPARE,
    agent_pid,
    dpkg,
    stop_agent,
    version_of,
)
from tests.e2e.ping_log import lost_pings

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.netns, pytest.mark.e2e]
LAYERS = {"/usr": "usr", "/opt": "opt", "/etc": "etc", "/var/lib": "lib"}
SET_FORMAT = """
import sqlite3, sys
state = sqlite3.connect("/var/lib/overlayd/state.db")
(before,) = state.execute("PRAGMA user_version").fetchone()
state.execute(f"PRAGMA user_version={sys.argv[1]}")
print(before)
"""


def left_behind(cluster: Cluster, number: int) -> list[str]:
    """Return the files that a host has now and did not have when it was created."""
    found: list[str] = []
    for folder, layer in LAYERS.items():
        # What was deleted is a character device there (overlayfs: whiteout).
        told = cluster.ok(
            number, "find", f"/run/lab/{layer}/up", "-mindepth", "1", "!", "-type", "c",
            "!", "-type", "d", "-printf", f"{folder}/%P\\n",
        )  # fmt: skip
        found += told.split()
    return found


@pytest.fixture(scope="module")
def newer(unpacked: Path) -> Path:
    """Return the same package under a higher version."""
    control = unpacked / "DEBIAN/control"
    text = control.read_text()
    path = unpacked.parent / "newer.deb"
    control.write_text(re.sub(r"^Version: .*", "Version: 99.0-1", text, flags=re.MULTILINE))
    subprocess.run(
        ["dpkg-deb", "-Znone", "--root-owner-group", "--build", unpacked, path],
        check=True,
        timeout=60,
        capture_output=True,
    )
    control.write_text(text)
    return path


@pytest.fixture(scope="module")
def installed(hosts: Cluster, package: Path) -> Cluster:
    """Two hosts with the package, joined; c1 and c2 on the networks blue and vault."""
    for number in (1, 2):
        hosts.ok(number, "sh", "-c", PREPARE)
        before = left_behind(hosts, number)
        assert [path for path in before if "overlayd" in path] == []
        code, told = dpkg(hosts, number, "-i", str(package))
        assert code == 0, told
    hosts.ok(1, OVERLAYD, "join")
    token = hosts.ok(1, OVERLAYD, "token", "show")
    joining = [OVERLAYD, "join", "192.168.56.11", "--token-file", "-"]
    code, _, told = hosts.run(2, *joining, stdin=token)
    assert code == 0, told
    hosts.ok(1, OVERLAYD, "network", "create", "blue", "--subnet", "10.32.0.0/16")
    hosts.ok(1, OVERLAYD, "network", "create", "vault", "--encrypted")
    for number in (1, 2):
        hosts.ok(number, OVERLAYD, "container", "add", f"c{number}", "--network", "blue")
        hosts.ok(number, OVERLAYD, "attach", f"c{number}", "--network", "vault")
    return hosts


def test_the_installed_agent_serves(installed: Cluster) -> None:
    """The package's program runs, the group may use the API, and names resolve across hosts."""
    socket = installed.ok(1, "stat", "-c", "%U:%G %a", "/run/overlayd/api.sock").strip()
    program = installed.ok(1, "cat", f"/proc/{agent_pid(installed, 1)}/cmdline")

    assert socket == "root:overlayd 660"
    assert program.startswith("/opt/overlayd/bin/python\0")
    installed.ok(1, OVERLAYD, "container", "exec", "c1", "--", "ping", "-c", "1", "-W", "5", "c2")


def test_an_upgrade_keeps_state_and_loses_no_packet(
    installed: Cluster, newer: Path, eventually: Callable[..., None]
) -> None:
    """Pings continue through unpacking and the agent's restart; node and addresses stay.

    Also on an encrypted network, of which no frame is in clear.
    """
    before = installed.json(1, "status")
    (container,) = installed.json(2, "container", "ls")["containers"]
    for end in container["endpoints"]:
        log = f"/run/ping-{end['network']}.log"
        pinging = f"ip netns exec c1 ping -i 0.01 {end['ip']} > {log} 2>&1 &"
        installed.ok(1, "sh", "-c", pinging)
    vni = int(installed.json(1, "network", "inspect", "vault")["vni"])
    in_clear = f"udp port 4789 and udp[12:4] = {vni << 8}"
    listening = f"tcpdump -Z root -l -n -i eth1 '{in_clear}' >/run/clear.log 2>/run/dump.log &"
    installed.ok(2, "sh", "-c", listening)
    eventually(lambda: "listening on" in installed.ok(2, "cat", "/run/dump.log"), "tcpdump")
    code, told = dpkg(installed, 1, "-i", str(newer))
    assert code == 0, told
    assert "still the old version" in told
    stop_agent(installed, 1)
    installed.ok(1, OVERLAYD, "join")
    eventually(lambda: installed.json(1, "status")["cluster"]["members"]["alive"] == 2, "vm2 seen")
    # SIGINT: the summary, as after Ctrl-C.
    installed.ok(1, "sh", "-c", "kill -INT $(pidof ping)")
    for network in ("blue", "vault"):
        log = f"/run/ping-{network}.log"
        eventually(lambda at=log: "packet loss" in installed.ok(1, "cat", at), "the summary")
        shown = installed.ok(1, "cat", log)
        assert shown.count(" ttl=") > 10
        assert lost_pings(shown, under_way_max=100) == []
    assert installed.ok(2, "cat", "/run/clear.log") == ""
    installed.ok(2, "sh", "-c", "kill $(pidof tcpdump)")

    assert version_of(installed, 1) == "install ok installed 99.0-1"
    assert installed.json(1, "status")["node"]["id"] == before["node"]["id"]


def test_a_downgrade_below_the_state_is_refused(installed: Cluster, package: Path) -> None:
    """The error has the reason, the newer version stays installed, and the agent keeps running."""
    format_before = installed.ok(1, "/usr/bin/python3", "-c", SET_FORMAT, "99").strip()
    code, told = dpkg(installed, 1, "-i", str(package))
    installed.ok(1, "/usr/bin/python3", "-c", SET_FORMAT, format_before)

    assert code != 0
    assert "was written by a newer overlayd (format 99)" in told
    assert version_of(installed, 1) == "install ok installed 99.0-1"
    assert installed.json(1, "status")["cluster"]["members"]["alive"] == 2


def test_a_downgrade_that_can_read_the_state_is_accepted(installed: Cluster, package: Path) -> None:
    """The state's format decides, not the version number."""
    code, told = dpkg(installed, 1, "-i", str(package))

    assert code == 0, told
    assert "99.0" not in version_of(installed, 1)


PLUGINS = ("/opt/cni/bin/overlayd", "/etc/cni/net.d/10-overlayd-blue.conflist",
           "/usr/local/libexec/netavark/overlayd")  # fmt: skip


def install_plugins(cluster: Cluster, number: int) -> None:
    """Let Podman and CNI's runtimes start overlayd on a host."""
    cluster.ok(number, OVERLAYD, "cni", "install", "blue")
    cluster.ok(number, OVERLAYD, "netavark", "install")
    assert plugins(cluster, number) == set(PLUGINS)


def plugins(cluster: Cluster, number: int) -> set[str]:
    """Return the files of plugins that a host has."""
    return {path for path in PLUGINS if cluster.run(number, "test", "-e", path)[0] == 0}


def test_removal_clears_the_kernel_and_keeps_the_state(installed: Cluster) -> None:
    """Agent, namespaces and plugins are removed; identity and configuration are kept."""
    install_plugins(installed, 1)
    installed.ok(1, "sh", "-c", "echo '# mine' >> /etc/overlayd/overlayd.toml")
    code, told = dpkg(installed, 1, "-r", "overlayd")

    assert code == 0, told
    assert plugins(installed, 1) == set()
    assert installed.ok(1, "ip", "netns") == ""
    assert "overlay.cli.main" not in installed.ok(1, "ps", "-eo", "args")
    installed.ok(1, "test", "-e", "/var/lib/overlayd/state.db")
    installed.ok(1, "grep", "-q", "mine", "/etc/overlayd/overlayd.toml")


def test_purge_leaves_nothing(installed: Cluster) -> None:
    """No file, group or interface remains that was not there before the installation."""
    code, told = dpkg(installed, 1, "-P", "overlayd")
    left = [path for path in left_behind(installed, 1) if "overlayd" in path or "/opt" in path]

    assert code == 0, told
    assert left == []
    assert installed.run(1, "getent", "group", "overlayd")[0] != 0
    assert not re.search(r"^\d+: ov", installed.ok(1, "ip", "-o", "link"), re.MULTILINE)


def test_the_install_script_removes_plugins_as_well(installed: Cluster) -> None:
    """Runtimes would start what is gone; with the program, and not with the state."""
    install_plugins(installed, 2)
    installed.ok(2, str(Path(__file__).parents[2] / "deploy/install.sh"), "--remove")

    assert plugins(installed, 2) == set()
    assert installed.run(2, "test", "-e", "/opt/overlayd")[0] == 1
    installed.ok(2, "test", "-e", "/var/lib/overlayd/state.db")
