"""Services: six backends on three hosts behind one virtual address, with real connections."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
HOST_OF = {"b1": 1, "b2": 1, "b3": 2, "b4": 2, "b5": 3, "b6": 3}
KILL = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"
# Says its name, then returns whatever it is sent.
SERVE = """
import socketserver, sys
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        try:
            self.wfile.write(sys.argv[1].encode() + b"\\n")
            for line in self.rfile:
                self.wfile.write(line)
        except ConnectionError:
            pass
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer.daemon_threads = True
socketserver.ThreadingTCPServer.request_queue_size = 128
socketserver.ThreadingTCPServer(("", 8080), Echo).serve_forever()
"""
# Who answers how often, and how many connections fail.
ASK = """
import collections, json, socket, sys
found = collections.Counter()
for _ in range(int(sys.argv[3])):
    try:
        with socket.create_connection((sys.argv[1], int(sys.argv[2])), 3) as peer:
            found[peer.makefile().readline().strip()] += 1
    except OSError as error:
        found["failed"] += 1
print(json.dumps(found))
"""
# Keeps one connection until the file of the second argument is there; then says who answered.
HOLD = """
import pathlib, socket, sys, time
ready, end = map(pathlib.Path, sys.argv[2:4])
with socket.create_connection((sys.argv[1], 80), 3) as peer:
    lines = peer.makefile("rw")
    name = lines.readline().strip()
    ready.write_text(name)
    while not end.exists():
        lines.write("x\\n"); lines.flush()
        assert lines.readline() == "x\\n"
        time.sleep(0.05)
print(name)
"""


class Services:
    """The cluster with its backends, and a client on vm1."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._pids: dict[str, str] = {}

    def start_server(self, name: str) -> None:
        """Start the server of a backend."""
        serve = shlex.join(["ip", "netns", "exec", name, "python3", "-c", SERVE, name])
        text = f"{serve} >/dev/null 2>&1 & echo $!"
        self._pids[name] = self.cluster.ok(HOST_OF[name], "sh", "-c", text).strip()

    def stop_server(self, name: str) -> None:
        """End the server of a backend."""
        self.cluster.ok(HOST_OF[name], "kill", "-9", self._pids.pop(name))

    def ask(self, count: int, where: str = "c1") -> dict[str, int]:
        """Connect so many times from a container; return who answered how often."""
        number = HOST_OF.get(where, int(where[1:]))
        words = ("python3", "-c", ASK, self.address, "80", str(count))
        code, out, err = self.cluster.inside(number, where, *words)
        assert code == 0, err
        found: dict[str, int] = json.loads(out)
        return found

    def ask_host(self, number: int, port: int, count: int) -> dict[str, int]:
        """Connect to a port of a host from that host itself."""
        words = ("python3", "-c", ASK, f"192.168.56.1{number}", str(port), str(count))
        found: dict[str, int] = json.loads(self.cluster.ok(number, *words))
        return found

    @property
    def address(self) -> str:
        """The service's virtual address, by an agent that no test kills."""
        found: list[str] = self.cluster.json(2, "service", "inspect", "web")["ips"]
        return found[0]

    def states(self, number: int = 1) -> dict[str, str]:
        """Return the state of each backend, as a host sees it."""
        shown = self.cluster.json(number, "service", "inspect", "web")["backend_list"]
        return {each["name"]: each["state"] for each in shown}


@pytest.fixture(scope="module")
def web(cluster: Cluster, eventually: Callable[..., None]) -> Services:
    """Return six backends with a health check; the service was created on vm2."""
    made = Services(cluster)
    for name, number in HOST_OF.items():
        cluster.attach(number, name, "--label", "app=web")
        cluster.ok(number, "ip", "-n", name, "link", "set", "lo", "up")
        made.start_server(name)
    cluster.ok(2, "overlayd", "service", "create", "web", "--network", "blue", "--port",
               "http=80:8080", "--selector", "app=web", "--check", "tcp", "--check-period", "0.3",
               "--check-timeout", "0.3")  # fmt: skip
    for number in (1, 2, 3):
        eventually(lambda number=number: ready(made, number) == set(HOST_OF), "all are ready")
    eventually(lambda: set(made.ask(60)) == set(HOST_OF), "the client's host has the service")
    return made


def ready(web: Services, number: int = 1) -> set[str]:
    """Return the backends that get connections."""
    return {name for name, state in web.states(number).items() if state == "ready"}


def test_connections_are_spread_over_all_hosts(web: Services) -> None:
    """Each backend has about a sixth; by address and by name, from a backend itself, too."""
    found = web.ask(600)
    assert sum(found.values()) == 600
    assert set(found) == set(HOST_OF)
    assert all(55 <= count <= 145 for count in found.values()), found

    answer = web.cluster.ok(3, "overlayd", "dns", "lookup", "web.blue.overlay")
    assert answer.strip() == web.address
    assert "failed" not in web.ask(60, "b3")


