"""Policies, with real packets: between hosts and on one, of both IP versions, whoever dies."""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from overlay.agent.resolvers import resolv_conf
from overlay.lab import data_path, host_process
from overlay.lab.driver import AgentDriver, wait_until
from overlay.lab.fixtures import LabCluster
from overlay.lab.flow import ContainerLocation, Flow, require_no_loss
from overlay.lab.forged_frames import FrameCapture, NamespaceRef
from overlay.lab.frames import (
    BROADCAST,
    ethernet,
    fragments,
    ipv6,
    packet_frame,
    udp,
)
from overlay.lab.host_process import HostProcess
from overlay.model import ip_text, link_local_ip, parse_ip, parse_mac

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
HTTP, SQL, ECHO = 80, 5432, 7000
SERVE = f"""
import selectors, socket
chosen = selectors.DefaultSelector()
for port in ({HTTP}, {SQL}):
    server = socket.create_server(("::", port), family=socket.AF_INET6, backlog=128,
                                  dualstack_ipv6=True)
    chosen.register(server, selectors.EVENT_READ, server.accept)
print("ready", flush=True)
while True:
    for key, _ in chosen.select():
        if key.data is None:
            data = b""
            try:
                data = key.fileobj.recv(4096)
                key.fileobj.send(data)
            except OSError:
                pass
            if not data:
                chosen.unregister(key.fileobj)
                key.fileobj.close()
        else:
            peer, _ = key.data()
            chosen.register(peer, selectors.EVENT_READ, None)
"""
# Connects to all at once; prints those that answered. A denied one is silent.
TRY = """
import json, selectors, socket, sys, time
chosen, answered = selectors.DefaultSelector(), []
for name, ip, port in json.loads(sys.argv[1]):
    peer = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET)
    peer.setblocking(False)
    peer.connect_ex((ip, port))
    chosen.register(peer, selectors.EVENT_WRITE, name)
until = time.monotonic() + 0.8
while chosen.get_map() and time.monotonic() < until:
    for key, _ in chosen.select(until - time.monotonic()):
        if not key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            answered.append(key.data)
        chosen.unregister(key.fileobj)
print(json.dumps(sorted(answered)))
"""
# Tries one address again and again, from before there is an interface; prints tries and successes.
KEEP_TRYING = """
import errno, select, socket, sys, time
tries = answers = 0
while not select.select([sys.stdin], [], [], 0.002)[0]:
    peer = socket.socket(socket.AF_INET)
    peer.setblocking(False)
    if peer.connect_ex((sys.argv[1], int(sys.argv[2]))) == errno.EINPROGRESS:
        tries += 1
        if select.select([], [peer], [], 0.02)[1] and not peer.getsockopt(
            socket.SOL_SOCKET, socket.SO_ERROR
        ):
            answers += 1
    if tries == 30:
        print("tried", flush=True)
    peer.close()
print(tries, answers, flush=True)
"""
# Sends a line at a time on one connection; prints how many came back.
TALK = """
import select, socket, sys
peer = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
peer.settimeout(20)
print("ready", flush=True)
count = 0
while not select.select([sys.stdin], [], [], 0.01)[0]:
    peer.sendall(b"x")
    assert peer.recv(1) == b"x"
    count += 1
print(count, flush=True)
"""
# A question for a name, as DNS has it (RFC 1035); prints the address in its answer.
ASK = """
import socket, sys
name = b"".join(bytes([len(word)]) + word.encode() for word in sys.argv[2].split("."))
peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
peer.settimeout(20)
peer.sendto(b"\\0\\7\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0" + name + b"\\0\\0\\1\\0\\1", (sys.argv[1], 53))
print(socket.inet_ntoa(peer.recv(512)[-4:]))
"""


