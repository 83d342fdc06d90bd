"""The examples that need more than the tests' machine has: make examples-test installs it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from overlay.lab import host_process, lab
from tests.e2e.typed import ROOT, serve_ssh, type_on_the_machine, type_page

if TYPE_CHECKING:
    from overlay.lab.host_process import HostProcess
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.examples]
ANSIBLE = ROOT / "examples/ansible"
# The shell that Ansible's local connection runs for one host.
ENTER = """#!/bin/sh
exec nsenter --target {pid} --net --mount --uts --ipc --pid env PATH='{path}' /bin/sh "$@"
"""


def run(*words: str, **environ: str) -> str:
    """Run a tool of build/examples in the role's folder; return what it prints."""
    tools = Path(os.environ.get("OVERLAYD_EXAMPLES", ROOT / "build/examples")) / "bin"
    environment = os.environ | {"NO_COLOR": "1", "PATH": f"{tools}:{os.environ['PATH']}"} | environ
    done = subprocess.run(
        words, cwd=ANSIBLE, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def enter_script(host: HostProcess, folder: Path) -> Path:
    """Write a script that is a shell on a host."""
    script = folder / f"enter-{host.name}"
    script.write_text(ENTER.format(pid=host.pid, path=host_process.environment()["PATH"]))
    script.chmod(0o755)
    return script


def test_the_role_passes_the_linter() -> None:
    """By ansible-lint's strictest profile."""
    run("ansible-lint", "--offline", "--profile", "production")


def test_the_role_makes_a_cluster_once(hosts: Cluster, tmp_path: Path) -> None:
    """The first run joins three hosts and creates two networks; the second changes nothing."""
    inventory = tmp_path / "lab.yml"
    lines = ["overlayd:", "  hosts:"]
    for host in hosts.hosts:
        lines += [
            f"    {host.name}:",
            f"      ansible_shell_executable: {enter_script(host, tmp_path)}",
        ]
    inventory.write_text("\n".join(lines) + "\n")
    words = (
        "ansible-playbook", "-i", "inventory.yml", "-i", str(inventory), "-c", "local",
        "-e", "ansible_become=false overlayd_service=false",
        "-e", "ansible_python_interpreter=/usr/bin/python3", "site.yml",
    )  # fmt: skip
    first = run(*words)

    members = hosts.json(3, "members")["members"]
    assert {each["address"] for each in members} == {f"192.168.56.{n}" for n in (11, 12, 13)}
    assert {each["state"] for each in members} == {"alive"}
    networks = {each["name"] for each in hosts.json(2, "network", "ls")["networks"]}
    assert networks == {"blue", "backend"}
    assert "changed=0" not in first
    assert run(*words).count("changed=0") == len(hosts.hosts)


def test_the_vagrantfile_is_valid(tmp_path: Path) -> None:
    """As Vagrant itself judges."""
    told = run(
        "vagrant",
        "validate",
        VAGRANT_HOME=str(tmp_path / "home"),
        VAGRANT_DOTFILE_PATH=str(tmp_path / "dot"),
        VAGRANT_CWD=str(ROOT / "vagrant"),
        VAGRANT_DEFAULT_PROVIDER="libvirt",
        VAGRANT_CHECKPOINT_DISABLE="1",
        VAGRANT_DISABLE_STRICT_DEPENDENCY_ENFORCEMENT="1",
    )
    assert "validated successfully" in told


@pytest.fixture
def fresh_hosts() -> Cluster:
    """Return two hosts without an agent, whatever other tests left."""
    from tests.e2e.conftest import Cluster  # noqa: PLC0415 - as a class

    host_process.end(host_process.running())
    return Cluster(lab.make(2))


def test_wireguard_as_the_underlay(fresh_hosts: Cluster) -> None:
    """A ping of full size passes between two containers, over wg0 only."""
    assert shutil.which("wg"), "wireguard-tools is missing: make examples-test installs it"
    serve_ssh(fresh_hosts)
    shown = type_page(fresh_hosts, "examples/wireguard/README.md")

    assert " 0% packet loss" in shown[-1]
    assert "10.200.0.2 on wg0   mtu 1420 -> overlay 1370" in shown[-1]
    assert fresh_hosts.run(1, "overlayd", "status", "--wait")[0] == 0


REMEDIES = {
    1: "overlayd lab heal",
    2: "overlayd lab heal",
    3: "overlayd lab exec vm1 -- nft delete table inet lesson",
    4: "overlayd lab exec vm2 -- overlayd join",
    5: "overlayd lab exec vm3 -- ip netns exec c3 nft delete table inet lesson",
    6: "overlayd lab exec vm1 -- nft delete table inet lesson",
}
NOTICE_S = 120.0  # a loaded machine


@pytest.mark.timeout(1200)
def test_each_fault_of_the_class_is_seen_and_mended(eventually: Callable[..., None]) -> None:
    """`mended` judges that something is wrong, and after the answer's command that it is not."""

    def is_well() -> bool:
        return type_on_the_machine("examples/class/mended && echo yes || true").endswith("yes\n")

    host_process.end(host_process.running())
    try:
        type_on_the_machine("overlayd lab up --hosts 3")
        eventually(is_well, "the lab is well", NOTICE_S)
        for number, remedy in REMEDIES.items():
            type_on_the_machine(f"examples/class/fault {number}")
            eventually(lambda: not is_well(), f"fault {number} is seen", NOTICE_S)
            type_on_the_machine(remedy)
            eventually(is_well, f"fault {number} is mended", NOTICE_S)
    finally:
        host_process.end(host_process.running())


@pytest.mark.timeout(1200)
def test_the_pages_of_lab_and_simulator_work() -> None:
    """Each command in order; but the lab comes down last, and netem is not in every kernel."""
    host_process.end(host_process.running())
    lines = [
        line
        for page in ("docs/start/lab.md", "docs/develop/simulator.md")
        for block in (ROOT / page).read_text(encoding="utf-8").split("```")[1::2]
        for line in block.splitlines()
        if line.startswith("overlayd ") and "--delay" not in line
    ]
    down = next(line for line in lines if line.startswith("overlayd lab down"))
    try:
        for line in (*(each for each in lines if each != down), down):
            type_on_the_machine(line)
    finally:
        host_process.end(host_process.running())

    assert len(lines) >= 12