def test_a_dead_server_gets_no_connection(web: Services, eventually: Callable[..., None]) -> None:
    """All hosts leave it out once it fails its check, and take it back."""
    web.stop_server("b3")
    for number in (1, 3):
        eventually(lambda number=number: web.states(number)["b3"] == "unhealthy", "b3 is out")
    eventually(lambda: set(web.ask(60)) == set(HOST_OF) - {"b3"}, "c1's host knows")
    assert "failed" not in web.ask(200)

    web.start_server("b3")
    eventually(lambda: "b3" in web.ask(60), "b3 is back")


class Held:
    """A connection from a container of a host that lasts until the test ends it."""

    def __init__(self, web: Services, number: int, folder: Path) -> None:
        self._begun, self._end, self._told = (folder / name for name in ("begun", "end", "told"))
        prefix = ("ip", "netns", "exec", f"c{number}", "python3", "-c")
        words = (*prefix, HOLD, web.address, str(self._begun), str(self._end))
        web.cluster.ok(number, "sh", "-c", f"{shlex.join(words)} >{self._told} 2>&1 &")

    def has_begun(self) -> bool:
        """Return whether a backend has answered."""
        return self._begun.exists() and self.backend in HOST_OF

    @property
    def backend(self) -> str:
        """The backend that has answered."""
        return self._begun.read_text()

    def end(self) -> None:
        """Have it end."""
        self._end.touch()

    def has_lasted(self) -> bool:
        """Return whether it has ended as it should."""
        return self._told.read_text().strip() == self.backend


def test_a_drained_backend_keeps_its_connections(
    web: Services, eventually: Callable[..., None], tmp_path: Path
) -> None:
    """Whatever host it is drained on; new connections go elsewhere."""
    held = Held(web, 1, tmp_path)
    eventually(held.has_begun, "a connection is there")
    web.cluster.ok(3, "overlayd", "service", "set", "web", "--drain", held.backend)
    eventually(lambda: held.backend not in web.ask(60), "the drained one gets none")
    held.end()
    eventually(held.has_lasted, "the connection has lasted")

    web.cluster.ok(1, "overlayd", "service", "set", "web", "--undrain", held.backend)
    eventually(lambda: held.backend in web.ask(60), "it gets connections again")


def test_a_killed_agent_breaks_no_connection(
    web: Services, eventually: Callable[..., None], tmp_path: Path
) -> None:
    """Its clients reach the service as before; the others leave its backends out."""
    held = Held(web, 3, tmp_path)
    eventually(held.has_begun, "a connection is there")
    web.cluster.ok(3, "bash", "-c", KILL)
    assert web.ask(100, "c3").keys() == HOST_OF.keys()
    eventually(lambda: ready(web) == {"b1", "b2", "b3", "b4"}, "those of vm3 are out")
    eventually(lambda: set(web.ask(60)) == {"b1", "b2", "b3", "b4"}, "c1's host knows")

    web.cluster.ok(3, "overlayd", "join")
    eventually(lambda: set(web.ask(60)) == set(HOST_OF), "they are back")
    held.end()
    eventually(held.has_lasted, "the connection has lasted")


def test_every_host_answers_a_published_port(
    web: Services, eventually: Callable[..., None]
) -> None:
    """Each leads it to backends on all hosts, until it is published no longer."""
    web.cluster.ok(1, "overlayd", "service", "set", "web", "--publish", "8088:80")
    for number in (1, 2, 3):
        eventually(
            lambda number=number: set(web.ask_host(number, 8088, 60)) == set(HOST_OF), "an answer"
        )
    web.cluster.ok(2, "overlayd", "service", "set", "web", "--publish", "none")
    eventually(lambda: web.ask_host(3, 8088, 1) == {"failed": 1}, "the port is closed")


def test_a_removed_service_leaves_nothing(web: Services, eventually: Callable[..., None]) -> None:
    """Neither a name, nor a rule in a container, nor a record of a check."""
    address = web.address
    web.cluster.ok(3, "overlayd", "service", "rm", "web")
    for number in (1, 2, 3):
        code, _, _ = web.cluster.run(number, "overlayd", "dns", "lookup", "web")
        assert code == 5
        name = f"b{2 * number}"
        eventually(
            lambda number=number, name=name: web.cluster.inside(
                number, name, "nft", "list", "ruleset"
            )[1].count(address) == 0,
            "no rule is left",
        )  # fmt: skip
        eventually(
            lambda number=number: web.cluster.run(number, "overlayd", "verify")[0] == 0,
            "as planned",
        )
