"""The host's table in a real kernel, beside other programs' rules."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.host_rules import (
    ExposedLink,
    ForwardingInterface,
    HostState,
    IngressForward,
    PortForward,
)
from overlay.core.services.values import Backend
from overlay.kernel import netns
from overlay.kernel.nft.foreign_rules import ForeignRules
from overlay.kernel.nft.host.host_table import OPERATOR_MARK, Gated, HostTable
from overlay.kernel.nft.host.opened_interfaces import read_opened
from overlay.model import Ip, NodeId, parse_ip
from tests.kernel.nft.test_tables import IP_TRANSPARENT, IPV6_FREEBIND, as_user

if TYPE_CHECKING:
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns
LINK = "ovh000001aabbcc"
STATE = HostState(
    links=frozenset({
        ExposedLink(LINK, ((parse_ip("10.32.0.0"), 16), (parse_ip("fd32::"), 64))),
    }),
    ports=frozenset({
        PortForward("tcp", Ip(b""), 8080, parse_ip("10.32.0.2"), 80, borrowed=False),
        PortForward("udp", parse_ip("fd00::1"), 53, parse_ip("fd32::2"), 53, borrowed=True),
    }),
    opened=frozenset({ForwardingInterface(7, 4), ForwardingInterface(7, 6)}),
)  # fmt: skip
NODE = NodeId(b"\x11" * 16)
NAME = "overlayd_host_111111"


class Place:
    """A host with a table of its own."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.name = world.namespace("host")
        with netns.inside(world.fd(self.name)):
            self.table = HostTable(NODE)
            self.foreign = ForeignRules()

    def run(self, words: str) -> str:
        """Run a program."""
        return self._world.run(self.name, *words.split())


@pytest.fixture
def place(world: World) -> Iterator[Place]:
    """Return a host."""
    made = Place(world)
    yield made
    made.table.close()
    made.foreign.close()


def test_a_table_matches_only_the_state_it_was_written_for(place: Place) -> None:
    """Each part of the state matters, and the old table is replaced."""
    place.table.write(STATE)
    others = [replace(STATE, **{part: frozenset()}) for part in ("links", "ports", "opened")]

    assert place.table.holds(STATE)
    assert not any(map(place.table.holds, others))
    for other in others:
        place.table.write(other)
        assert place.table.holds(other)
        assert not place.table.holds(STATE)


@pytest.mark.parametrize("host_ip", ["127.0.0.1", "127.8.0.1", "::1"])
def test_a_loopback_port_is_for_local_packets_only(place: Place, host_ip: str) -> None:
    """Only what this host sends is translated, not what arrives from a link."""
    target = parse_ip("fd32::2" if ":" in host_ip else "10.32.0.2")
    port = PortForward("tcp", parse_ip(host_ip), 8080, target, 80, borrowed=False)
    place.table.write(replace(STATE, ports=frozenset({port})))

    assert "dnat" in place.run(f"nft list chain inet {NAME} sent")
    assert "dnat" not in place.run(f"nft list chain inet {NAME} arriving")


@pytest.fixture
def receiver(place: Place, world: World) -> Iterator[socket.socket]:
    """Return what a container of both families listens with on port 5000."""
    peer = world.namespace("peer")
    place.run(f"ip link add {LINK} type veth peer name eth0 netns {peer}")
    for where, name, addresses in (
        (place.name, LINK, ("10.32.0.1/16", "fd32::ff/64", "fe80::ff/64")),
        (peer, "eth0", ("10.32.0.2/16", "fd32::2/64", "fe80::2/64")),
    ):
        for address in addresses:
            nodad = ("nodad",) if ":" in address else ()
            world.run(where, "ip", "address", "add", address, "dev", name, *nodad)
        world.run(where, "ip", "link", "set", name, "up")
    ends = ("10.32.0.2", "fd32::2")
    world.wait_until(lambda: all(world.pings(place.name, ip) == 1 for ip in ends), "the link")
    with netns.inside(world.fd(peer)):
        made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    made.bind(("::", 5000))
    made.settimeout(10)
    yield made
    made.close()


def test_a_user_cannot_pose_as_a_container(
    place: Place, world: World, receiver: socket.socket
) -> None:
    """Nor from any other address than this host's, which IPv6 lets anybody have."""
    place.table.write(STATE)
    with netns.inside(world.fd(place.name)):
        index = socket.if_nametoindex(LINK)
        senders = {
            source: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            for source in ("fd32::5", "fe80::5", "fd32::6", "fe80::ff", "fd32::ff")
        }
    senders["fd32::6"].setsockopt(socket.SOL_SOCKET, socket.SO_MARK, OPERATOR_MARK)
    for source, sender in senders.items():
        scope = index if source.startswith("fe80") else 0
        with as_user(65534):
            sender.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
            sender.bind((source, 0, 0, scope))
            with contextlib.suppress(PermissionError):  # the kernel tells the sender
                sender.sendto(source.encode(), (f"{source[:4]}::2", 5000, 0, scope))

    heard = [receiver.recv(100) for _ in range(3)]
    assert heard == [b"fd32::6", b"fe80::ff", b"fd32::ff"]
    for each in senders.values():
        each.close()


