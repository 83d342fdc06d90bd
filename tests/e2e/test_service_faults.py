"""A service under 200 connections a second, while backends, an agent and a whole host die."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from overlay.lab import host_process, lab
from tests.e2e.service_backends import KILL, ask, start_server
from tests.e2e.world import netns

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.timeout(600)]
OWNER = 'owner = "shop"\n'
FILE = f"""{OWNER}
[[network]]
name = "shop"
subnets = ["10.77.0.0/16"]

[[service]]
name = "web"
network = "shop"
ips = ["10.77.200.1"]
ports = [{{ port = 80, target = 8080 }}]
selector = {{ app = "web" }}
check = {{ kind = "tcp", period_s = 0.2, timeout_s = 0.2, threshold = 2 }}
publish = [{{ port = 8090, service_port = 80 }}]
"""
VIRTUAL = "10.77.200.1"
PER_SECOND = 200
LOAD = f"""
import asyncio, json, os, sys, time
place, end = (sys.argv[1], 80), sys.argv[2]
fresh, broken, held, tasks = [], [], [], set()
async def connect():
    async with asyncio.timeout(60):
        reader, writer = await asyncio.open_connection(*place)
    async with asyncio.timeout(15):
        return reader, writer, (await reader.readline()).decode().split()[0]
async def new():
    at = time.time()
    try:
        writer, name = (await connect())[1:]
        writer.close()
    except Exception as error:
        name = "!" + repr(error)
    fresh.append((at, time.time() - at, name))
async def hold():
    reader, writer, name = await connect()
    held.append(name)
    try:
        while not os.path.exists(end):
            async with asyncio.timeout(10):
                writer.write(b"x\\n")
                if await reader.readline() != b"x\\n":
                    raise EOFError
            await asyncio.sleep(0.1)
    except Exception:
        broken.append(name)
def start(work):
    tasks.add(task := asyncio.create_task(work))
    task.add_done_callback(tasks.discard)
async def main():
    for _ in range(96):
        start(hold())
    while len(held) < 96:
        await asyncio.sleep(0.05)
    open(end + ".on", "w")
    due = time.monotonic()
    while not os.path.exists(end):
        start(new())
        due = max(due, time.monotonic() - 0.1) + 1 / {PER_SECOND}  # a busy host gets fewer
        await asyncio.sleep(due - time.monotonic())
    await asyncio.gather(*tasks)
asyncio.run(main())
print(json.dumps({{"held": sorted(set(held)), "broken": sorted(set(broken)), "fresh": fresh}}))
"""
STATE = """
nft list tables; ip -o link | cut -d: -f2; ip netns; ip rule; ip -6 rule
ip route show table all; ip -6 route show table all | grep -v fe80; ls /proc/sys/net/ipv4/conf
"""


@dataclass(frozen=True, slots=True)
class Backend:
    """A container that serves; b1 to b6, two on each of three hosts."""

    host: int
    name: str


@dataclass(frozen=True, slots=True)
class ServiceLab:
    """Four hosts, what three of their kernels had before the file, and the backends' addresses."""

    cluster: Cluster
    before: dict[int, str]
    ips: dict[str, str]


BACKENDS = [Backend(1 + number % 3, f"b{number}") for number in range(1, 7)]


@pytest.fixture(scope="module")
def four(new_cluster: type[Cluster], eventually: Callable[..., None]) -> Iterator[ServiceLab]:
    """Four hosts, with what a file declares on the first three."""
    assert not host_process.running(), "a lab is up on this machine: overlayd lab down"
    try:
        cluster = new_cluster(lab.make(4))
        lab.join(cluster.hosts)
        ips: dict[str, str] = {}
        before = {number: state(cluster, number) for number in (1, 2, 4)}
        apply(cluster, FILE)
        for each in BACKENDS:
            eventually(lambda at=each.host: knows_network(cluster, at), "the network")
            ips[each.name] = serve(cluster, each)
        cluster.attach(1, "client", network="shop")
        for number in (1, 2, 3, 4):
            eventually(lambda at=number: ready(cluster, at) == NAMES, "all backends are ready")
        yield ServiceLab(cluster, before, ips)
    finally:
        host_process.end(host_process.running())


