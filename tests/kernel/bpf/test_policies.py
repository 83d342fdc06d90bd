"""Policies on real interfaces: both paths, both sides, and what outlives an agent."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.port_security import DEFAULT_TARGET_MAC
from overlay.core.dataplane.state import (
    GATEWAY_CLASS,
    HookRow,
    PolicyClassRow,
    Row,
    SandboxState,
    SourceRow,
    TargetRow,
    VerdictRow,
)
from overlay.kernel import netns
from overlay.kernel.bpf import fast_path, syscall
from overlay.kernel.bpf.fast_path import FastPath
from overlay.kernel.sandbox import gratuitous_arp
from overlay.model import Ip, gateway_mac, ip_text, mac_for, mac_text, parse_ip
from tests.kernel.bpf.test_fast_path import FOUR, THREE, TWO, Fast, cluster  # noqa: F401
from tests.kernel.bpf.test_probes import probe_arrives

if TYPE_CHECKING:
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns
WEB, DB, OTHER = 2, 3, 4
TCP, UDP, ICMP = 6, 17, 1
DENY = VerdictRow(0, 0, 0, 0, 0, allow=False)
TO_DB = VerdictRow(WEB, DB, TCP, 8080, 16, allow=True, rule=1)
RULES = (
    DENY,
    TO_DB,
    TO_DB._replace(protocol=UDP),
    TO_DB._replace(protocol=ICMP, port=0, port_bits=0),
)


def six(ip: Ip) -> Ip:
    """Return the IPv6 address of the container with an IPv4 address."""
    return parse_ip(f"fd32::{ip[3]}")


@dataclass
class Policed(Fast):
    """A host with policies, with or without fast path."""

    redirects: bool = True
    rules: tuple[VerdictRow, ...] = RULES
    classes: dict[Ip, int] = field(
        default_factory=lambda: {
            TWO: WEB,
            THREE: DB,
            FOUR: OTHER,
            parse_ip("10.32.0.1"): GATEWAY_CLASS,
        }
    )

    def desired(self) -> SandboxState:
        """Return the planned state with policies; without rules, as if there were none."""
        planned = self.host.desired()
        if not self.rules:
            return SandboxState(planned.links, super().desired().rows | self.sources())
        rows: set[Row] = {*planned.rows, *self.rules, HookRow(0, "br0", is_policed=True)}
        rows |= {HookRow(0, name, True, True) for name in ("vxlan0", *self.endpoints)}
        for ip, number in self.classes.items():
            rows |= {PolicyClassRow(ip, 32, number), PolicyClassRow(six(ip), 128, number)}
        if self.redirects:
            rows |= {HookRow(0, name, is_policed=True) for name in ("vxlan0", *self.endpoints)}
            rows |= {
                TargetRow(DEFAULT_TARGET_MAC, 0, "vxlan0"),
                TargetRow(gateway_mac(self.host.vni, 0), 0, "br0"),
                *self.sources(),
            }
            for port, ip in self.endpoints.items():
                rows.add(TargetRow(mac_for(self.host.vni, ip), 0, port))
        return SandboxState(planned.links, frozenset(rows))

    def sources(self) -> set[Row]:
        """Return what each port may send from on the fast path."""
        return {
            SourceRow(address, mac_for(self.host.vni, ip), port)
            for port, ip in self.endpoints.items()
            for address in (ip, six(ip))
        }

    def denied(self) -> int:
        """Return how many packets were denied here."""
        fast_path = self.host.sandbox.fast_path
        assert fast_path is not None
        assert fast_path.policy_maps is not None
        return sum(each.denied for each in fast_path.policy_maps.counts().values())


@dataclass
class Scene:
    """Two hosts: a web server's and another container on the first, a database on the second."""

    world: World
    one: Policed
    two: Policed
    web: str
    db: str
    other: str

    @property
    def hosts(self) -> tuple[Policed, Policed]:
        """Return both hosts."""
        return self.one, self.two

    def converge(self) -> None:
        """Run a pass on each host, and see that a second one has nothing to do."""
        for host in self.hosts:
            assert host.converge() == []
            assert host.differences() == []

    def denied(self) -> int:
        """Return how many packets were denied on both hosts."""
        return sum(host.denied() for host in self.hosts)

    def open(self, namespace: str, kind: socket.SocketKind, ip: Ip, port: int = 0) -> socket.socket:
        """Return a socket of a container, bound to its address."""
        family = socket.AF_INET if len(ip) == 4 else socket.AF_INET6
        with netns.inside(self.world.fd(namespace)):
            opened = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((ip_text(ip), port))
        return opened

    def listen(self, namespace: str, ip: Ip, port: int = 8080) -> socket.socket:
        """Return a listening socket."""
        opened = self.open(namespace, socket.SOCK_STREAM, ip, port)
        opened.listen()
        return opened

    def connect(self, namespace: str, source: Ip, to: Ip, port: int = 8080) -> socket.socket | None:
        """Return a connection; None when its first packet was denied."""
        before = self.denied()
        opened = self.open(namespace, socket.SOCK_STREAM, source)
        assert opened.connect_ex((ip_text(to), port)) == errno.EINPROGRESS
        self.world.wait_until(
            lambda: bool(select.select([], [opened], [], 0)[1]) or self.denied() > before,
            "a connection, or its denial",
        )
        if not select.select([], [opened], [], 0)[1]:
            opened.close()
            return None
        assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        return opened

    def accept(self, server: socket.socket) -> socket.socket:
        """Wait for a connection; the client may know of it earlier."""
        self.world.wait_until(lambda: bool(select.select([server], [], [], 0)[0]), "a connection")
        accepted, _ = server.accept()
        return accepted

    def receive(self, opened: socket.socket, what: str) -> bytes:
        """Wait for data."""
        self.world.wait_until(lambda: bool(select.select([opened], [], [], 0)[0]), what)
        return opened.recv(65536)

    def exchange(self, one: socket.socket, other: socket.socket) -> None:
        """Send something each way."""
        for sender, receiver in ((one, other), (other, one)):
            sender.send(b"hello")
            assert self.receive(receiver, "data") == b"hello"