@pytest.mark.parametrize("kind", ["ports", "ingress"])
@pytest.mark.parametrize(
    ("option", "uid", "own", "forged", "marked"),
    [
        ((socket.IPPROTO_IPV6, IPV6_FREEBIND), 65534, ("fd32::ff", "::1", "fe80::ff"),
         ("fd32::5", "2001:db8::5", "fe80::5"), "2001:db8::6"),
        ((socket.IPPROTO_IP, IP_TRANSPARENT), 0, ("10.32.0.1", "127.0.0.1"),
         ("10.32.0.5", "192.0.2.5"), "192.0.2.6"),
    ],
    ids=["a user", "a container's root"],
)  # fmt: skip
def test_nobody_here_poses_as_another_by_a_published_port(
    place: Place,
    world: World,
    receiver: socket.socket,
    kind: str,
    option: tuple[int, int],
    uid: int,
    own: tuple[str, ...],
    forged: tuple[str, ...],
    marked: str,
) -> None:
    """Packets to an address of the host's own are bound for the loopback, not for the network.

    From its own addresses it arrives with the first of them, from others only with the mark.
    """
    ip = parse_ip("fd32::2" if ":" in marked else "10.32.0.2")
    port = PortForward("udp", Ip(b""), 8080, ip, 5000, borrowed=False)
    ingress = IngressForward("udp", 8080, (Backend(ip, 5000, NODE),))
    states = {
        "ports": HostState(STATE.links, frozenset({port})),
        "ingress": HostState(STATE.links, ingress=frozenset({ingress})),
    }
    place.run(f"sysctl -qw net.ipv4.conf.{LINK}.route_localnet=1")
    place.table.write(states[kind])
    with netns.inside(world.fd(place.name)):
        scope = (0, socket.if_nametoindex(LINK))
    for source in (*forged, marked, *own):
        with netns.inside(world.fd(place.name)):
            family = socket.AF_INET6 if ":" in source else socket.AF_INET
            sender = socket.socket(family, socket.SOCK_DGRAM)
        if source == marked:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, OPERATOR_MARK)
        target = source if source in own else own[0]
        with sender, as_user(uid):
            sender.setsockopt(*option, 1)
            sender.bind((source, 0, *(scope if source.startswith("fe80") else ())))
            sender.sendto(
                source.encode(), (target, 8080, *(scope if target.startswith("fe80") else ()))
            )

    heard = [receiver.recvfrom(100) for _ in (marked, *own)]
    seen = {text.decode(): peer[0].removeprefix("::ffff:") for text, peer in heard}
    assert seen == {marked: marked, **dict.fromkeys(own, own[0])}


@pytest.mark.parametrize(
    "damage",
    [
        f"delete table inet {NAME}",
        f"flush chain inet {NAME} leaving",
        f"add rule inet {NAME} passing accept",
        f"insert rule inet {NAME} passing tcp dport 22 drop",
        f"delete element inet {NAME} links {{ ovh000001aabbcc }}",
        f"add element inet {NAME} links {{ eth0 }}",
        f"add chain inet {NAME} passing {{ policy drop; }}",
    ],
)
def test_every_change_by_others_is_detected(place: Place, damage: str) -> None:
    """Any change is a difference, and writing the table undoes it."""
    place.table.write(STATE)
    place.run(f"nft {damage}")

    assert not place.table.holds(STATE)
    place.table.write(STATE)
    assert place.table.holds(STATE)


def test_the_operators_table_is_deleted_only_if_empty(place: Place) -> None:
    """It is created once, and rules in it survive every write and the leave."""
    place.table.write(STATE)
    place.run("nft add rule inet overlayd_user forward tcp dport 25 drop")
    before = place.run("nft list table inet overlayd_user")
    place.table.write(replace(STATE, ports=frozenset()))
    assert place.run("nft list table inet overlayd_user") == before
    place.table.remove()
    assert place.run("nft list tables").split() == ["table", "inet", "overlayd_user"]

    place.run("nft flush chain inet overlayd_user forward")
    place.table.write(STATE)
    place.table.remove()
    assert place.run("nft list tables") == ""


