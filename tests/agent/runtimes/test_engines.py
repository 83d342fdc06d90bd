"""Containers are found by an engine's answers on a socket and in Podman's state on disk."""

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
        """Send the prepared answer, or that there is no such container."""
        assert isinstance(self.server, _Server)
        missing = (404, {"message": "No such container"})
        status, body = self.server.answers.get(self.path, missing)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  as inherited
        """Keep quiet."""


class Engine:
    """A socket and the answers that are sent on it."""

    def __init__(self, socket: Path, answers: dict[str, tuple[int, Any]]) -> None:
        self.socket = socket
        self.answers = answers


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """Return an engine that is listening and has no containers."""
    path = tmp_path / "engine.sock"
    server = _Server(str(path), _Handler)
    server.answers = {}
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Engine(path, server.answers)
    server.shutdown()
    thread.join()
    server.server_close()


def test_docker_returns_id_and_process(engine: Engine) -> None:
    """The name is returned without the engine's leading slash."""
    engine.answers["/containers/web/json"] = (200, _inspected())

    assert DockerEngine(engine.socket).find("web") == EngineContainer(
        "docker", "web", ID, 4242, "running"
    )
    assert DockerEngine(engine.socket).absence() is None


@pytest.mark.parametrize(
    ("settings", "disables"),
    [
        (None, False),
        ({"net.ipv6.conf.all.disable_ipv6": "1"}, True),
        ({"net.ipv6.conf.default.disable_ipv6": "1"}, True),
        ({"net.ipv6.conf.all.disable_ipv6": "0", "net.core.somaxconn": "1024"}, False),
    ],
)
def test_a_container_may_be_started_without_ipv6(
    engine: Engine, settings: dict[str, str] | None, disables: bool
) -> None:
    """By --sysctl; what Docker sets in every container by itself is not in its answer."""
    answer = _inspected() | {"HostConfig": {"Sysctls": settings}}
    engine.answers["/containers/web/json"] = (200, answer)
    found = DockerEngine(engine.socket).find("web")

    assert found is not None
    assert found.disables_ipv6 is disables


def test_a_stopped_container_has_no_process(engine: Engine) -> None:
    """The engine's pid 0 means that there is no process."""
    engine.answers["/containers/web/json"] = (200, _inspected(Pid=0, Status="exited"))

    assert DockerEngine(engine.socket).find("web") == EngineContainer(
        "docker", "web", ID, None, "exited"
    )


def test_an_unknown_container_is_not_found(engine: Engine, tmp_path: Path) -> None:
    """None is returned, also if no engine is running, which `absence` reports."""
    absent = DockerEngine(tmp_path / "none.sock")

    assert DockerEngine(engine.socket).find("a/b c") is None
    assert absent.find("web") is None
    assert "Docker is not running" in str(absent.absence())


def test_an_ambiguous_id_is_a_conflict(engine: Engine) -> None:
    """The engine's own message is the reason."""
    said = {"message": "Multiple IDs found with provided prefix: 3"}
    engine.answers["/containers/3/json"] = (400, said)
    with pytest.raises(ConflictError) as caught:
        DockerEngine(engine.socket).find("3")

    assert caught.value.why == said["message"]


@pytest.mark.parametrize(
    ("status", "body"), [(500, {"message": "boom"}), (500, []), (200, {}), (200, [1])]
)
def test_an_invalid_answer_is_an_error(engine: Engine, status: int, body: Any) -> None:
    """Every invalid answer raises an OverlayError."""
    engine.answers["/containers/web/json"] = (status, body)
    with pytest.raises(OverlayError):
        DockerEngine(engine.socket).find("web")


def test_a_dead_engine_is_an_error(tmp_path: Path) -> None:
    """A socket without a listener is not the same as a missing container."""
    path = tmp_path / "dead.sock"
    server = socketserver.UnixStreamServer(str(path), _Handler)
    server.server_close()
    with pytest.raises(OverlayError, match="does not answer"):
        DockerEngine(path).find("web")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Create a storage directory with `web`, which runs as process 4242, and `db`."""
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
def test_podmans_state_has_id_and_process(state: Path, name: str) -> None:
    """A container is found by name or by a prefix of its id, without running a program."""
    found = _podman(state).find(name)

    assert found is not None
    assert (found.container_id, found.pid, found.name) == (ID, 4242, "web")


def test_volatile_containers_are_found_in_the_run_root(state: Path) -> None:
    """Podman lists containers there that need not survive a reboot."""
    path = state / "run" / "overlay-containers" / "volatile-containers.json"
    path.write_text(json.dumps([{"id": "77" * 32, "names": ["brief"]}]))

    found = _podman(state).find("brief")
    assert found is not None
    assert found.container_id == "77" * 32


def test_a_container_without_a_pid_file_is_stopped(state: Path) -> None:
    """The container is found, but has no process to attach."""
    found = _podman(state).find("db")

    assert found == EngineContainer("podman", "db", OTHER_ID, None, "not running")


def test_a_stale_pid_file_is_ignored(state: Path) -> None:
    """Process 4242 belongs to another program by now."""
    (state / "proc" / "4242" / "cgroup").write_text("0::/user.slice\n")
    found = _podman(state).find("web")

    assert found is not None
    assert found.pid is None


def test_a_prefix_of_two_ids_is_a_conflict(state: Path) -> None:
    """The error names all containers that match."""
    path = state / "graph" / "overlay-containers" / "containers.json"
    path.write_text(json.dumps([{"id": ID, "names": ["a"]}, {"id": ID[:-1] + "1", "names": ["b"]}]))
    with pytest.raises(ConflictError) as caught:
        _podman(state).find("3f9c")

    assert caught.value.why == "it is a prefix for a, b"


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"names": 3}]', "{}", '{"id": 1}'])
def test_unreadable_state_is_skipped(state: Path, text: str) -> None:
    """State that is just being written is skipped, and the next source is used."""
    (state / "graph" / "overlay-containers" / "containers.json").write_text(text)

    assert _podman(state).find("web") is None


def test_podmans_socket_is_queried_after_its_state(engine: Engine, state: Path) -> None:
    """A container that is not in the state is queried by Docker's path."""
    engine.answers["/containers/remote/json"] = (200, _inspected(Pid=7))
    found = _podman(state, engine.socket).find("remote")

    assert found is not None
    assert (found.kind, found.pid) == ("podman", 7)


def test_the_absence_of_podman_is_reported(tmp_path: Path) -> None:
    """Without state and socket, `absence` returns the reason."""
    assert "Podman has no containers" in str(_podman(tmp_path).absence())


def test_a_child_of_conmon_belongs_to_the_container(tmp_path: Path) -> None:
    """Without cgroups the parent's command line decides; a process's name may have brackets."""
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
    """Run a real Podman container with a busybox and no network."""
    busybox = shutil.which("busybox")
    if busybox is None or shutil.which("podman") is None or shutil.which("runc") is None:
        pytest.skip("needs Debian's podman, runc and busybox-static")
    name = f"ovt{os.getpid()}"  # this may run several times at once
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
def test_a_real_podman_container_is_found_on_disk(podman_container: str) -> None:
    """The state on disk is enough, without a socket and without the program."""
    found = PodmanEngine(socket=Path("/none"), program="ovt-no-podman").find(podman_container)

    assert found is not None
    assert found.pid is not None
    # For a moment the first process is runc's own, until it becomes the container's command.
    assert any(
        word in Path(f"/proc/{found.pid}/cmdline").read_text() for word in ("sleep", "runc\0init")
    )
