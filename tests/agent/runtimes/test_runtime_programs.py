"""Containers of LXC and services of systemd, by their programs, and those of Incus by its API."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from overlay.agent.runtimes.engines import EngineContainer
from overlay.agent.runtimes.incus import IncusEngine
from overlay.agent.runtimes.lxc import LxcEngine
from overlay.agent.runtimes.program import run_program
from overlay.agent.runtimes.units import UnitEngine
from overlay.errors import ConflictError, OverlayError

UUID = "c7817f29-208a-46e6-b5e5-3bae052ada29"


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], str]:
    """Return a function that writes a program of a shell script."""

    def write(script: str, name: str = "program") -> str:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return str(path)

    return write


@pytest.fixture
def lxc(tmp_path: Path, program: Callable[..., str]) -> Callable[[str], LxcEngine]:
    """Return a function that makes LXC with one configured container, `web`, of some output."""
    (tmp_path / "lxc/web").mkdir(parents=True)
    (tmp_path / "lxc/web/config").touch()

    def make(shown: str) -> LxcEngine:
        info = program(f'echo "$2" >> {tmp_path}/asked; [ "$2" != db ] && printf "{shown}\\n"')
        config = program(f'echo "$1" >> {tmp_path}/told; echo {tmp_path}/lxc', "lxc-config")
        return LxcEngine(info, config, tmp_path / "lxc.conf")

    return make


@pytest.mark.parametrize(
    ("shown", "pid", "status"),
    [
        ("State:          RUNNING\\nPID:            17", 17, "running"),
        ("State:          FROZEN\\nPID:            17", 17, "frozen"),
        ("State:          STOPPED", None, "stopped"),
    ],
)
def test_lxc_tells_state_and_process(
    lxc: Callable[[str], LxcEngine], shown: str, pid: int | None, status: str
) -> None:
    """As lxc-info 5.0 writes them."""
    engine = lxc(shown)
    assert engine.find("web") == EngineContainer("lxc", "web", "web", pid, status)
    assert engine.find("db") is None
    assert engine.find("../web") is None
    assert engine.absence() is None


def test_lxc_is_asked_only_about_what_it_has(
    tmp_path: Path, lxc: Callable[[str], LxcEngine]
) -> None:
    """That is configured, or has a monitor alone; where these are is asked once per settings."""
    engine = lxc("State: RUNNING\\nPID: 17")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as monitor:
        monitor.bind(f"\0{tmp_path}/lxc/run/command".encode())
        monitor.listen()
        found = [engine.find(name) is not None for name in ("web", "run", "shop", "db")]
    assert found == [True, True, False, False]
    assert engine.find("run") is None, "its monitor has ended"
    assert (tmp_path / "asked").read_text().split() == ["web", "run"]
    assert (tmp_path / "told").read_text().split() == ["lxc.lxcpath"]
    (tmp_path / "lxc.conf").write_text(f"lxc.lxcpath = {tmp_path}/lxc\n")
    assert engine.find("web") is not None
    assert (tmp_path / "told").read_text().split() == ["lxc.lxcpath"] * 2


def test_lxc_is_asked_about_all_where_no_settings_are_read(
    tmp_path: Path, program: Callable[..., str]
) -> None:
    """Such as by a package without lxc-config."""
    info = program('[ "$2" = web ] && echo "State: STOPPED"')
    engine = LxcEngine(info, "no-lxc-config", tmp_path / "lxc.conf")
    assert engine.find("web") == EngineContainer("lxc", "web", "web", None, "stopped")
    assert engine.find("db") is None


def test_no_lxc_has_no_containers() -> None:
    """It is said where the program is missing."""
    lxc = LxcEngine("no-lxc-info")
    assert (lxc.find("web"), lxc.absence()) == (None, "LXC is not installed: no no-lxc-info")


def test_a_program_that_hangs_is_an_error(program: Callable[[str], str]) -> None:
    """With the command to try."""
    with pytest.raises(OverlayError, match="does not answer"):
        run_program(program("exec sleep 60"), timeout_s=0.1)


def _shown(load: str, active: str, sub: str, pid: int) -> str:
    return (
        f"echo Id=web.service; echo LoadState={load}; echo ActiveState={active};"
        f" echo SubState={sub}; echo MainPID={pid}; echo ControlGroup=/system.slice/web.service"
    )


@pytest.mark.parametrize("name", ["web", "web.service"])
def test_a_service_has_a_main_process(
    tmp_path: Path, program: Callable[[str], str], name: str
) -> None:
    """Its name is also its id; `.service` may be left out."""
    units = UnitEngine(tmp_path, (tmp_path,), program(_shown("loaded", "active", "running", 42)))
    found = EngineContainer("unit", "web.service", "web.service", 42, "active (running)")
    assert units.find(name) == found


def test_a_service_without_main_process_has_others(
    tmp_path: Path, program: Callable[[str], str]
) -> None:
    """The first one of its control group counts; there is none once it has ended."""
    units = UnitEngine(tmp_path, (tmp_path,), program(_shown("loaded", "active", "exited", 0)))
    found = units.find("web")
    assert found is not None
    assert (found.pid, found.status) == (None, "active (exited)")
    (tmp_path / "system.slice/web.service").mkdir(parents=True)
    (tmp_path / "system.slice/web.service/cgroup.procs").write_text("77\n78\n")
    found = units.find("web")
    assert found is not None
    assert found.pid == 77


def test_an_unknown_service_is_not_found(tmp_path: Path, program: Callable[[str], str]) -> None:
    """Systemd shows it as not loaded; where systemd does not run, nothing is asked."""
    script = _shown("not-found", "inactive", "dead", 0)
    assert UnitEngine(tmp_path, (tmp_path,), program(script)).find("web") is None
    elsewhere = UnitEngine(tmp_path / "none", (tmp_path,), program("exit 1"))
    assert elsewhere.find("web") is None
    assert "systemd does not run here" in str(elsewhere.absence())
    with pytest.raises(OverlayError, match="systemd does not answer"):
        UnitEngine(tmp_path, (tmp_path,), program("exit 1")).find("web")


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    answers: dict[str, Any]


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Send what was prepared, as Incus 6.0 does, or that there is no such instance."""
        assert isinstance(self.server, _Server)
        found = self.server.answers.get(self.path)
        self.send_response(404 if found is None else 200)
        self.end_headers()
        missing = {"type": "error", "error": "Instance not found", "error_code": 404}
        self.wfile.write(json.dumps(missing if found is None else {"metadata": found}).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  as inherited
        """Keep quiet."""


@pytest.fixture
def incus(tmp_path: Path) -> Iterator[tuple[IncusEngine, dict[str, Any]]]:
    """Return an Incus without instances, and its answers."""
    server = _Server(str(tmp_path / "unix.socket"), _Handler)
    server.answers = {}
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield IncusEngine(tmp_path / "unix.socket"), server.answers
    server.shutdown()
    thread.join()
    server.server_close()


def _instance(name: str, **fields: Any) -> dict[str, Any]:
    config = {"volatile.uuid": UUID}
    return {"name": name, "project": "default", "type": "container", "config": config} | fields


def test_an_instance_keeps_its_uuid(incus: tuple[IncusEngine, dict[str, Any]]) -> None:
    """By its name, or by the UUID after it was renamed; one that is stopped has no process."""
    engine, answers = incus
    answers["/1.0/instances/web?project=default"] = _instance("web")
    answers["/1.0/instances/web/state?project=default"] = {"pid": 125, "status": "Running"}
    assert engine.find("web") == EngineContainer("incus", "web", UUID, 125, "running")
    answers.clear()
    answers["/1.0/instances?recursion=1&all-projects=true"] = [_instance("shop")]
    answers["/1.0/instances/shop/state?project=default"] = {"pid": 0, "status": "Stopped"}

    assert engine.find(UUID) == EngineContainer("incus", "shop", UUID, None, "stopped")
    assert engine.find("web") is None


def test_an_instance_of_another_project(incus: tuple[IncusEngine, dict[str, Any]]) -> None:
    """The project precedes its name; a virtual machine is refused."""
    engine, answers = incus
    answers["/1.0/instances/web?project=lab"] = _instance("web", project="lab")
    answers["/1.0/instances/web/state?project=lab"] = {"pid": 9, "status": "Running"}
    assert engine.find("lab/web") == EngineContainer("incus", "lab/web", UUID, 9, "running")
    answers["/1.0/instances/vm?project=default"] = _instance("vm", type="virtual-machine")
    with pytest.raises(ConflictError, match="is a virtual machine"):
        engine.find("vm")


def test_no_incus_has_no_instances(tmp_path: Path) -> None:
    """Where its socket is missing; one that nobody serves is an error."""
    assert IncusEngine(tmp_path / "none").find("web") is None
    assert "Incus is not running" in str(IncusEngine(tmp_path / "none").absence())
    (tmp_path / "dead").touch()
    with pytest.raises(OverlayError, match="does not answer"):
        IncusEngine(tmp_path / "dead").find("web")