NAMES = {each.name for each in BACKENDS}


def apply(cluster: Cluster, text: str, *options: str) -> None:
    """Apply a file on vm1."""
    code, out, err = cluster.run(1, "overlayd", "apply", *options, "-", stdin=text)
    assert code == 0, out + err


def knows_network(cluster: Cluster, number: int) -> bool:
    """Return whether a host has heard of the network."""
    return cluster.run(number, "overlayd", "network", "inspect", "shop")[0] == 0


def serve(cluster: Cluster, backend: Backend) -> str:
    """Attach a backend, and start its server; return its address."""
    host, name = backend.host, backend.name
    ip = cluster.attach(host, name, "--label", "app=web", network="shop")
    cluster.ok(host, "ip", "-n", name, "link", "set", "lo", "up")
    start_server(cluster, host, name, ip)
    return ip


def ready(cluster: Cluster, number: int) -> set[str]:
    """Return the backends to which a host sends new connections."""
    code, out, _ = cluster.run(number, "overlayd", "service", "inspect", "web", "--json")
    shown = json.loads(out)["backend_list"] if code == 0 else []
    return {each["name"] for each in shown if each["state"] == "ready"}


def led_to(lab: ServiceLab, name: str) -> bool:
    """Return whether the client's own table leads new connections to a backend."""
    listed = lab.cluster.ok(1, *netns("client"), "nft", "list", "ruleset")
    sets = re.split(r"\n\t(?:map|set) ", listed)
    new = " ".join(each for each in sets if not each.startswith("moved"))
    return lab.ips[name] in re.findall(r"[0-9.]+", new)


def member(cluster: Cluster, name: str) -> str:
    """Return a host's state, as vm1's agent sees it."""
    listed = cluster.json(1, "members")["members"]
    return next(str(each["state"]) for each in listed if each["name"] == name)


def state(cluster: Cluster, number: int) -> str:
    """Return what the kernel of a host has of networks, and the declared objects it knows."""
    kernel = "\n".join(sorted(cluster.ok(number, "sh", "-c", STATE).splitlines()))
    return kernel + cluster.ok(number, "overlayd", "export")


class Load:
    """200 new connections a second from vm1, and 96 that last."""

    def __init__(self, lab: ServiceLab, eventually: Callable[..., None]) -> None:
        self._lab, self._cluster, self._eventually = lab, lab.cluster, eventually
        cluster = lab.cluster
        program = f"ip netns exec client python3 -c '{LOAD}' {VIRTUAL} /run/load"
        cluster.ok(1, "sh", "-c", f"{program} >/run/load.json 2>/run/load.log &")
        eventually(lambda: cluster.run(1, "test", "-e", "/run/load.on")[0] == 0, "the load")
        self.events: list[tuple[str, float]] = []
        self.noticed: list[float] = []

    def kill(self, what: str, number: int, command: str, *gone: str) -> None:
        """Have something die, and wait until new connections go elsewhere."""
        self.events.append((what, self._now()))
        self._cluster.run(number, "bash", "-c", command)
        self._wait_until_left_out(*gone)

    def kill_host(self, number: int, *gone: str) -> None:
        """Have a host die with all that is on it."""
        self.events.append((f"vm{number}", self._now()))
        host_process.end([self._cluster.hosts[number - 1]])
        self._wait_until_left_out(*gone)

    def _wait_until_left_out(self, *gone: str) -> None:
        """Wait until the client's own table leads to none of these backends."""

        def is_left_out() -> bool:
            return not any(led_to(self._lab, name) for name in gone)

        self._eventually(is_left_out, f"{', '.join(gone)} are left out", 60.0)
        self.noticed.append(self._now())

    def _now(self) -> float:
        return float(self._cluster.ok(1, "date", "+%s.%N"))

    def end(self) -> dict[str, Any]:
        """End it; return what happened."""
        self._cluster.ok(1, "touch", "/run/load")
        read = ("cat", "/run/load.json", "/run/load.log")
        self._eventually(lambda: self._cluster.ok(1, *read).endswith("\n"), "the end")
        found: dict[str, Any] = json.loads(self._cluster.ok(1, "cat", "/run/load.json"))
        return found

    def since(self, at: float) -> str:
        """Return how long after which death a moment is."""
        what, when = max((each for each in self.events if each[1] <= at), key=lambda e: e[1])
        return f"{at - when:.1f} s after {what}"


