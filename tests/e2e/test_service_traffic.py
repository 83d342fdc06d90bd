"""Services with real connections: virtual addresses in containers, ports of every host."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from tests.e2e.service_backends import KILL, ask, names, start_server
from tests.e2e.world import ips_of, netns

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
# By the host's table, or by that of its gate.
LED = "(nft list ruleset; ip -all netns exec nft list ruleset) | grep -q '0.0.0.0 . tcp . 8080'"
VM1, VM3 = "192.168.56.11", "192.168.56.13"
CHECK = r"""
cat >/etc/overlayd/checks/web-up <<'E'
#!/bin/bash
exec 3<>/dev/tcp/$OVERLAYD_ADDRESS/$OVERLAYD_PORT && read -r name address <&3 || exit 1
[ "$address" = "$OVERLAYD_ADDRESS" ]
E
chmod 755 /etc/overlayd/checks/web-up
"""
LOAD = """
import collections, contextlib, json, os, socket, sys, time
place, end = (sys.argv[1], int(sys.argv[2])), sys.argv[3]
lasting, errors = {}, []
fresh = collections.Counter()
def connect():
    made = socket.create_connection(place, 20)
    return made, made.makefile("rw")
for _ in range(12):
    made, stream = connect()
    lasting[made, stream] = stream.readline().split()[0]
broken = set()
flow = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
flow.settimeout(0.2)
flow.connect(place)
open(end + ".on", "w")
while not os.path.exists(end):
    for (made, stream), name in list(lasting.items()):
        if name in broken:
            continue
        try:
            made.settimeout(8)  # a loaded machine; broken ones say nothing at all
            stream.write("x\\n"); stream.flush()
            assert stream.readline() == "x\\n"
        except Exception as error:
            broken.add(name)
    try:
        made, stream = connect()
        with made:
            fresh[stream.readline().split()[0]] += 1
    except Exception as error:
        errors.append(str(error))
    with contextlib.suppress(OSError):
        flow.send(b"?")
        flow.recv(64)
    time.sleep(0.003)
flow.settimeout(0)
with contextlib.suppress(OSError):  # nothing more waits
    while flow.recv(64):
        pass
flow.settimeout(20)
flow.send(b"?")
print(json.dumps({"lasting": sorted(lasting.values()), "broken": sorted(broken), "new": fresh,
                  "errors": errors, "flow": flow.recv(64).decode()}))
"""


class Load:
    """Connections from a container, in the background: 12 that last, and new ones all the time."""

    def __init__(self, cluster: Cluster, number: int, container: str, ip: str) -> None:
        self._cluster, self._number = cluster, number
        self._path = f"/run/load-{container}"
        program = f"ip netns exec {container} python3 -c '{LOAD}' {ip} 80 {self._path}"
        self._ok("sh", "-c", f"rm -f {self._path}*; {program} >{self._path}.json 2>&1 &")

    def _ok(self, *command: str) -> str:
        return self._cluster.ok(self._number, *command)

    def is_on(self) -> bool:
        """Return whether all lasting connections are there."""
        return self._cluster.run(self._number, "test", "-e", f"{self._path}.on")[0] == 0

    def end(self, eventually: Callable[..., None]) -> dict[str, Any]:
        """End it; return what happened."""
        self._ok("touch", self._path)
        eventually(lambda: self._ok("cat", f"{self._path}.json").endswith("\n"), "the end")
        found: dict[str, Any] = json.loads(self._ok("cat", f"{self._path}.json"))
        return found


def serve(cluster: Cluster, number: int, name: str, network: str) -> None:
    """Attach a backend that answers."""
    ip = cluster.attach(number, name, "--label", "app=web", network=network)
    cluster.ok(number, "ip", "-n", name, "link", "set", "lo", "up")
    start_server(cluster, number, name, ip)


def states(cluster: Cluster, number: int) -> dict[str, str]:
    """Return the state of each backend of web, as a host sees it."""
    shown = cluster.json(number, "service", "inspect", "web")["backend_list"]
    return {each["name"]: each["state"] for each in shown}


def install_check(cluster: Cluster, number: int) -> None:
    """Have a host check that a backend's server greets."""
    cluster.ok(number, "sh", "-c", f"umask 022; mkdir -p /etc/overlayd/checks; {CHECK}")


def members(cluster: Cluster) -> dict[str, str]:
    """Return the state of each host, as vm1 sees it."""
    return {each["name"]: each["state"] for each in cluster.json(1, "members")["members"]}


