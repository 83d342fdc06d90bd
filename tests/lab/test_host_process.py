"""Lab hosts: isolated hosts that vanish with their first process."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from overlay.errors import ConflictError, NotFoundError, UsageError
from overlay.lab import host_process, lab, underlay
from overlay.lab.driver import wait_until
from overlay.lab.host_process import HostProcess
from overlay.lab.main import main

pytestmark = pytest.mark.netns


@pytest.fixture
def pair() -> Iterator[list[HostProcess]]:
    """Create two hosts on one underlay."""
    assert not host_process.running(), "a lab is up on this machine: overlayd lab down"
    try:
        yield lab.make(2)
    finally:
        host_process.end(host_process.running())


def test_a_host_is_isolated_from_the_machine(pair: list[HostProcess]) -> None:
    """Name, files, namespaces and processes are separate from the machine's."""
    host = pair[0]

    assert host_process.run(host, "hostname").stdout.strip() == "vm1"
    assert host_process.run(host, "ip", "netns", "add", "ovtonly").returncode == 0
    assert "ovtonly" in host_process.run(host, "ip", "netns").stdout
    assert "ovtonly" not in host_process.run(pair[1], "ip", "netns").stdout
    assert not Path("/run/netns/ovtonly").exists()
    host_process.run(host, "touch", "/etc/ovtonly", "/var/lib/ovtonly")
    assert not Path("/etc/ovtonly").exists()
    assert not Path("/var/lib/ovtonly").exists()
    assert len(host_process.run(host, "sh", "-c", "ls -d /proc/[0-9]*").stdout.split()) < 6


def test_hosts_reach_each_other_only_on_the_underlay(pair: list[HostProcess]) -> None:
    """A ping arrives.

    The hosts have eth1 and loopback, and no other interface.
    """
    address = underlay.address_of(2)

    assert host_process.run(pair[0], "ping", "-c1", "-W2", address).returncode == 0
    assert "eth1" in host_process.run(pair[0], "ip", "-br", "link").stdout
    assert len(host_process.run(pair[0], "ip", "-br", "link").stdout.splitlines()) == 2


def test_a_host_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process was killed: the kernel removes the rest as soon as it can."""
    stuck = subprocess.Popen(["sleep", "600"], text=True)
    monkeypatch.setitem(host_process._started, 0, stuck)
    monkeypatch.setattr(host_process, "_END_TIMEOUT_S", 0.05)
    host_process.end([HostProcess("vm1", 0)])

    assert stuck.wait(30) != 0


def test_ending_a_host_ends_its_processes(pair: list[HostProcess]) -> None:
    """A daemon started inside ends with the host."""
    script = "setsid sleep 1234 >/dev/null 2>&1 & echo started"
    assert "started" in host_process.run(pair[0], "sh", "-c", script).stdout

    host_process.end(pair)

    running = [
        path
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.exists() and path.read_bytes() == b"sleep\x001234\x00"
    ]
    assert running == []
    assert [host.name for host in host_process.running()] == [lab.SWITCH]


def test_a_crashed_labs_hosts_are_found_and_removed(pair: list[HostProcess]) -> None:
    """`lab down` works without any state left by `lab up`."""
    assert lab.down() == ["underlay", "vm1", "vm2"]
    assert lab.down() == []
    assert not any(host.alive for host in pair)


def test_a_lab_inside_a_container_is_not_listed(pair: list[HostProcess]) -> None:
    """Its hosts have the same names and are visible here.

    A lab host acts as the container.
    """
    inner = ["unshare", "--pid", "--fork", "bash", "-c", f"exec -a {host_process.MARK}inner cat"]
    process = subprocess.Popen(host_process.enter_command(pair[0], inner), stdin=subprocess.PIPE)
    try:
        wait_until(
            lambda: f"{host_process.MARK}inner\0".encode() in _command_lines(),
            "the inner host runs",
        )
        assert [host.name for host in host_process.running()] == ["underlay", "vm1", "vm2"]
    finally:
        process.communicate(timeout=10)  # it ends when its input is closed


def _command_lines() -> list[bytes]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes())
    return found


def test_a_second_lab_is_refused(pair: list[HostProcess]) -> None:
    """Only one lab can be up; the message states how to remove it."""
    assert pair
    with pytest.raises(ConflictError, match="already up") as caught:
        lab.up(2)

    assert "lab down" in caught.value.hint


def test_invalid_requests_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong number of hosts and an unknown host raise errors."""
    with pytest.raises(UsageError, match="1 to 32 hosts"):
        lab.up(0)
    with pytest.raises(NotFoundError, match="no lab host 'vm9'"):
        lab.find("vm9")
    assert main(["exec", "vm9", "--", "true"]) == 5
    assert "overlayd lab up" in capsys.readouterr().err


def test_commands_inside_do_not_inherit_overlayd_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """OVERLAYD_* variables are removed from the environment."""
    monkeypatch.setenv("OVERLAYD_STATE_DIR", "/elsewhere")

    assert "OVERLAYD_STATE_DIR" not in host_process.environment()
    assert host_process.environment()["PATH"].endswith(":/usr/sbin:/sbin")
    assert os.environ["OVERLAYD_STATE_DIR"] == "/elsewhere"