def test_every_host_answers_the_port(four: ServiceLab) -> None:
    """Also the one that nothing of the network was on."""
    cluster = four.cluster
    for number in (1, 2, 3, 4):
        (answer,) = ask(cluster, 5 - number, None, f"192.168.56.1{number}", 8090)
        assert answer.split()[0] in NAMES


def test_connections_survive_deaths(four: ServiceLab, eventually: Callable[..., None]) -> None:
    """No connection to a survivor breaks, and no new one fails once its host has noticed.

    Those that a dead host does not answer go to another backend with their next SYN.
    """
    cluster = four.cluster
    load = Load(four, eventually)
    load.kill("b3's process", 1, "kill -9 $(ip netns pids b3)", "b3")
    load.kill("b1", 2, "kill -9 $(ip netns pids b1); ip netns del b1", "b1")
    load.kill("vm2's agent", 2, KILL)
    eventually(lambda: member(cluster, "vm2") == "dead", "vm2's agent is missed")
    assert ready(cluster, 1) == NAMES - {"b3", "b1"}, "its host answers"
    assert led_to(four, "b4")
    cluster.ok(2, "overlayd", "join")
    eventually(lambda: member(cluster, "vm2") == "alive", "vm2 is back")
    load.kill_host(3, "b2", "b5")
    eventually(lambda: member(cluster, "vm3") == "dead", "vm3 is dead")
    found = load.end()

    failed = [each for each in found["fresh"] if each[2].startswith("!")]
    for title, some in (("failed", failed), ("slow", [e for e in found["fresh"] if e[1] > 0.5])):
        told = Counter(f"{load.since(at)}: {took_s:.0f} s, {name}" for at, took_s, name in some)
        for each, count in sorted(told.items()):
            print(f"{title} {each} ({count})")  # noqa: T201 - asked for
    print(f"connections: {len(found['fresh'])}")  # noqa: T201 - asked for
    noticed_s = load.noticed[-1] - load.events[-1][1]
    print(f"vm3's backends left out after {noticed_s:.2f} s")  # noqa: T201 - asked for
    events = [each["text"].partition(":")[0] for each in cluster.events(1)]
    assert events.index("vm3 does not answer") < events.index("vm3 is dead"), events
    assert set(found["held"]) == NAMES
    assert set(found["broken"]) <= {"b1", "b2", "b3", "b5"}
    for at, took_s, name in failed:
        assert any(
            died <= at + took_s and at <= noticed
            for (_, died), noticed in zip(load.events, load.noticed, strict=True)
        ), f"{load.since(at)}: {name}"


def test_an_empty_file_leaves_nothing(four: ServiceLab, eventually: Callable[..., None]) -> None:
    """Neither in a kernel nor in the records, once nothing is attached."""
    cluster = four.cluster
    code, _, err = cluster.run(1, "overlayd", "apply", "--prune", "-", stdin=OWNER)
    assert (code, "client" in err) == (6, True)
    for host, name in ((1, "client"), (1, "b3"), (1, "b6"), (2, "b4")):
        cluster.ok(host, "overlayd", "detach", name)
        cluster.ok(host, "sh", "-c", f"kill -9 $(ip netns pids {name}); ip netns del {name}")
    eventually(lambda: "dead" in cluster.ok(1, "overlayd", "members"), "vm3 is dead")
    cluster.ok(1, "overlayd", "forget", "vm3")
    apply(cluster, OWNER, "--prune")
    for number, had in four.before.items():
        eventually(lambda n=number, h=had: state(cluster, n) == h, f"vm{number} as before")
        assert cluster.differences(number) == []