@pytest.fixture
def scene(cluster: tuple[Fast, Fast, str, str, str], world: World) -> Scene:  # noqa: F811 - the fixture
    """Return two hosts with a network that denies by default, and some rules."""
    first, second, web, db, other = cluster
    one, two = Policed(first.host, first.endpoints), Policed(second.host, second.endpoints)
    by_ip = {TWO: web, THREE: db, FOUR: other}
    for ip, name in by_ip.items():
        world.run(name, "sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=0")
        world.run(name, "ip", "address", "add", f"{ip_text(six(ip))}/64", "dev", "eth0", "nodad")
        for peer in by_ip:
            where = (ip_text(six(peer)), "lladdr", mac_text(mac_for(one.host.vni, peer)))
            world.run(name, "ip", "neigh", "replace", *where, "dev", "eth0", "nud", "permanent")
    made = Scene(world, one, two, web, db, other)
    made.converge()
    return made


@pytest.fixture(params=["fast path", "bridge"])
def path(request: pytest.FixtureRequest, scene: Scene) -> Iterator[str]:
    """Have frames take one path on both hosts."""
    for host in scene.hosts:
        host.redirects = request.param == "fast path"
    scene.converge()
    yield request.param
    bridged = sum(host.bridged(port) for host in scene.hosts for port in host.endpoints)
    assert request.param == "fast path" or bridged > 0


@pytest.mark.usefixtures("path")
def test_connections_pass_as_rules_allow_them(scene: Scene) -> None:
    """The allowed port of the allowed container, and the answers; between hosts and on one."""
    check_connections(scene, TWO, THREE, FOUR)
    check_connections(scene, *map(six, (TWO, THREE, FOUR)))


def check_connections(scene: Scene, web: Ip, db: Ip, other: Ip) -> None:
    """Check that these addresses reach each other as the rules say."""
    server, wrong = scene.listen(scene.db, db), scene.listen(scene.db, db, 8081)
    neighbor, own = scene.listen(scene.other, other), scene.listen(scene.web, web)

    opened = scene.connect(scene.web, web, db)

    assert opened is not None
    accepted = scene.accept(server)
    scene.exchange(opened, accepted)
    for namespace, source, to, port in (
        (scene.web, web, db, 8081), (scene.db, db, web, 8080), (scene.other, other, db, 8080),
        (scene.web, web, other, 8080), (scene.other, other, web, 8080),
    ):  # fmt: skip
        assert scene.connect(namespace, source, to, port) is None
    scene.exchange(opened, accepted)
    for each in (server, wrong, neighbor, own, opened, accepted):
        each.close()