@contextlib.contextmanager
def started(host: HostProcess, *command: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program on a host for as long as its input is open; it ends with the block."""
    words = host_process.enter_command(host, command)
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


class Stage:
    """Web servers, databases and others on a network of their own."""

    def __init__(self, cluster: LabCluster) -> None:
        self.drivers = cluster.drivers
        self.ips: dict[str, list[str]] = {}
        self.macs: dict[str, bytes] = {}
        self.at: dict[str, AgentDriver] = {}
        self.host(1).post(
            "/v1/networks", name="pol",
            subnets=[{"subnet": "10.77.0.0/24"}, {"subnet": "fd77::/64"}],
        )  # fmt: skip
        for number, name, app in (
            (1, "web1", "web"), (1, "db1", "db"), (1, "other1", "other"),
            (2, "db2", "db"), (2, "web2", "web"),
        ):  # fmt: skip
            self.attach(number, name, app)
            self.start(name, SERVE)

    def given_resolver(self) -> str:
        """Return a resolver elsewhere that an engine gives to containers of vm1."""
        root = Path(f"/proc/{self.drivers[0].host.pid}/root")
        found = resolv_conf.engine_resolvers(root / "etc/resolv.conf", root / "none")
        return next(ip_text(ip) for ip in found if len(ip) == 4)

    def host(self, number: int) -> AgentDriver:
        """Return a host, counted from 1."""
        return self.drivers[number - 1]

    def cli(self, *words: str, number: int = 1) -> str:
        """Run overlayd on a host; it must succeed."""
        return self.host(number).run("overlayd", *words)

    def attach(self, number: int, name: str, app: str) -> None:
        """Make a namespace, and attach it with a label."""
        driver = self.host(number)
        if name not in driver.run("ip", "netns").split():
            driver.run("ip", "netns", "add", name)
        made = driver.post(
            "/v1/endpoints", target=f"netns:{name}", networks=["pol"], labels={"app": app}
        )["endpoints"][0]
        self.ips[name], self.macs[name] = made["ips"], parse_mac(made["mac"])
        self.at[name] = driver

    def spot(self, name: str) -> NamespaceRef:
        """Return a container."""
        return NamespaceRef(self.at[name].host, name)

    def start(self, name: str, program: str, *words: str) -> None:
        """Start a server in a container."""
        command = shlex.join([sys.executable, "-c", program, *words])
        inside = f"ip netns exec {name} {command} >/run/{name}.out 2>&1 &"
        self.at[name].run("sh", "-c", inside)
        wait_until(
            lambda: "ready" in self.at[name].run("cat", f"/run/{name}.out"), f"{name} serves"
        )

    def answering(self, source: str, *targets: str) -> list[str]:
        """Return which of some `NAME:PORT` answer a container, by each of their addresses."""
        ends = [(each, *each.split(":")) for each in targets]
        tried = [
            (f"{target}/{6 if ':' in ip else 4}", ip, int(port))
            for target, name, port in ends
            for ip in self.ips[name]
        ]
        found: list[str] = json.loads(
            self.spot(source).run(sys.executable, "-c", TRY, json.dumps(tried))
        )
        return found

    def expect(self, source: str, reached: str, silent: str) -> None:
        """Wait until some answer by both IP versions, and others by neither."""
        wanted = sorted(f"{each}/{version}" for each in reached.split() for version in (4, 6))
        targets = [*reached.split(), *silent.split()]
        seen: list[str] = []

        def holds() -> bool:
            seen[:] = self.answering(source, *targets)
            return seen == wanted

        wait_until(holds, f"{source} reaches {wanted} of {targets}; last: {seen}")

    @contextlib.contextmanager
    def policy(self, name: str, *words: str) -> Iterator[None]:
        """Have a policy during a block."""
        self.cli("policy", "create", name, "--network", "pol", *words)
        try:
            yield
        finally:
            self.cli("policy", "rm", name)

    @contextlib.contextmanager
    def default_deny(self) -> Iterator[None]:
        """Deny what no policy allows during a block."""
        self.cli("network", "set", "pol", "--default-deny", "on")
        try:
            yield
        finally:
            self.cli("network", "set", "pol", "--default-deny", "off")


@pytest.fixture(scope="module")
def stage(three: LabCluster) -> Stage:
    """Return the containers."""
    return Stage(three)


NO_SQL = ("no-sql", "--deny", "--from", "label=app=web", "--to", "label=app=db",
          "--port", "5432/tcp")  # fmt: skip
NO_DB = ("no-db", "--deny", "--from", "label=app=web", "--to", "label=app=db")


def test_a_deny_holds_between_hosts_and_on_one_host(stage: Stage) -> None:
    """For its sources, destinations and ports alone; without the policy all is open again."""
    stage.expect("web1", "db1:5432 db2:5432 db1:80 db2:80", "")
    with stage.policy(*NO_SQL):
        stage.expect("web1", "db1:80 db2:80 other1:5432", "db1:5432 db2:5432")
        stage.expect("other1", "db1:5432 db2:5432", "")
        stage.expect("db2", "web1:5432 web1:80", "")
    stage.expect("web1", "db1:5432 db2:5432", "")


def test_a_closed_network_has_names_and_what_is_allowed(stage: Stage) -> None:
    """Answers pass; a deny beats an allow; nobody else gets in."""
    with (
        stage.default_deny(),
        stage.policy(
            "sql", "--from", "label=app=web", "--to", "label=app=db", "--port", "5432/tcp"
        ),
    ):
        stage.expect("web1", "db1:5432 db2:5432", "db1:80 db2:80 other1:80")
        stage.expect("db2", "", "web1:80 web1:5432 db1:5432")
        for resolver in ("10.77.0.1", stage.given_resolver()):
            asked = (sys.executable, "-c", ASK, resolver, "db2")
            assert stage.spot("web1").run(*asked).strip() == stage.ips["db2"][0]
        with stage.policy("not-db2", "--deny", "--to", "name=db2"):
            stage.expect("web1", "db1:5432", "db2:5432")
    stage.expect("db2", "web1:80", "")


def test_a_new_container_is_denied_from_its_first_packet(stage: Stage) -> None:
    """A program that tries from before the attach until after it never gets an answer."""
    driver = stage.host(3)
    with stage.policy(*NO_DB):
        stage.expect("web2", "other1:80", "db1:80 db2:80")
        for number, name in enumerate(("new1", "new2")):
            driver.run("ip", "netns", "add", name)
            target = stage.ips[("db1", "db2")[number]][0]
            inside = ["ip", "netns", "exec", name, sys.executable, "-c", KEEP_TRYING]
            with started(driver.host, *inside, target, str(HTTP)) as trying:
                stage.attach(3, name, "web")
                assert trying.stdout is not None
                assert trying.stdout.readline() == "tried\n"
                tries, answers = trying.communicate("", timeout=60)[0].split()
            assert int(tries) >= 30
            assert answers == "0"
        driver.run("overlayd", "endpoint", "set", "netns:new1", "--add-label", "app=free")
        stage.expect("new1", "db1:80 db2:80", "")
        driver.run("overlayd", "endpoint", "set", "netns:new1", "--add-label", "app=web")
        stage.expect("new1", "", "db1:80 db2:80")


def test_policies_outlive_the_agent(stage: Stage) -> None:
    """Denies hold without it, and through its start; connections that there are lose nothing.

    One of the agents comes back without the fast path: its programs then only check.
    """
    db2 = stage.ips["db2"]
    flow = Flow(
        ContainerLocation(stage.host(1), "web1"), ContainerLocation(stage.host(2), "db2"), db2[1]
    )
    inside = ["ip", "netns", "exec", "web1", sys.executable, "-c", TALK, db2[0], str(SQL)]
    other = () if data_path.wanted() else ("--fast-path", "off")
    with (
        stage.default_deny(),
        stage.policy("sql", "--from", "label=app=web", "--to", "label=app=db", "--port",
                     "5432/tcp", "--port", f"{ECHO}/udp"),
    ):  # fmt: skip
        stage.expect("web1", "db1:5432 db2:5432", "db1:80 db2:80")
        with started(stage.host(1).host, *inside) as talking, flow:
            assert talking.stdout is not None
            assert talking.stdout.readline() == "ready\n"
            for number in (1, 2):
                stage.host(number).end()
            assert stage.answering("web1", "db1:80", "db2:80", "db2:5432") == [
                "db2:5432/4", "db2:5432/6",
            ]  # fmt: skip
            with ThreadPoolExecutor() as pool:
                one = pool.submit(stage.host(1).start)
                pool.submit(stage.host(2).start, *other).result()
                one.result()
            stage.expect("web1", "db1:5432 db2:5432", "db1:80 db2:80")
            count = talking.communicate("", timeout=60)[0]
        assert int(count) > 50
        assert flow.verdict is not None
        require_no_loss([flow.verdict])


def test_hosts_and_the_world_are_under_policy(stage: Stage) -> None:
    """The host's own connections, and those to a published port from elsewhere."""
    host, ip = stage.host(2), stage.ips["db2"][0]
    host.run("overlayd", "publish", "db2", f"8080:{HTTP}", "--network", "pol")
    outside = host.address

    def reaches(number: int, address: str, port: int) -> bool:
        tried = json.dumps([("it", address, port)])
        words = [sys.executable, "-c", TRY, tried]
        return stage.host(number).run(*words) == '["it"]\n'

    wait_until(lambda: reaches(3, outside, 8080) and reaches(2, ip, HTTP), "db2 is published")
    with stage.policy("no-world", "--deny", "--from", "world", "--to", "label=app=db"):
        wait_until(lambda: not reaches(3, outside, 8080), "the world is denied")
        assert reaches(2, ip, HTTP)
    with stage.policy("no-host", "--deny", "--from", "host", "--to", "label=app=db"):
        wait_until(lambda: not reaches(2, ip, HTTP), "the host is denied")
        stage.expect("web1", "db2:80", "")
    wait_until(lambda: reaches(3, outside, 8080), "db2 is published")


def hostile_frames(stage: Stage, target: str) -> dict[str, bytes]:
    """Return frames of web1 that must not reach a container, by label."""
    own, mac = [parse_ip(ip) for ip in stage.ips["web1"]], stage.macs["web1"]
    ips, theirs = [parse_ip(ip) for ip in stage.ips[target]], stage.macs[target]
    friend = [parse_ip(ip) for ip in stage.ips["other1"]]
    ports = (5000, HTTP)

    def tagged(label: str) -> bytes:
        return f"<{label}>".encode()

    def plain(source: bytes, to: bytes, label: str) -> bytes:
        return udp(source, to, ports, tagged(label))

    def behind(kind: int, header: bytes, label: str) -> bytes:
        datagram = plain(own[1], ips[1], label)[40:]
        return ipv6(own[1], ips[1], kind, header + datagram, at=len(header) + 6)

    first, second = fragments(
        udp(own[0], ips[0], ports, tagged("fragment") + b"x" * 64), 8, len(target)
    )
    nothing = bytes([17, 0, 1, 4, 0, 0, 0, 0])  # UDP follows; PadN (RFC 8200 section 4.2)
    third = bytes([17, 0, 0, 0, 0, 0, 0, 9])  # UDP follows; a whole packet in one fragment
    options = plain(own[0], ips[0], "options")
    options = b"\x46" + options[1:20] + b"\x01\x01\x01\x00" + options[20:]
    return {
        "plain": packet_frame(theirs, mac, plain(own[0], ips[0], "plain")),
        "plain6": packet_frame(theirs, mac, plain(own[1], ips[1], "plain6")),
        "forged ip": packet_frame(theirs, mac, plain(friend[0], ips[0], "forged ip")),
        "forged ip6": packet_frame(theirs, mac, plain(friend[1], ips[1], "forged ip6")),
        "forged mac": packet_frame(
            theirs, stage.macs["other1"], plain(friend[0], ips[0], "forged mac")
        ),
        "fragment head": packet_frame(theirs, mac, first),
        "fragment": packet_frame(theirs, mac, second),
        "vlan": ethernet(
            theirs, mac, 0x8100, b"\0\5\x08\0" + plain(own[0], ips[0], "vlan")
        ),
        "hop by hop": packet_frame(theirs, mac, behind(0, nothing, "hop by hop")),
        "destination": packet_frame(theirs, mac, behind(60, nothing, "destination")),
        "fragment6": packet_frame(theirs, mac, behind(44, third, "fragment6")),
        "options": packet_frame(theirs, mac, options),
        "broadcast": packet_frame(BROADCAST, mac, plain(own[0], b"\xff" * 4, "broadcast")),
        "to their mac": packet_frame(theirs, mac, plain(own[0], b"\xff" * 4, "to their mac")),
        "multicast": packet_frame(
            bytes.fromhex("333300000001"), mac, plain(own[1], parse_ip("ff02::1"), "multicast")
        ),
        "link-local": packet_frame(
            theirs, mac, plain(link_local_ip(parse_mac(mac.hex(":"))),
                               link_local_ip(parse_mac(theirs.hex(":"))), "link-local")
        ),
        "another protocol": packet_frame(
            theirs, mac, ipv6(own[1], ips[1], 132, bytes(8) + tagged("another protocol"), at=0)
        ),
        "ether type": ethernet(theirs, mac, 0x88B5, tagged("ether type")),
    }  # fmt: skip


@pytest.mark.parametrize("target", ["db1", "db2"], ids=["one host", "two hosts"])
def test_no_frame_gets_round_a_policy(stage: Stage, target: str) -> None:
    """However it is made; what another container sends arrives meanwhile."""

    def fence() -> None:
        source = parse_ip(stage.ips["other1"][0])
        packet = udp(source, parse_ip(stage.ips[target][0]), (5000, HTTP), b"<fence>")
        frame = packet_frame(stage.macs[target], stage.macs["other1"], packet)
        stage.spot("other1").send_frames(frame)

    def arrived() -> set[str]:
        with FrameCapture(stage.spot(target), fence) as capture:
            stage.spot("web1").send_frames(*frames.values())
        return set(capture.seen)

    frames = hostile_frames(stage, target)
    assert {"plain", "plain6", "link-local"} <= arrived(), "without the policy"
    with stage.policy(*NO_DB):
        stage.expect("web1", "other1:80", f"{target}:80")
        assert arrived() == set()


def test_networks_without_ports_have_no_policies(stage: Stage) -> None:
    """Such a policy could not be enforced, so it is refused."""
    driver = stage.host(1)
    driver.run("overlayd", "network", "create", "lan", "--driver", "macvlan", "--parent", "eth1",
               "--subnet", "192.0.2.0/24", "--gateway", "192.0.2.1")  # fmt: skip
    done = host_process.run(
        driver.host, "overlayd", "policy", "create", "x", "--network", "lan", "--deny"
    )
    assert done.returncode != 0
    assert "macvlan" in done.stderr
