"""The filter of the VXLAN port in a real kernel."""

from __future__ import annotations

import os
import socket
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.host_rules import (
    ExposedLink,
    ForwardingInterface,
    HostState,
    PortForward,
)
from overlay.core.dataplane.underlay_filter import ArrivalPath, FilterState
from overlay.kernel import netns
from overlay.kernel.nft.expressions import Expression
from overlay.kernel.nft.host.host_table import HostTable
from overlay.kernel.nft.table import FAMILY_INET, Chain, Set, Table
from overlay.kernel.nft.tables import Monitor, NftMissingError, NftTables
from overlay.kernel.nft.underlay_filter import UnderlayTable
from overlay.model import Ip, NodeId, Vni, parse_ip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns
IP_TRANSPARENT, IPV6_FREEBIND = 19, 78  # linux/in.h, linux/in6.h
ONE, OTHER = NodeId(b"\x11" * 16), NodeId(b"\x22" * 16)
STATE = FilterState(
    frozenset({parse_ip("192.168.56.12"), parse_ip("fd00::12")}),
    frozenset({Vni(0x800001)}),
    frozenset({ArrivalPath(1, parse_ip("192.168.56.12")), ArrivalPath(1, parse_ip("fd00::12"))}),
    frozenset({Vni(0x800002)}),
)
HOST_STATE = HostState(
    links=frozenset({ExposedLink("ovh1", ((parse_ip("10.32.0.0"), 16), (parse_ip("fd32::"), 64)))}),
    ports=frozenset({
        PortForward("tcp", Ip(b""), 8080, parse_ip("10.32.0.2"), 80, borrowed=True),
        PortForward("udp", parse_ip("fd00::1"), 53, parse_ip("fd32::2"), 53, borrowed=False),
    }),
    opened=frozenset({ForwardingInterface(7, 4), ForwardingInterface(7, 6)}),
)  # fmt: skip


class Place:
    """A host with a filter of its own."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._name = world.namespace("host")
        self.fd = world.fd(self._name)

    def filter(self, node_id: NodeId = ONE) -> UnderlayTable:
        """Open a node's filter."""
        with netns.inside(self.fd):
            return UnderlayTable(node_id, 4789, 7948)

    def nft(self, words: str) -> str:
        """Run the nft program."""
        return self._world.run(self._name, "nft", *words.split())


@pytest.fixture
def place(world: World) -> Place:
    """Return a host."""
    return Place(world)


def test_a_written_state_is_read(place: Place) -> None:
    """Members of both families and VNIs are read as written.

    Before, there is nothing.
    """
    one = place.filter()
    before = one.read()
    one.write(None, STATE)

    assert before is None
    assert one.read() == STATE
    assert "192.168.56.12" in place.nft("list table inet overlayd_111111")
    one.remove()
    assert one.read() is None
    one.close()


def test_the_output_of_nft_can_be_loaded(place: Place, tmp_path: Path) -> None:
    """The nft program can read back its output of `nft list ruleset`."""
    one = place.filter()
    one.write(None, STATE)
    with netns.inside(place.fd):
        host = HostTable(ONE)
    host.write(HOST_STATE)
    shown = tmp_path / "nftables.conf"
    shown.write_text(place.nft("list ruleset"))
    place.nft("flush ruleset")
    place.nft(f"-f {shown}")

    assert place.nft("list ruleset") == shown.read_text()
    one.close()
    host.close()


def test_changes_are_made_in_place(place: Place) -> None:
    """From one state to another only elements change; no rule is recreated."""
    one = place.filter()
    one.write(None, STATE)
    before = place.nft("-a list chain inet overlayd_111111 check")
    many = FilterState(
        frozenset(Ip(b"\x0a\x01" + number.to_bytes(2, "big")) for number in range(2_500)),
        frozenset(map(Vni, range(1, 1_500))),
        encrypted=STATE.encrypted,
    )
    one.write(STATE, many)

    assert one.read() == many
    assert place.nft("-a list chain inet overlayd_111111 check") == before
    one.close()


