"""Finding containers: an engine's answers on a socket, Podman's state in a directory."""

from __future__ import annotations

import json
import os
import shutil
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from overlay.agent.runtimes.engines import DockerEngine, EngineContainer, PodmanEngine, belongs_to
from overlay.errors import ConflictError, OverlayError

ID = "3f9c" + "0" * 60
OTHER_ID = "3f9d" + "0" * 60


def _inspected(**state: object) -> dict[str, Any]:
    return {"Id": ID, "Name": "/web", "State": {"Pid": 4242, "Status": "running"} | state}


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    answers: dict[str, tuple[int, Any]]


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Answer as told, else as an engine that has no such container."""
        assert isinstance(self.server, _Server)
        missing = (404, {"message": "No such container"})
        status, body = self.server.answers.get(self.path, missing)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  as inherited
        """Keep quiet."""


class Engine:
    """What answers on a socket."""

    def __init__(self, socket: Path, answers: dict[str, tuple[int, Any]]) -> None:
        self.socket = socket
        self.answers = answers


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """Have an engine without containers listen."""
    path = tmp_path / "engine.sock"
    server = _Server(str(path), _Handler)
    server.answers = {}
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Engine(path, server.answers)
    server.shutdown()
    thread.join()
    server.server_close()


def test_docker_tells_id_and_process(engine: Engine) -> None:
    """The name comes without the engine's slash."""
    engine.answers["/containers/web/json"] = (200, _inspected())

    assert DockerEngine(engine.socket).find("web") == EngineContainer(
        "docker", "web", ID, 4242, "running"
    )
    assert DockerEngine(engine.socket).absence() is None


def test_a_container_that_does_not_run_has_no_process(engine: Engine) -> None:
    """The engine's pid 0 is no process."""
    engine.answers["/containers/web/json"] = (200, _inspected(Pid=0, Status="exited"))

    assert DockerEngine(engine.socket).find("web") == EngineContainer(
        "docker", "web", ID, None, "exited"
    )


def test_an_unknown_container_is_none(engine: Engine, tmp_path: Path) -> None:
    """So it is where no engine runs, which can be asked for."""
    absent = DockerEngine(tmp_path / "none.sock")

    assert DockerEngine(engine.socket).find("a/b c") is None
    assert absent.find("web") is None
    assert "Docker does not run here" in str(absent.absence())


def test_an_ambiguous_id_is_a_conflict(engine: Engine) -> None:
    """The engine's own words are passed on."""
    said = {"message": "Multiple IDs found with provided prefix: 3"}
    engine.answers["/containers/3/json"] = (400, said)
    with pytest.raises(ConflictError) as caught:
        DockerEngine(engine.socket).find("3")

    assert caught.value.why == said["message"]


@pytest.mark.parametrize(
    ("status", "body"), [(500, {"message": "boom"}), (500, []), (200, {}), (200, [1])]
)
def test_an_answer_that_makes_no_sense_is_an_error(engine: Engine, status: int, body: Any) -> None:
    """No traceback, whatever the engine says."""
    engine.answers["/containers/web/json"] = (status, body)
    with pytest.raises(OverlayError):
        DockerEngine(engine.socket).find("web")


def test_an_engine_that_died_is_an_error(tmp_path: Path) -> None:
    """Its socket is there, but nobody listens: that is not the same as no container."""
    path = tmp_path / "dead.sock"
    server = socketserver.UnixStreamServer(str(path), _Handler)
    server.server_close()
    with pytest.raises(OverlayError, match="does not answer"):
        DockerEngine(path).find("web")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Lay out containers-storage with `web` and `db`, of which `web` runs as process 4242."""
    graph = tmp_path / "graph" / "overlay-containers"
    graph.mkdir(parents=True)
    listed = [{"id": ID, "names": ["web"]}, {"id": OTHER_ID, "names": ["db"]}]
    (graph / "containers.json").write_text(json.dumps(listed))
    data = tmp_path / "run" / "overlay-containers" / ID / "userdata"
    data.mkdir(parents=True)
    (data / "pidfile").write_text("4242")
    process = tmp_path / "proc" / "4242"
    process.mkdir(parents=True)
    (process / "cgroup").write_text(f"0::/machine.slice/libpod-{ID}.scope/container\n")
    return tmp_path


def _podman(state: Path, socket: Path | None = None) -> PodmanEngine:
    roots = (state / "graph", state / "run")
    return PodmanEngine(
        socket or state / "none.sock", roots, state / "proc", program="ovt-no-podman"
    )


@pytest.mark.parametrize("name", ["web", ID, ID[:4]])
def test_podmans_state_tells_id_and_process(state: Path, name: str) -> None:
    """By name or by the beginning of the id, without asking any program."""
    found = _podman(state).find(name)

    assert found is not None
    assert (found.container_id, found.pid, found.name) == (ID, 4242, "web")


def test_volatile_containers_are_found_in_the_run_root(state: Path) -> None:
    """Podman lists containers that need not survive a reboot there."""
    path = state / "run" / "overlay-containers" / "volatile-containers.json"
    path.write_text(json.dumps([{"id": "77" * 32, "names": ["brief"]}]))

    found = _podman(state).find("brief")
    assert found is not None
    assert found.container_id == "77" * 32


def test_a_container_without_a_pid_file_does_not_run(state: Path) -> None:
    """It exists, but there is nothing to attach."""
    found = _podman(state).find("db")

    assert found == EngineContainer("podman", "db", OTHER_ID, None, "not running")


def test_a_stale_pid_file_is_not_believed(state: Path) -> None:
    """Process 4242 is somebody else's by now."""
    (state / "proc" / "4242" / "cgroup").write_text("0::/user.slice\n")
    found = _podman(state).find("web")

    assert found is not None
    assert found.pid is None


