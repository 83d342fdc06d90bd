"""Services and machines of systemd, on a machine that systemd has booted.

Run by `make vm-test`: the machine itself is the host.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.vm, pytest.mark.timeout(1800)]
TRIES = 3
PATIENCE_S = 300.0  # an emulated machine is ten times slower, and slower beside other work
UNITS = Path("/run/systemd/system")
ROOTFS = Path("/var/lib/elk")  # programs in /run may not run
SERVICE = "[Service]\nExecStart=/bin/sleep 1000\nPrivateNetwork={}\n"
MACHINE = f"systemd-nspawn --quiet --directory {ROOTFS} --machine elk --private-network --as-pid2"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command; return its output, whatever its exit code."""
    return subprocess.run(words, capture_output=True, text=True, check=False)


def ok(*words: str) -> str:
    """Run a command that must succeed; return its stdout."""
    done = run(*words)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def overlayd(*words: str) -> subprocess.CompletedProcess[str]:
    """Run overlayd on this machine."""
    return run(sys.executable, "-m", "overlay.cli.main", *words)


def attached(*words: str) -> str:
    """Attach a container; return its address. A machine that is slow takes several requests."""
    for _ in range(TRIES):
        done = overlayd("--timeout", str(PATIENCE_S), "attach", *words, "--network", "blue")
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr + journal()
    return done.stdout.strip()


def journal() -> str:
    """Return the last lines of the machine's journal."""
    return "\n" + run("journalctl", "--no-pager", "--lines", "40").stdout


def answers(ip: str) -> bool:
    """Return whether this host reaches an address."""
    return run("ping", "-c1", "-W2", ip).returncode == 0


@pytest.fixture(scope="module")
def booted() -> Iterator[None]:
    """Make this machine a host of its own cluster, with network blue."""
    assert UNITS.is_dir(), "systemd has not booted this machine: make vm-test"
    ok("systemctl", "start", "dbus.service", "systemd-machined.service")  # not part of this boot
    ok("ip", "link", "add", "under0", "type", "dummy")
    ok("ip", "address", "add", "192.168.77.1/24", "dev", "under0")
    ok("ip", "link", "set", "under0", "up")
    for words in (("join", "--underlay", "192.168.77.1"), ("network", "create", "blue")):
        done = overlayd("--timeout", str(PATIENCE_S), *words)
        assert done.returncode == 0, done.stderr
    yield
    overlayd("reset", "--yes")


@pytest.mark.usefixtures("booted")
def test_a_service_comes_back_with_its_address(eventually: Callable[..., None]) -> None:
    """A restarted service is attached again; one in the host's namespace is refused."""
    (UNITS / "emu.service").write_text(SERVICE.format("yes"))
    (UNITS / "open.service").write_text(SERVICE.format("no"))
    ok("systemctl", "daemon-reload")
    attach = ("attach", "unit:emu.service", "--network", "blue")
    stopped = overlayd(*attach)
    assert (stopped.returncode, "systemctl start emu.service" in stopped.stderr) == (6, True)
    ok("systemctl", "start", "emu", "open")
    refused = overlayd("attach", "unit:open", "--network", "blue")
    assert (refused.returncode, "Add PrivateNetwork=yes" in refused.stderr) == (6, True)

    ip = attached("unit:emu.service")
    eventually(lambda: answers(ip), "emu answers", PATIENCE_S)
    ok("systemctl", "restart", "emu")
    eventually(lambda: answers(ip), "emu answers again", PATIENCE_S)
    assert overlayd("detach", "unit:emu.service").returncode == 0
    assert not answers(ip)


@pytest.mark.usefixtures("booted")
def test_a_machine_comes_back_with_its_address(eventually: Callable[..., None]) -> None:
    """One that systemd-nspawn starts in a scope of its own, as machinectl does."""
    for folder in ("bin", "usr", "proc", "sys", "dev", "etc", "tmp", "run", "var"):
        (ROOTFS / folder).mkdir(parents=True)
    ok("cp", "/bin/busybox", str(ROOTFS / "bin/sleep"))
    start = ("systemd-run", "--collect", *MACHINE.split(), "/bin/sleep", "1000")
    assert overlayd("attach", "systemd-nspawn:elk", "--network", "blue").returncode == 5
    ok(*start)
    ip = attached("systemd-nspawn:elk", "--wait")
    eventually(lambda: answers(ip), "elk answers", PATIENCE_S)
    ok("machinectl", "kill", "--signal", "KILL", "elk")
    eventually(lambda: not answers(ip), "elk has ended", PATIENCE_S)
    eventually(lambda: run(*start).returncode == 0, "elk starts again", PATIENCE_S)
    eventually(lambda: answers(ip), "elk answers again", PATIENCE_S)