def test_what_leaves_is_checked_only_if_encrypted(place: Place) -> None:
    """Without an encrypted network, no packet of the host's own meets a further hook."""
    one = place.filter()
    clear = replace(STATE, encrypted=frozenset())
    one.write(None, clear)
    assert one.read() == clear
    for before, after in ((clear, STATE), (STATE, clear)):
        one.write(before, after)
        assert one.read() == after
        assert ("chain leaving" in place.nft("list ruleset")) == bool(after.encrypted)
    place.nft("add element inet overlayd_111111 encrypted { 0x000009 }")
    assert one.read() is None, "an encrypted network, and no check"
    one.close()


@pytest.mark.parametrize(
    "damage",
    [
        "delete table inet overlayd_111111",
        "flush ruleset",
        "add rule inet overlayd_111111 check accept",
        "insert rule inet overlayd_111111 arriving accept",
        "flush chain inet overlayd_111111 check",
        "add chain inet overlayd_111111 more",
        "add table inet overlayd_111111 { flags dormant; }",
        "add set inet overlayd_111111 more { type ipv4_addr; }",
        "add chain inet overlayd_111111 arriving { policy drop; }",
    ],
)
def test_a_changed_table_is_detected_and_replaced(place: Place, damage: str) -> None:
    """A change is notified, detected by a read, and repaired by a write."""
    one = place.filter()
    with netns.inside(place.fd):
        monitor = Monitor()
    one.write(None, STATE)
    monitor.touched([one.table.name], [one.port_id])
    quiet = monitor.touched([one.table.name], [one.port_id])
    place.nft(damage)

    assert not quiet
    assert monitor.touched([one.table.name], [one.port_id])
    assert one.read() is None
    one.write(None, STATE)
    assert one.read() == STATE
    monitor.close()
    one.close()


def test_tables_of_others_are_left_alone(place: Place) -> None:
    """Other tables are neither read, nor reported, nor changed."""
    one, other = place.filter(), place.filter(OTHER)
    place.nft("add table inet filter")
    one.write(None, STATE)
    with netns.inside(place.fd):
        monitor = Monitor()
    other.write(None, FilterState())
    told = monitor.touched([one.table.name], [one.port_id])
    one.remove()

    assert not told
    assert other.read() == FilterState()
    assert "table inet filter" in place.nft("list tables")
    for each in (one, other, monitor):
        each.close()


def test_a_table_is_created_once(place: Place) -> None:
    """One that is there stays as it is."""
    table = Table(FAMILY_INET, "once", (Set("held", 7, 4),), ())
    one, other = ({"held": frozenset([bytes(parse_ip(ip))])} for ip in ("10.0.0.1", "10.0.0.2"))
    with closing(NftTables(place.fd)) as tables:
        assert tables.create(table, one)
        assert not tables.create(table, other)
        assert tables.elements(table) == one


def test_a_refused_batch_changes_nothing(place: Place) -> None:
    """A transaction is applied completely or not at all.

    A duplicate member makes it fail.
    """
    one = place.filter()
    one.write(None, STATE)
    wrong = FilterState(frozenset({parse_ip("192.168.56.99")}), frozenset())
    with pytest.raises(FileNotFoundError):
        one.write(wrong, FilterState(STATE.members, frozenset({Vni(7)})))

    assert one.read() == STATE
    one.close()


