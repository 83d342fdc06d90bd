"""Docker's managed plugin: its content, its life in Docker, and the program inside."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer
from typing import Any
from urllib.parse import unquote

import pytest
from overlay.client import docker_plugin, docker_relay
from overlay.client.docker_plugin import install, uninstall
from overlay.errors import AgentNotRunningError, ConflictError, OverlayError

Serve = Callable[[str, type[BaseHTTPRequestHandler]], None]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Return a function that serves a UNIX socket in the background."""
    servers: list[UnixStreamServer] = []

    def start(path: str, handler: type[BaseHTTPRequestHandler]) -> None:
        class Handler(handler):  # type: ignore[misc, valid-type]
            def address_string(self) -> str:
                return "client"

            def log_message(self, *_: object) -> None:
                pass

        server = UnixStreamServer(str(tmp_path / path), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)

    yield start
    for each in servers:
        each.shutdown()
        each.server_close()


@dataclass
class Engine:
    """The networks and plugins that Docker has, and the calls that changed them."""

    plugin: dict[str, Any] | None = None
    in_use: bool = False
    archive: bytes = b""
    calls: list[str] = field(default_factory=list)


class FakeDocker(BaseHTTPRequestHandler):
    """Docker's API for plugins, with one plugin."""

    state: Engine

    def _answer(self, status: int, document: Any = None) -> None:
        body = b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if body:
            self.wfile.write(body)

    def do_GET(self) -> None:
        """Describe the plugin."""
        found = self.state.plugin
        self._answer(*((404, {"message": "not found"}) if found is None else (200, found)))

    def do_POST(self) -> None:
        """Create, enable or disable it."""
        kind = self.state
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(self.path)
        kind.calls.append(path)
        if path.startswith("/plugins/create"):
            kind.archive = content
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                member = archive.extractfile("config.json")
                assert member is not None
                described = json.load(member)["description"]
            kind.plugin = {"Id": "1", "Enabled": False, "Config": {"Description": described}}
        elif kind.in_use and path.endswith("disable"):
            self._answer(400, {"message": "plugin overlayd:swarm is in use"})
            return
        else:
            assert kind.plugin is not None
            kind.plugin["Enabled"] = "enable" in path
        self._answer(204)

    def do_DELETE(self) -> None:
        """Remove it."""
        self.state.plugin = None
        self._answer(200, {})


@pytest.fixture
def docker(serve: Serve, tmp_path: Path) -> tuple[str, Engine]:
    """Return a Docker without the plugin, and with an agent's socket beside it."""
    engine = Engine()
    serve("docker.sock", type("OneDocker", (FakeDocker,), {"state": engine}))
    serve("overlayd.sock", BaseHTTPRequestHandler)
    return str(tmp_path / "docker.sock"), engine


def test_install_creates_and_enables(docker: tuple[str, Engine], tmp_path: Path) -> None:
    """Once; a plugin that was disabled is enabled, one of another version replaced."""
    path, engine = docker

    assert install(path, tmp_path)
    assert engine.calls == [
        "/plugins/create?name=overlayd:swarm", "/plugins/overlayd:swarm/enable?timeout=30",
    ]  # fmt: skip
    assert not install(path, tmp_path)
    assert engine.plugin is not None
    engine.plugin["Enabled"] = False
    assert install(path, tmp_path)
    engine.plugin["Config"]["Description"] = "overlayd of before"
    engine.calls.clear()
    assert install(path, tmp_path)
    assert len(engine.calls) == 3
    found = docker_plugin.find(path)
    assert found is not None
    assert (found.enabled, found.current) == (True, True)

    assert uninstall(path)
    assert not uninstall(path)