def test_the_beginning_of_two_ids_is_a_conflict(state: Path) -> None:
    """All that it could be are named."""
    path = state / "graph" / "overlay-containers" / "containers.json"
    path.write_text(json.dumps([{"id": ID, "names": ["a"]}, {"id": ID[:-1] + "1", "names": ["b"]}]))
    with pytest.raises(ConflictError) as caught:
        _podman(state).find("3f9c")

    assert caught.value.why == "a, b"


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"names": 3}]', "{}", '{"id": 1}'])
def test_a_state_that_is_being_written_is_passed_over(state: Path, text: str) -> None:
    """The next source is asked instead."""
    (state / "graph" / "overlay-containers" / "containers.json").write_text(text)

    assert _podman(state).find("web") is None


def test_podmans_socket_is_asked_for_what_the_state_does_not_know(
    engine: Engine, state: Path
) -> None:
    """Podman speaks Docker's language there."""
    engine.answers["/containers/remote/json"] = (200, _inspected(Pid=7))
    found = _podman(state, engine.socket).find("remote")

    assert found is not None
    assert (found.kind, found.pid) == ("podman", 7)


def test_no_podman_at_all_is_told(tmp_path: Path) -> None:
    """Neither state nor socket."""
    assert "Podman has no containers here" in str(_podman(tmp_path).absence())


def test_a_child_of_its_conmon_belongs_to_the_container(tmp_path: Path) -> None:
    """Without cgroups the parent's command line tells; the process's name may hold brackets."""
    for pid in ("10", "20"):
        (tmp_path / pid).mkdir()
    (tmp_path / "20" / "cgroup").write_text("0::/\n")
    (tmp_path / "20" / "stat").write_text("20 (a) b 10) S 10 20 20 0\n")
    (tmp_path / "10" / "cmdline").write_bytes(b"/usr/bin/conmon\0-c\0" + ID.encode() + b"\0")

    assert belongs_to(20, ID, tmp_path)
    assert not belongs_to(20, OTHER_ID, tmp_path)
    assert not belongs_to(30, ID, tmp_path)


@pytest.fixture
def podman_container(tmp_path: Path) -> Iterator[str]:
    """Run a real Podman container from a busybox, with no network."""
    busybox = shutil.which("busybox")
    if busybox is None or shutil.which("podman") is None or shutil.which("runc") is None:
        pytest.skip("needs Debian's podman, runc and busybox-static")
    name = f"ovt{os.getpid()}"  # others may run this at the same time
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    shutil.copy(busybox, root / "bin" / "sleep")
    archive = shutil.make_archive(str(tmp_path / "image"), "tar", root)
    run = [
        "podman", "--cgroup-manager=cgroupfs", "--runtime=runc", "run", "-d", "--name", name,
        "--network=none", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024",
        f"localhost/{name}:1", "/bin/sleep", "1000",
    ]  # fmt: skip
    subprocess.run(
        ["podman", "import", archive, f"{name}:1"], check=True, capture_output=True, timeout=60
    )
    try:
        subprocess.run(run, check=True, capture_output=True, timeout=60)
        yield name
    finally:
        for command in (["rm", "-f", "-t", "0", name], ["rmi", "-f", f"localhost/{name}:1"]):
            subprocess.run(
                ["podman", "--cgroup-manager=cgroupfs", "--runtime=runc", *command],
                check=False, capture_output=True, timeout=60,
            )  # fmt: skip


@pytest.mark.docker
def test_a_real_podman_container_is_found_without_its_help(podman_container: str) -> None:
    """The state on disk is enough: no socket, and no program that could be asked."""
    found = PodmanEngine(socket=Path("/none"), program="ovt-no-podman").find(podman_container)

    assert found is not None
    assert found.pid is not None
    # The first process is runc's own for a moment, until it becomes the container's command.
    assert any(
        word in Path(f"/proc/{found.pid}/cmdline").read_text() for word in ("sleep", "runc\0init")
    )