@pytest.mark.parametrize(
    ("own", "member", "stranger", "length"),
    [
        ("192.168.56.11", "192.168.56.12", "192.168.56.99", 24),
        ("fd56::11", "fd56::12", "fd56::99", 64),
    ],
    ids=["IPv4", "IPv6"],
)
def test_packets_of_members_pass_and_others_do_not(
    world: World, own: str, member: str, stranger: str, length: int
) -> None:
    """Packets pass by sender address, VNI and receiving interface."""
    names = [world.namespace(name) for name in ("host", "peer", "side")]
    host, peer, side = names
    for number, other in enumerate((peer, side)):
        pair = ("type", "veth", "peer", "name", "eth0", "netns", other)
        world.run(host, "ip", "link", "add", f"eth{number}", *pair)
        world.run(host, "ip", "link", "set", f"eth{number}", "up")
        world.run(other, "ip", "link", "set", "eth0", "up")
    settings = ("conf/all/rp_filter", "conf/eth1/rp_filter")
    for name in settings:  # so that the kernel's own check does not hide ours
        world.run(host, "sh", "-c", f"echo 0 >/proc/sys/net/ipv4/{name}")
    options = () if length == 24 else ("nodad",)
    for where, link, text in (
        (host, "eth0", own),
        (peer, "eth0", member),
        (peer, "eth0", stranger),
    ):
        world.run(where, "ip", "address", "add", f"{text}/{length}", "dev", link, *options)
    # The side has the member's address too, and knows the host from received frames.
    world.run(side, "ip", "address", "add", f"{member}/{length}", "dev", "eth0", *options)
    mac = world.run(host, "ip", "-br", "link", "show", "eth1").split()[2]
    world.run(side, "ip", "neighbour", "add", own, "lladdr", mac, "dev", "eth0")
    with netns.inside(world.fd(host)):
        guard = UnderlayTable(ONE, 4789, 7948)
        receiver = socket.socket(
            socket.AF_INET6 if ":" in own else socket.AF_INET, socket.SOCK_DGRAM
        )
        receiver.bind((own, 4789))
    receiver.settimeout(10)
    guard.write(None, FilterState(frozenset({parse_ip(member)}), frozenset({Vni(0x800001)})))

    def send(where: str, source: str, vni: int, label: bytes) -> None:
        with (
            netns.inside(world.fd(where)),
            socket.socket(receiver.family, socket.SOCK_DGRAM) as out,
        ):
            out.bind((source, 0))
            out.sendto(vxlan(vni, label), (own, 4789))

    world.wait_until(lambda: world.pings(peer, own) == 1, "the underlay")
    send(peer, stranger, 0x800001, b"a stranger's")
    send(side, member, 0x800001, b"astray")
    send(peer, stranger, 0x000001, b"another network's")
    send(peer, member, 0x800001, b"a member's")
    heard = [receiver.recv(100)[8:] for _ in range(2)]

    assert heard == [b"another network's", b"a member's"]
    assert guard.refused_counts() == (2, 1)
    guard.remove()
    send(peer, stranger, 0x800001, b"a stranger's")
    assert receiver.recv(100)[8:] == b"a stranger's"
    receiver.close()
    guard.close()


@pytest.mark.parametrize(
    ("own", "member", "option", "uid"),
    [
        ("192.168.56.11", "192.168.56.12", (socket.IPPROTO_IP, IP_TRANSPARENT), 0),
        ("fd56::11", "fd56::12", (socket.IPPROTO_IPV6, IPV6_FREEBIND), 65534),
        ("fd56::11", "fd56::11", (socket.IPPROTO_IPV6, IPV6_FREEBIND), 65534),
    ],
    ids=["a container's root", "a user", "a user, from the own address"],
)
def test_nobody_here_passes_for_a_member(
    world: World, own: str, member: str, option: tuple[int, int], uid: int
) -> None:
    """Neither a user nor root of a container with the host's network, by the loopback."""
    host = world.namespace("host")
    world.run(host, "ip", "address", "add", own, "dev", "lo")
    family = socket.AF_INET if "." in own else socket.AF_INET6
    with netns.inside(world.fd(host)):
        guard = UnderlayTable(ONE, 4789, 7948)
        receiver, out = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
    receiver.bind(("", 4789))
    receiver.settimeout(10)
    guard.write(None, FilterState(frozenset({parse_ip(member)}), frozenset({Vni(0x800001)})))
    with as_user(uid):
        out.setsockopt(*option, 1)
        out.bind((member, 0))
        out.sendto(vxlan(0x800001, b"forged"), (own, 4789))
        out.sendto(vxlan(0x000001, b"another network's"), (own, 4789))

    assert receiver.recv(100)[8:] == b"another network's"
    assert guard.refused_counts() == (1, 1)
    for each in (receiver, out, guard):
        each.close()


