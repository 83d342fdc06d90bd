"""Docker's networks that overlayd made are removed with nobody but Docker running."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from overlay.client.docker_networks import DockerLeftovers, remove_made
from overlay.errors import OverlayError
from overlay.unix_http import UnixConnection, send

MADE = {"overlayd.made-by": "overlayd"}


class _Docker(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Docker's API, as far as it is used; a removal calls the driver, as dockerd does."""

    daemon_threads = True
    networks: list[dict[str, Any]]
    users: dict[str, list[str]]
    plugin: Path
    answers: list[Any]


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """List networks, or the containers of one."""
        assert isinstance(self.server, _Docker)
        url = urlsplit(self.path)
        if url.path == "/networks":
            return self._send(200, self.server.networks)
        network_id, _ = json.loads(parse_qs(url.query)["filters"][0])["network"]
        users = self.server.users.get(network_id, [])
        return self._send(200, [{"Names": [f"/{name}"]} for name in users])

    def do_DELETE(self) -> None:
        """Remove a network, once its driver agrees."""
        docker = self.server
        assert isinstance(docker, _Docker)
        for call in ("Plugin.Activate", "NetworkDriver.DeleteNetwork"):
            connection = UnixConnection(str(docker.plugin), 5.0)
            try:
                with send(connection, "POST", f"/{call}", b"{}") as response:
                    docker.answers.append(json.loads(response.read()))
            except OSError:
                return self._send(500, {"message": "plugin not found"})
            finally:
                connection.close()
        network_id = self.path.rpartition("/")[2]
        docker.networks = [each for each in docker.networks if each["Id"] != network_id]
        return self._send(204, None)

    def _send(self, status: int, body: Any) -> None:
        self.send_response(status)
        self.end_headers()
        if body is not None:
            self.wfile.write(json.dumps(body).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  as inherited
        """Keep quiet."""


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[_Docker]:
    """Run a Docker without networks."""
    server = _Docker(str(tmp_path / "docker.sock"), _Handler)
    server.networks, server.users, server.answers = [], {}, []
    server.plugin = tmp_path / "plugins/overlayd.sock"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _network(name: str, driver: str = "overlayd", labels: Any = None) -> dict[str, Any]:
    return {"Id": f"id-{name}", "Name": name, "Driver": driver, "Labels": labels}


def test_what_overlayd_made_is_removed(docker: _Docker, tmp_path: Path) -> None:
    """A user's networks, and those that containers use, stay and are named."""
    docker.networks = [
        _network("blue", labels=MADE), _network("red", labels=MADE), _network("mine"),
        _network("bridge", "bridge"), _network("odd", "bridge", MADE),
    ]  # fmt: skip
    docker.users["id-red"] = ["web", "db"]
    docker.plugin.parent.mkdir()
    docker.plugin.touch()  # left by a dead agent

    left = remove_made(tmp_path / "docker.sock", tmp_path / "plugins")

    assert left == DockerLeftovers(("blue",), (("red", ("db", "web")),), ("mine",))
    assert [each["Name"] for each in docker.networks] == ["red", "mine", "bridge", "odd"]
    assert docker.answers == [{"Implements": ["NetworkDriver", "IpamDriver"]}, {}]


def test_nothing_is_done_without_docker(docker: _Docker, tmp_path: Path) -> None:
    """Where Docker does not run; and nobody answers for the driver where nothing was made."""
    assert remove_made(tmp_path / "none.sock", tmp_path / "plugins") == DockerLeftovers()
    docker.networks = [_network("mine")]
    left = remove_made(tmp_path / "docker.sock", tmp_path / "plugins")
    assert (left, docker.plugin.exists()) == (DockerLeftovers(users=("mine",)), False)


def test_a_docker_that_does_not_answer_is_an_error(tmp_path: Path) -> None:
    """A socket without a listener."""
    (tmp_path / "docker.sock").touch()
    with pytest.raises(OverlayError, match="Docker does not answer"):
        remove_made(tmp_path / "docker.sock", tmp_path / "plugins")
