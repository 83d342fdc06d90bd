"""Containers of runtimes that keep their state in files: containerd, nerdctl, systemd-machined."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from overlay.agent.runtimes.containerd import ContainerdEngine
from overlay.agent.runtimes.engines import EngineContainer
from overlay.agent.runtimes.machines import MachinedEngine
from overlay.agent.runtimes.nerdctl import NerdctlEngine
from overlay.errors import ConflictError, OverlayError

ID = "3f9c" + "0" * 60
POD = "77aa" + "0" * 60
# As systemd-machined 252 wrote it.
MACHINE = """\
# This is private data. Do not parse.
NAME=web
SCOPE=machine-web.scope
SERVICE=systemd-nspawn
ROOT=/srv/web
ID=eb6312bb91ef4fd9bef3ecf65f20dfe7
LEADER=42
CLASS=container
REALTIME=1795926912276365
MONOTONIC=37625963402
"""


class Host:
    """The files of a host."""

    def __init__(self, root: Path) -> None:
        self.proc = root / "proc"
        self.state = root / "run"
        self.names = root / "nerdctl"
        self.containerd = ContainerdEngine((self.state,), self.proc, program="no-ctr")
        self.nerdctl = NerdctlEngine(self.names, self.containerd)

    def task(self, namespace: str, container_id: str, pid: int, **annotations: str) -> None:
        """Write a task's state, as containerd does."""
        folder = self.state / "io.containerd.runtime.v2.task" / namespace / container_id
        folder.mkdir(parents=True)
        (folder / "init.pid").write_text(str(pid))
        (folder / "config.json").write_text(json.dumps({"annotations": annotations}))

    def process(self, pid: int, cgroup: str, parent: int = 1, command: str = "") -> None:
        """Write a process's state, as the kernel shows it."""
        (self.proc / str(pid)).mkdir(parents=True)
        (self.proc / str(pid) / "cgroup").write_text(f"3:cpu:/\n0::{cgroup}\n")
        (self.proc / str(pid) / "stat").write_text(f"{pid} (a) b) S {parent} 0")
        (self.proc / str(pid) / "cmdline").write_bytes(command.replace(" ", "\0").encode())

    def name(self, namespace: str, name: str, container_id: str) -> None:
        """Write a name, as nerdctl does."""
        folder = self.names / "1935db59/names" / namespace
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(container_id)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Return a host without containers."""
    return Host(tmp_path)


@pytest.mark.parametrize(
    "cgroup",
    [
        "/default/web",
        "/system.slice/cri-containerd:web",
        "/kubepods.slice/cri-containerd-web.scope",
    ],
)
def test_a_task_is_known_by_its_cgroup(host: Host, cgroup: str) -> None:
    """However the runtime writes it; by its id alone or with its namespace."""
    host.task("default", "web", 42)
    host.process(42, cgroup)
    found = EngineContainer("containerd", "web", "default/web", 42, "running")

    assert host.containerd.find("web") == found
    assert host.containerd.find("default/web") == found
    assert host.containerd.absence() is None


def test_a_container_of_a_pod_is_known_by_its_shim(host: Host) -> None:
    """Without a cgroup of its own, the shim of its pod is its parent; a prefix names it."""
    host.task("k8s.io", ID, 42, **{"io.kubernetes.cri.sandbox-id": POD})
    host.process(42, "/", parent=7)
    host.process(7, "/", command=f"containerd-shim-runc-v2 -namespace k8s.io -id {POD}")

    found = host.containerd.find(ID[:8])
    assert found == EngineContainer("containerd", f"k8s.io/{ID}", f"k8s.io/{ID}", 42, "running")


@pytest.mark.parametrize("cgroup", ["/default/web2", "/"])
def test_a_reused_process_id_is_not_the_container(host: Host, cgroup: str) -> None:
    """The file of an ended task stays; another process may have its number."""
    host.task("default", "web", 42)
    host.process(42, cgroup)
    found = host.containerd.find("web")

    assert found == EngineContainer("containerd", "web", "default/web", None, "stopped")


def test_one_id_in_two_namespaces_is_ambiguous(host: Host) -> None:
    """The candidates are shown as they can be given."""
    host.task("default", "web", 42)
    host.task("k8s.io", "web", 43)
    with pytest.raises(ConflictError) as caught:
        host.containerd.find("web")

    assert caught.value.why == "candidates: containerd:default/web, containerd:k8s.io/web"


@pytest.mark.parametrize("text", ["../web", "a/../web", "*", "web*", "", "a/b/c", "default/"])
def test_no_text_leads_out_of_the_state(host: Host, text: str) -> None:
    """Paths and patterns name nothing."""
    host.task("default", "web", 42)
    host.name("default", "web", ID)
    assert host.containerd.find(text) is None
    assert host.nerdctl.find(text) is None


def test_a_dead_containerd_is_an_error(host: Host) -> None:
    """Whether it has a container that does not run, nobody can say."""
    host.state.mkdir()
    (host.state / "containerd.sock").touch()
    with pytest.raises(OverlayError, match="does not answer"):
        host.containerd.find("web")


def test_nerdctl_containers_have_names(host: Host) -> None:
    """By name, by a prefix of the id, and with a namespace; the name may change."""
    host.task("default", ID, 42)
    host.process(42, f"/default/{ID}")
    host.name("default", "web", ID)
    found = EngineContainer("nerdctl", "web", f"default/{ID}", 42, "running")
    for text in ("web", ID[:6], "default/web", f"default/{ID}"):
        assert host.nerdctl.find(text) == found
    (host.names / "1935db59/names/default/web").rename(host.names / "1935db59/names/default/shop")

    renamed = host.nerdctl.find(found.container_id)
    assert renamed is not None
    assert (renamed.name, host.nerdctl.find("web")) == ("shop", None)


def test_a_nerdctl_container_may_not_run(host: Host) -> None:
    """Its name is there without a task; one name may be in two namespaces."""
    assert "no containers" in str(host.nerdctl.absence())
    host.name("default", "web", ID)
    found = host.nerdctl.find("web")
    assert found is not None
    assert (found.pid, host.nerdctl.absence()) == (None, None)
    host.name("build", "web", POD)
    with pytest.raises(ConflictError, match="ambiguous"):
        host.nerdctl.find("web")


def _machines(tmp_path: Path, host: Host) -> MachinedEngine:
    (tmp_path / "machines").mkdir()
    (tmp_path / "machines/web").write_text(MACHINE)
    return MachinedEngine(tmp_path / "machines", tmp_path / "images", host.proc)


def test_a_machine_is_known_by_its_leader(tmp_path: Path, host: Host) -> None:
    """If that is in the machine's scope: its number may have been reused."""
    machines = _machines(tmp_path, host)
    not_running = EngineContainer("systemd-nspawn", "web", "web", None, "not running")
    assert machines.find("web") == not_running
    host.process(42, "/machine.slice/machine-web.scope/payload")
    assert machines.find("web") == EngineContainer("systemd-nspawn", "web", "web", 42, "running")
    (host.proc / "42/cgroup").write_text("0::/system.slice/ssh.service\n")

    assert machines.find("web") == not_running
    assert machines.find("../machines/web") is None


def test_an_image_is_a_machine_that_does_not_run(tmp_path: Path, host: Host) -> None:
    """Machinectl starts it; where nothing is known of a name, there is no machine."""
    machines = _machines(tmp_path, host)
    (tmp_path / "images").mkdir()
    (tmp_path / "images/db.raw").touch()

    found = machines.find("db")
    assert found is not None
    assert (found.pid, machines.find("other")) == (None, None)


def test_a_virtual_machine_is_refused(tmp_path: Path, host: Host) -> None:
    """It has no namespace on this host, and may join as a host."""
    machines = _machines(tmp_path, host)
    text = MACHINE.replace("CLASS=container", "CLASS=vm")
    (tmp_path / "machines/web").write_text(text)
    with pytest.raises(ConflictError, match="is a virtual machine"):
        machines.find("web")