@pytest.fixture(scope="module")
def web(cluster: Cluster, eventually: Callable[..., None]) -> tuple[Cluster, str]:
    """Return hosts with the service web on blue, two backends each, and its address."""
    made = ("overlayd", "service", "create", "web", "--network", "blue", "--selector", "app=web")
    virtual = cluster.ok(1, *made, "--port", "80:8080", "--port", "80:8080/udp").split()[0]
    for number in range(1, 7):
        serve(cluster, 1 + number % 3, f"b{number}", "blue")
    for host in (1, 2, 3):
        eventually(
            lambda host=host: len(names(ask(cluster, host, f"c{host}", virtual, count=200))) == 6,
            "six backends at each host",
        )
    return cluster, virtual


def test_six_backends_share_the_connections(web: tuple[Cluster, str]) -> None:
    """On three hosts, and each sees the client's own address.

    Evenly to a fifth, as these are few; of 10,000 the shares are even to a tenth
    (`kernel/services/test_client_table`).
    """
    cluster, virtual = web
    own = ips_of(cluster, 1, "c1")[0]
    found = ask(cluster, 1, "c1", virtual, count=3000)

    assert {answer.split()[1] for answer in found} == {own}
    assert len(names(found)) == 6
    assert all(400 <= count <= 600 for count in names(found).values())
    led = cluster.json(1, "status")["services_at_connect"]
    assert cluster.json(1, "service", "inspect", "web")["translated_why"] == led["why"]
    connect = f"socket.create_connection(('{virtual}', 80)).getpeername()[0]"
    program = ("python3", "-c", f"import socket; print({connect})")
    peer = cluster.ok(1, *netns("c1"), *program).strip()
    assert (peer != virtual) == led["active"]


def test_connections_outlive_the_agent(
    web: tuple[Cluster, str], eventually: Callable[..., None]
) -> None:
    """While it is dead, new ones work too; the next one finds the rules as they should be."""
    cluster, virtual = web
    before = cluster.ok(1, *netns("c1"), "nft", "-t", "-a", "list", "ruleset")
    load = Load(cluster, 1, "c1", virtual)
    eventually(load.is_on, "the connections")
    cluster.ok(1, "bash", "-c", KILL)
    assert len(names(ask(cluster, 1, "c1", virtual, count=100))) == 6
    cluster.ok(1, "overlayd", "join")
    assert cluster.differences(1) == []
    found = load.end(eventually)

    assert (found["broken"], found["errors"]) == ([], [])
    assert cluster.ok(1, *netns("c1"), "nft", "-t", "-a", "list", "ruleset") == before


def test_a_drained_backend_keeps_its_connections(
    web: tuple[Cluster, str], eventually: Callable[..., None]
) -> None:
    """Whatever host it is drained on; new ones go elsewhere, until it is drained no longer."""
    cluster, virtual = web
    load = Load(cluster, 1, "c1", virtual)
    eventually(load.is_on, "the connections")
    cluster.ok(3, "overlayd", "service", "set", "web", "--drain", "b1", "--drain", "b3")
    left = {"b2", "b4", "b5", "b6"}
    eventually(lambda: set(names(ask(cluster, 1, "c1", virtual, count=200))) == left, "four left")
    found = load.end(eventually)
    assert (found["broken"], found["errors"]) == ([], [])

    cluster.ok(2, "overlayd", "service", "set", "web", "--undrain", "b1", "--undrain", "b3")
    eventually(lambda: len(names(ask(cluster, 1, "c1", virtual, count=200))) == 6, "all again")


def test_a_backend_that_fails_its_check_is_left_out(
    web: tuple[Cluster, str], eventually: Callable[..., None]
) -> None:
    """By all hosts, as soon as its own host says so, and until it passes again."""
    cluster, virtual = web
    often = ("--check-period", "0.3", "--check-timeout", "0.3")
    cluster.ok(3, "overlayd", "service", "set", "web", "--check", "tcp", *often)
    for number in (1, 2, 3):
        eventually(lambda at=number: set(states(cluster, at).values()) == {"ready"}, "all pass")
    cluster.ok(2, "sh", "-c", "kill -9 $(ip netns pids b4)")
    for number in (1, 3):
        eventually(lambda at=number: states(cluster, at)["b4"] == "unhealthy", "b4 fails")
    eventually(lambda: len(names(ask(cluster, 1, "c1", virtual, count=200))) == 5, "five left")

    start_server(cluster, 2, "b4", ips_of(cluster, 2, "b4")[0])
    eventually(lambda: len(names(ask(cluster, 1, "c1", virtual, count=200))) == 6, "all again")
    cluster.ok(1, "overlayd", "service", "set", "web", "--check", "none")