@pytest.mark.parametrize("side", ["sender", "receiver"])
@pytest.mark.usefixtures("path")
def test_each_side_denies_by_itself(scene: Scene, side: str) -> None:
    """The receiver does not rely on the sender, nor the sender on the receiver."""
    policed, open_host = scene.hosts if side == "sender" else scene.hosts[::-1]
    open_host.rules = (DENY._replace(allow=True),)
    scene.converge()
    server = scene.listen(scene.db, THREE, 8081)

    assert scene.connect(scene.web, TWO, THREE, 8081) is None

    assert policed.denied() > 0
    assert open_host.denied() == 0
    server.close()


@pytest.mark.usefixtures("path")
def test_datagrams_and_errors_come_back(scene: Scene) -> None:
    """An answer, a fragmented one, and the error that nobody listens."""
    check_datagrams(scene, TWO, THREE)
    check_datagrams(scene, six(TWO), six(THREE))


def check_datagrams(scene: Scene, web: Ip, db: Ip) -> None:
    """Check that datagrams are answered, and by no more than that."""
    before = scene.denied()
    client = scene.open(scene.web, socket.SOCK_DGRAM, web, 40000)
    server = scene.open(scene.db, socket.SOCK_DGRAM, db, 8080)
    server.sendto(b"unasked", (ip_text(web), 40000))
    scene.world.wait_until(lambda: scene.denied() > before, "the denial")
    client.connect((ip_text(db), 8080))
    for size in (8, 4000):
        client.send(bytes(size))
        assert len(scene.receive(server, "a datagram")) == size
        server.sendto(bytes(size), (ip_text(web), 40000))
        assert len(scene.receive(client, "its answer")) == size
    server.close()
    client.send(b"nobody")
    with pytest.raises(ConnectionRefusedError):
        scene.receive(client, "the error")
    client.close()


@pytest.mark.usefixtures("path")
def test_pings_pass_one_way(scene: Scene) -> None:
    """By the rule on ICMP, whole and in fragments; the gateway is not among those allowed."""
    world = scene.world
    for address in ("10.32.0.3", "fd32::3"):
        assert world.pings(scene.web, address, count=3) == 3
        assert world.pings(scene.web, address, "-s", "4000") == 1
    assert world.pings(scene.db, "10.32.0.2") == 0
    assert world.pings(scene.web, "10.32.0.1") == 0
    assert probe_arrives(scene.one.host, scene.two.host)


def test_policies_leave_frames_on_the_fast_path(scene: Scene) -> None:
    """Frames that they allow go past the bridge as before."""
    assert scene.world.pings(scene.web, "10.32.0.3") == 1  # ARP goes by the bridge
    before = scene.one.bridged("p0"), scene.two.bridged("p0")

    assert scene.world.pings(scene.web, "10.32.0.3", count=50) == 50

    after = scene.one.bridged("p0"), scene.two.bridged("p0")
    # Neighbor discovery and reports of multicast listeners may take the bridge meanwhile.
    assert max(now - then for now, then in zip(after, before, strict=True)) < 25


@pytest.mark.parametrize("text", ["10.32.200.200", "fd32::200"])
def test_announcements_pass_whatever_the_rules(scene: Scene, text: str) -> None:
    """Containers of other hosts learn of a moved address, though nothing may be sent to them."""
    scene.one.rules = scene.two.rules = (DENY,)
    scene.converge()
    ip, mac = parse_ip(text), mac_for(scene.one.host.vni, TWO)
    known = (text, "lladdr", "02:00:00:00:00:99", "dev", "eth0", "nud", "stale")
    scene.world.run(scene.db, "ip", "neigh", "replace", *known)

    with netns.inside(scene.world.fd(scene.web)):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    raw.bind(("eth0", 0))
    raw.send(gratuitous_arp.announcement_frame(ip, mac))

    shown = ("ip", "neigh", "show", text)
    scene.world.wait_until(
        lambda: mac_text(mac) in scene.world.run(scene.db, *shown), "the new MAC"
    )
    raw.close()


@pytest.mark.usefixtures("path")
def test_a_changed_rule_ends_what_it_denies(scene: Scene) -> None:
    """An established connection passes nothing more, and another one goes on."""
    server = scene.listen(scene.db, THREE)
    scene.one.rules = scene.two.rules = (*RULES, TO_DB._replace(port=9000, rule=5))
    scene.converge()
    second_server = scene.listen(scene.db, THREE, 9000)
    first, second = (scene.connect(scene.web, TWO, THREE, port) for port in (8080, 9000))
    assert first is not None
    assert second is not None
    one, other = scene.accept(server), scene.accept(second_server)
    scene.exchange(first, one)
    scene.exchange(second, other)

    for host in scene.hosts:
        host.rules = (DENY, *host.rules[2:])
    scene.converge()

    before = scene.denied()
    first.send(b"late")
    scene.world.wait_until(lambda: scene.denied() > before, "the denial")
    scene.exchange(second, other)
    assert select.select([one], [], [], 0)[0] == []
    for each in (server, second_server, first, second, one, other):
        each.close()