def test_opened_interfaces_are_read_back(place: Place, world: World) -> None:
    """Under the name that each has now; those that are gone, and other rules, are none."""
    for name in ("eth1", "eth\u00fc"):
        place.run(f"ip link add {name} type veth")
    indexes = {each["ifname"]: each["ifindex"] for each in json.loads(place.run("ip -j link"))}
    opened = frozenset({
        ForwardingInterface(indexes["eth1"], 4),
        ForwardingInterface(indexes["eth\u00fc"], 6),
    })  # fmt: skip
    gone = ForwardingInterface(999, 4)
    place.run("ip link set eth1 name up0")
    for gated in (None, Gated(frozenset({1}), is_retiring=True)):
        place.table.write(replace(STATE, opened=opened | {gone}), gated)
        with netns.inside(world.fd(place.name)):
            assert read_opened() == {NAME: opened}


def test_opened_interfaces_of_an_earlier_version(place: Place, world: World) -> None:
    """It wrote their names into its rules."""
    rule = f"nft insert rule inet {NAME} passing meta nfproto"
    place.table.write(replace(STATE, opened=frozenset()))
    for name, family in (("lan0.1", 4), ("eth1", 6), ("gone", 4)):
        place.run(f"ip link add {name} type veth")
        elsewhere = f'oifname != @links oifname != "{name}"'
        place.run(f'{rule} ipv{family} iifname "{name}" {elsewhere} counter drop')
    place.run(f"{rule} ipv4 iifname eth1 counter drop")  # another's
    place.run("ip link del gone")
    indexes = {each["ifname"]: each["ifindex"] for each in json.loads(place.run("ip -j link"))}
    with netns.inside(world.fd(place.name)):
        assert read_opened()[NAME] == {
            ForwardingInterface(indexes["lan0.1"], 4),
            ForwardingInterface(indexes["eth1"], 6),
        }


def test_the_maximum_number_of_ports_fits(place: Place) -> None:
    """512 published ports, dual stack, are written in one transaction."""
    ports = frozenset(
        PortForward("tcp", Ip(b""), 1024 + number, ip, 80, borrowed=bool(number % 2))
        for number in range(512)
        for ip in (parse_ip("10.32.0.2"), parse_ip("fd32::2"))
    )
    place.table.write(replace(STATE, ports=ports))

    assert place.table.holds(replace(STATE, ports=ports))


DOCKERS = """
iptables -P FORWARD DROP
iptables -N DOCKER-USER
iptables -A DOCKER-USER -s 192.0.2.0/24 -j DROP
iptables -I FORWARD -j DOCKER-USER
"""


def test_rules_are_inserted_first_in_docker_user(place: Place) -> None:
    """Once, before the operator's, readable by iptables.

    They are repaired if changed, and removed completely.
    """
    for line in DOCKERS.strip().splitlines():
        place.run(line)
    before = place.run("iptables -S")

    assert place.foreign.insert_accept_rules(ipv6=False) == (True, [])
    assert place.foreign.insert_accept_rules(ipv6=False) == (False, [])
    listed = [line for line in place.run("iptables -S").splitlines() if "-A DOCKER-USER" in line]
    assert listed == [
        "-A DOCKER-USER -i ovh+ -o docker+ -j RETURN",
        "-A DOCKER-USER -i ovh+ -o br-+ -j RETURN",
        "-A DOCKER-USER -i ovh+ -j ACCEPT",
        "-A DOCKER-USER -o ovh+ -j ACCEPT",
        "-A DOCKER-USER -s 192.0.2.0/24 -j DROP",
    ]
    place.run("iptables -D DOCKER-USER -o ovh+ -j ACCEPT")
    assert place.foreign.insert_accept_rules(ipv6=False) == (True, [])
    assert [line for line in place.run("iptables -S").splitlines() if "ovh" in line] == listed[:4]
    assert place.foreign.remove_accept_rules()
    assert place.run("iptables -S") == before
    assert not place.foreign.remove_accept_rules()


@pytest.mark.parametrize(
    "setup",
    [
        "iptables -P FORWARD DROP",
        "ip6tables -P FORWARD DROP",
        "nft 'table inet mine { chain f { type filter hook forward priority 0; policy drop; }; }'",
    ],
)
def test_a_dropping_chain_is_reported_with_a_remedy(place: Place, world: World, setup: str) -> None:
    """No chain is changed, and the reported commands end the report."""
    world.run(place.name, "sh", "-c", setup)
    before = place.run("nft list ruleset")
    changed, (obstacle,) = place.foreign.insert_accept_rules(ipv6=True)

    assert (changed, place.run("nft list ruleset")) == (False, before)
    world.run(place.name, "sh", "-c", obstacle.remedy)
    assert place.foreign.insert_accept_rules(ipv6=True) == (False, [])


def test_irrelevant_dropping_chains_are_not_reported(place: Place) -> None:
    """Policies of input, and of IPv6 without an IPv6 network, do not count."""
    place.run("iptables -P INPUT DROP")
    place.run("ip6tables -P FORWARD DROP")

    assert place.foreign.insert_accept_rules(ipv6=False) == (False, [])