def test_a_program_of_the_host_checks_a_backend(
    web: tuple[Cluster, str], eventually: Callable[..., None]
) -> None:
    """In the backend's namespace, once the operator of its host has installed it."""
    cluster, _ = web
    often = ("--check-period", "0.3", "--check-timeout", "0.3")
    for number in (1, 3):
        install_check(cluster, number)
    cluster.ok(3, "overlayd", "service", "set", "web", "--check", "exec:web-up", *often)
    wanted = {f"b{each}": "ready" for each in (2, 3, 5, 6)}
    wanted |= {"b1": "unhealthy", "b4": "unhealthy"}
    eventually(lambda: states(cluster, 1) == wanted, "four are left")
    why = "/etc/overlayd/checks/web-up is not installed on this host"
    assert f"unhealthy: {why}" in cluster.ok(2, "overlayd", "service", "ps", "web")
    assert why in cluster.ok(2, "overlayd", "status")

    install_check(cluster, 2)
    eventually(lambda: set(states(cluster, 1).values()) == {"ready"}, "all pass")
    assert why not in cluster.ok(2, "overlayd", "status")
    cluster.ok(1, "overlayd", "service", "set", "web", "--check", "none")


def test_a_backend_that_goes_gets_nothing_new(
    web: tuple[Cluster, str], eventually: Callable[..., None]
) -> None:
    """No connection to another breaks, and UDP flows go to others."""
    cluster, virtual = web
    load = Load(cluster, 1, "c1", virtual)
    eventually(load.is_on, "the connections")
    cluster.ok(3, "overlayd", "detach", "b2", "--network", "blue")
    eventually(lambda: "b2" not in names(ask(cluster, 1, "c1", virtual, count=200)), "five left")
    found = load.end(eventually)

    assert set(found["broken"]) <= {"b2"}
    assert found["flow"] != "b2"


def test_every_host_answers_the_port(
    web: tuple[Cluster, str], eventually: Callable[..., None]
) -> None:
    """Also one that was not on the network, without its agent; a port in use there is named.

    Its backends stay: their host answers, though its agent does not.
    """
    cluster, virtual = web
    cluster.ok(1, "overlayd", "network", "create", "mesh", "--subnet", "10.77.0.0/24")
    serve(cluster, 1, "m1", "mesh")
    cluster.ok(2, "sh", "-c", "python3 -m http.server 8081 >/run/pages.log 2>&1 &")
    eventually(lambda: cluster.run(2, "curl", "-s", "localhost:8081")[0] == 0, "a program")
    made = ("overlayd", "service", "create", "mesh-web", "--network", "mesh", "--backend", "m1")
    published = ("--port", "80:8080", "--publish", "8080:80", "--publish", "8081:80")
    cluster.ok(2, *made, *published)
    for number in (1, 2, 3):
        eventually(lambda at=number: cluster.run(at, "sh", "-c", LED)[0] == 0, "the port")
    cluster.ok(3, "bash", "-c", KILL)

    assert set(ask(cluster, 2, None, VM1, 8080)) == {"m1 192.168.56.12"}
    (seen,) = ask(cluster, 1, None, VM3, 8080)
    ends = cluster.json(2, "network", "inspect", "mesh")["host_ends"]
    assert seen.split()[1:] in [each["ips"] for each in ends if each["node"] == "vm3"]
    eventually(lambda: members(cluster)["vm3"] == "dead", "vm3's agent is missed")
    assert states(cluster, 1)["b5"] == "ready"
    assert "b5" in names(ask(cluster, 1, "c1", virtual, count=200))
    cluster.ok(3, "overlayd", "join")
    for number, port in ((3, 8080), (3, 8081), (2, 8080)):
        assert len(ask(cluster, 1, None, f"192.168.56.1{number}", port)) == 1
    used = ["port 8081/tcp is not answered here: a program of the host uses it"]

    def told() -> list[str]:
        texts = [each["text"] for each in cluster.json(2, "status")["health"]]
        return [each for each in texts if "without a gate" not in each]  # if it should have one

    eventually(lambda: told() == used, f"{used}")


def test_nothing_is_left_of_a_removed_service(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """Neither in containers nor on hosts, which leave the network that they joined for it."""
    cluster.ok(1, "overlayd", "service", "rm", "mesh-web", "web")
    eventually(lambda: "services" not in cluster.ok(1, *netns("c1"), "nft", "list", "tables"), "c1")
    for number in (2, 3):
        eventually(lambda at=number: cluster.run(at, "sh", "-c", LED)[0] == 1, "the host's table")

    def hosts() -> list[str]:
        listed = cluster.json(3, "network", "ls")["networks"]
        return next(list(each["hosts"]) for each in listed if each["name"] == "mesh")

    eventually(lambda: hosts() == ["vm1"], "the hosts that joined")
    assert cluster.differences(3) == []