@pytest.mark.usefixtures("path")
def test_policies_and_connections_outlive_the_agent(scene: Scene) -> None:
    """The next agent's programs know the connections, and its rules count."""
    server = scene.listen(scene.db, THREE)
    client = scene.open(scene.web, socket.SOCK_DGRAM, TWO, 40000)
    datagrams = scene.open(scene.db, socket.SOCK_DGRAM, THREE, 8080)
    client.sendto(b"request", ("10.32.0.3", 8080))
    assert scene.receive(datagrams, "the request") == b"request"
    opened = scene.connect(scene.web, TWO, THREE)
    assert opened is not None
    accepted = scene.accept(server)
    for host in scene.hosts:
        assert host.host.sandbox.fast_path is not None
        host.host.sandbox.fast_path.close()
    scene.exchange(opened, accepted)
    assert scene.world.pings(scene.db, "10.32.0.2") == 0

    for host in scene.hosts:
        host.host.sandbox.fast_path = FastPath()
        assert host.differences() != []
    scene.converge()

    datagrams.sendto(b"answer", ("10.32.0.2", 40000))
    assert scene.receive(client, "the answer to the request before") == b"answer"
    scene.exchange(accepted, opened)
    assert scene.connect(scene.db, THREE, TWO) is None
    for each in (server, client, datagrams, opened, accepted):
        each.close()


def test_policies_come_and_go_without_a_cut(scene: Scene) -> None:
    """Established connections pass while a network gets its first policies, and loses its last."""
    for host in scene.hosts:
        host.rules = ()
    scene.converge()
    server = scene.listen(scene.db, THREE)
    opened = scene.connect(scene.web, TWO, THREE)
    assert opened is not None
    accepted = scene.accept(server)
    for rules in (RULES, ()):
        for host in scene.hosts:
            host.rules = rules
        scene.converge()
        scene.exchange(accepted, opened)
        scene.exchange(opened, accepted)
    shown = scene.world.run(
        scene.one.host.sandbox.name, "tc", "filter", "show", "dev", "p0", "egress"
    )
    assert "overlayd" not in shown
    for each in (server, opened, accepted):
        each.close()


@pytest.mark.parametrize("hook", [("p0", "egress"), ("vxlan0", "egress"), ("br0", "ingress")])
def test_removed_policy_hooks_are_found_and_restored(scene: Scene, hook: tuple[str, str]) -> None:
    """Of each direction; one pass restores them."""
    scene.world.run(scene.one.host.sandbox.name, "tc", "filter", "del", "dev", *hook)

    assert scene.one.differences() != []
    scene.converge()


def test_a_port_whose_program_is_refused_is_shut(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing reaches it, the failure names its hook, and the next pass opens it."""
    assert scene.world.pings(scene.web, "10.32.0.3") == 1
    scene.two.host.sandbox.fast_path = FastPath()

    def refuse(code: bytes, name: str, terms: str = syscall.LICENSE) -> int:
        del code, terms
        raise OSError(errno.EINVAL, f"{name} is refused")

    with monkeypatch.context() as patch:
        patch.setattr(syscall, "load", refuse)
        failures = scene.two.converge()

    assert {str(each.operation) for each in failures} == {
        f"fast path replace policed program of segment 0 on {name}"
        for name in ("vxlan0", "vxlan0, leaving", "br0", "p0", "p0, leaving")
    }
    assert {each.reason for each in failures} >= {"overlayd_leave0 is refused"}
    assert scene.world.pings(scene.web, "10.32.0.3") == 0
    scene.converge()
    assert scene.world.pings(scene.web, "10.32.0.3") == 1


def test_without_programs_each_row_of_policies_fails(scene: Scene) -> None:
    """A kernel without eBPF is reported for each row, and the hooks of before stay."""
    scene.two.host.sandbox.fast_path = None

    failures = scene.two.converge()

    rows = {type(each.operation.row) for each in failures if hasattr(each.operation, "row")}
    assert rows == {HookRow, PolicyClassRow, VerdictRow}
    assert {each.reason for each in failures} == {
        "this kernel runs no eBPF programs, which policies and VLANs need"
    }
    assert fast_path.apply_policies(None, [], scene.two.host.sandbox.socket) == []