@contextmanager
def as_user(uid: int) -> Iterator[None]:
    """Have this thread be another user without capabilities, unless it is root, for a block."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


def vxlan(vni: int, frame: bytes) -> bytes:
    """Return a frame in a VXLAN header (RFC 7348)."""
    return b"\x08\0\0\0" + vni.to_bytes(3, "big") + b"\0" + frame


def test_the_tunnels_carry_encrypted_networks_only(world: World) -> None:
    """An encrypted network's frames pass by wg-ovl alone, both ways, and nothing else does.

    Two veth pairs lead from the host to a peer: one called wg-ovl, one for the underlay.
    """
    host, peer = world.namespace("host"), world.namespace("peer")
    ends = {"wg-ovl": ("fd6f:766c::1", "fd6f:766c::2"), "eth1": ("fd09::1", "fd09::2")}
    for link, addresses in ends.items():
        pair = (link, "type", "veth", "peer", link, "netns", peer)
        world.run(host, "ip", "link", "add", *pair)
        for where, text in zip((host, peer), addresses, strict=True):
            world.run(where, "ip", "address", "add", f"{text}/64", "dev", link, "nodad")
            world.run(where, "ip", "link", "set", link, "up")
    for link, (_, there) in ends.items():
        world.wait_until(lambda to=there: world.pings(host, to) == 1, f"{link}")  # type: ignore[misc]
    with netns.inside(world.fd(host)):
        guard = UnderlayTable(ONE, 4789, 7948)
        guard.write(
            None,
            FilterState(
                frozenset({parse_ip(there) for _, there in ends.values()}),
                frozenset({Vni(1), Vni(2)}),
                encrypted=frozenset({Vni(2)}),
            ),
        )

    def passes(sender: str, vni: int, link: str, port: int = 4789, wait_s: float = 0.3) -> bool:
        source, target = ends[link] if sender == host else ends[link][::-1]
        receiver_name = peer if sender == host else host
        with netns.inside(world.fd(receiver_name)):
            receiver = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        with netns.inside(world.fd(sender)):
            out = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        with receiver, out:
            receiver.bind((target, port))
            receiver.settimeout(wait_s)
            out.bind((source, 0))
            try:
                out.sendto(b"\x08\0\0\0" + vni.to_bytes(3, "big") + b"\0", (target, port))
                return len(receiver.recv(100)) == 8
            except (PermissionError, TimeoutError):  # dropped here, or there
                return False

    for sender in (peer, host):
        for vni, link in ((2, "wg-ovl"), (1, "eth1")):
            assert passes(sender, vni, link, wait_s=20)
    assert not passes(peer, 2, "eth1")
    assert not passes(host, 2, "eth1")
    assert guard.clear_counts() == (1, 1)
    assert not passes(peer, 1, "wg-ovl")
    assert not passes(peer, 2, "wg-ovl", port=22)
    assert guard.refused_counts() == (1, 0)
    guard.close()


@pytest.fixture
def gossip_port(world: World) -> Iterator[Callable[[str, str, str], list[bytes]]]:
    """Return a function that sends to the gossip port, and says what arrives.

    The host has a member (`peer`), a container behind a network's host endpoint (`box`) and one
    behind another interface (`rogue`), and forwards. It takes the sender's namespace, the
    sender's address and the receiver's; what arrives is followed by a fence from the peer.
    """
    names = {name: world.namespace(name) for name in ("host", "peer", "box", "rogue")}
    host = names["host"]
    for number, (name, link) in enumerate((("peer", "eth0"), ("box", "ovh0"), ("rogue", "out0"))):
        inside = names[name]
        pair = ("type", "veth", "peer", "name", "eth0", "netns", inside)
        world.run(host, "ip", "link", "add", link, *pair)
        for where, each, last in ((host, link, 1), (inside, "eth0", 2)):
            world.run(where, "ip", "address", "add", f"10.0.{number}.{last}/24", "dev", each)
            world.run(where, "ip", "link", "set", each, "up")
        world.run(inside, "ip", "route", "add", "default", "via", f"10.0.{number}.1")
    world.run(host, "sh", "-c", "cd /proc/sys/net/ipv4; echo 1 >ip_forward; "
              "for each in all out0 ovh0; do echo 0 >conf/$each/rp_filter; done")  # fmt: skip
    world.run(host, "nft", "table ip seen { chain c { type filter hook input priority 0; "
              "ct state untracked counter; }; }")  # fmt: skip
    receivers = {}
    for name, address in (("host", "10.0.0.1"), ("peer", "10.0.0.2")):
        with netns.inside(world.fd(names[name])):
            receivers[address] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receivers[address].bind((address, 7948))
        receivers[address].settimeout(10)
    with netns.inside(world.fd(host)):
        guard = UnderlayTable(ONE, 4789, 7948)
    members = frozenset({parse_ip("10.0.0.2"), parse_ip("10.0.0.4")})
    guard.write(None, FilterState(members, frozenset()))

    def send(sender: str, source: str, to: str) -> list[bytes]:
        for where, address, label in (
            (sender, source, b"datagram"),
            ("peer", "10.0.0.2", b"fence"),
        ):
            with (
                netns.inside(world.fd(names[where])),
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out,
            ):
                out.bind((address, 0))
                out.sendto(label, (to, 7948))
        heard = [receivers[to].recv(100)]
        while heard[-1] != b"fence":
            heard.append(receivers[to].recv(100))
        if to == "10.0.0.1":  # at least the fence has come, and untracked
            shown = world.run(host, "nft", "list", "table", "ip", "seen")
            assert "packets 0 " not in shown
        return heard[:-1]

    yield send
    assert guard.refused_counts() == (0, 0)  # those of VXLAN
    guard.close()
    for receiver in receivers.values():
        receiver.close()


@pytest.mark.parametrize(
    ("sender", "source", "to", "arrives"),
    [
        ("peer", "10.0.0.2", "10.0.0.1", True),
        ("peer", "10.0.0.3", "10.0.0.1", True),  # a host that joins
        ("box", "10.0.1.2", "10.0.0.1", False),
        ("box", "10.0.1.2", "10.0.0.2", False),
        ("rogue", "10.0.2.2", "10.0.0.2", False),
        ("rogue", "10.0.0.4", "10.0.0.2", False),  # with another member's address
    ],
)
def test_no_container_reaches_the_gossip_port(
    world: World,
    gossip_port: Callable[[str, str, str], list[bytes]],
    sender: str,
    source: str,
    to: str,
    *,
    arrives: bool,
) -> None:
    """Members and strangers reach this host; what is forwarded must be a member's."""
    name = next(each for each in netns.names() if each.endswith(sender))
    if source not in world.run(name, "ip", "address"):
        world.run(name, "ip", "address", "add", f"{source}/32", "dev", "eth0")

    assert gossip_port(sender, source, to) == [b"datagram"] * arrives


def test_a_missing_expression_is_reported(world: World) -> None:
    """The error names the missing part, and nothing is left behind."""
    name = world.namespace("host")
    tables = NftTables(world.fd(name))
    table = Table(1, "overlayd_slim", (), (Chain("c", ((Expression("nosuch"),),), (1, 0)),))
    with pytest.raises(NftMissingError, match="lacks a part"):
        tables.probe(table)
    with pytest.raises(NftMissingError):
        tables.replace(table, {})

    assert tables.names() == []
    tables.close()