def test_the_plugin_has_no_privileges(docker: tuple[str, Engine], tmp_path: Path) -> None:
    """No network, no capability, and nothing of the host that it could write."""
    path, engine = docker
    install(path, tmp_path)

    with tarfile.open(fileobj=io.BytesIO(engine.archive)) as archive:
        names = set(archive.getnames())
        member = archive.extractfile("config.json")
        assert member is not None
        config = json.load(member)
    assert {"rootfs/relay.py", "rootfs/lib", "rootfs/run/docker/plugins"} <= names
    assert config["network"]["type"] == "none"
    assert config["linux"]["capabilities"] == []
    assert all("ro" in each["options"] for each in config["mounts"])


def test_a_plugin_in_use_is_a_conflict(docker: tuple[str, Engine], tmp_path: Path) -> None:
    """Docker's reason is passed on, with what to do."""
    path, engine = docker
    install(path, tmp_path)
    engine.in_use = True

    with pytest.raises(ConflictError, match="is in use"):
        uninstall(path)


def test_without_agent_or_docker_it_says_so(tmp_path: Path) -> None:
    """Neither is taken for the other."""
    with pytest.raises(AgentNotRunningError, match="does not serve Docker"):
        install(str(tmp_path / "docker.sock"), tmp_path)
    with pytest.raises(OverlayError, match="Docker does not answer"):
        docker_plugin.find(str(tmp_path / "docker.sock"))
    assert not uninstall(str(tmp_path / "docker.sock"))


# --- the program inside -----------------------------------------------------------------------


class FakeAgent(BaseHTTPRequestHandler):
    """Answers with what it was asked."""

    def do_POST(self) -> None:
        """Return path and body."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = json.dumps({"path": self.path, "body": body.decode()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


def test_a_call_reaches_the_agent(serve: Serve, tmp_path: Path) -> None:
    """Under the prefix by which the agent tells a swarm's calls from others."""
    serve("agent.sock", FakeAgent)

    status, answer = docker_relay.call_agent("/A.B", b"{}", str(tmp_path / "agent.sock"))

    assert (status, json.loads(answer)) == (200, {"path": "/swarm/A.B", "body": "{}"})


def test_an_agent_that_comes_back_is_waited_for(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restart in the middle of a call is not seen by Docker."""
    monkeypatch.setattr(time, "sleep", lambda _: serve("agent.sock", FakeAgent))

    status, _ = docker_relay.call_agent("/A.B", b"", str(tmp_path / "agent.sock"))

    assert status == 200


def test_an_absent_agent_is_an_error_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under both keys that Docker reads, with what to do."""
    monkeypatch.setattr(docker_relay, "WAIT_S", 0.0)

    _, answer = docker_relay.call_agent("/A.B", b"", str(tmp_path / "agent.sock"))

    told = json.loads(answer)
    assert told["Err"] == told["Error"]
    assert "sudo systemctl start overlayd" in told["Err"]


def test_the_program_runs_alone(tmp_path: Path) -> None:
    """Without overlayd's modules, as in the plugin; it answers Docker while no agent runs."""
    path = tmp_path / "plugin.sock"
    program = tmp_path / "relay.py"
    program.write_bytes(Path(docker_relay.__file__).read_bytes())
    with subprocess.Popen([sys.executable, "-IS", program, path], cwd="/") as running:
        try:
            while not path.is_socket():
                assert running.poll() is None
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(30)
                while client.connect_ex(str(path)):
                    assert running.poll() is None
                client.sendall(b"POST /Plugin.Activate HTTP/1.1\r\nHost: d\r\n\r\n")
                answer = client.recv(4096)
                while b"}" not in answer:
                    answer += client.recv(4096)
        finally:
            running.terminate()
    assert b"200" in answer.split(b"\r\n")[0]
    assert b"IpamDriver" in answer


def test_a_docker_without_a_socket_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it is installed; else there is none."""
    socket = tmp_path / "docker.sock"
    monkeypatch.setattr("shutil.which", lambda _name: "/usr/bin/dockerd")
    assert docker_plugin.is_stopped(str(socket))
    socket.touch()
    assert not docker_plugin.is_stopped(str(socket))
    monkeypatch.setattr("shutil.which", lambda _name: None)
    socket.unlink()
    assert not docker_plugin.is_stopped(str(socket))
