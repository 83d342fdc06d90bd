"""The host's own traffic is not tracked, and what the host translates is: with real packets."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.host_rules import ExposedLink, HostState, PortForward
from overlay.core.tracking.tracked_traffic import (
    MASQUERADE_PORTS,
    PRIVILEGED,
    TrackedPort,
    traffic_of,
)
from overlay.kernel import netns
from overlay.kernel.nft.host_table import HostTable
from overlay.kernel.tracking.translated_ports import translated_ports
from overlay.kernel.tracking.untracked_traffic import UntrackedTraffic
from overlay.model import Ip, NodeId, parse_ip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns
NODE = NodeId(b"\x11" * 16)
LINK = "ovh000001aabbcc"
FAMILIES = (4, 6)
BOX = {4: "10.32.0.2", 6: "fd32::2"}
UPLINK = {4: "10.32.0.1", 6: "fd32::1"}
HOST = {4: "203.0.113.1", 6: "fd13::1"}
PEER = {4: "203.0.113.9", 6: "fd13::9"}
PREFIX = {4: 24, 6: 64}
STATE = HostState(
    links=frozenset({ExposedLink(LINK, ((parse_ip("10.32.0.0"), 24), (parse_ip("fd32::"), 64)))}),
    ports=frozenset(
        PortForward(protocol, Ip(b""), 8080, parse_ip(ip), 80, borrowed=False)
        for ip in BOX.values()
        for protocol in ("tcp", "udp")
    ),
)


class Place:
    """A host between a container, `box`, and another host, `peer`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.host, self.box, self.peer = map(world.namespace, ("host", "box", "peer"))
        far = {
            LINK: (self.box, BOX, {4: "10.32.0.1", 6: "fd32::1"}),
            "wan": (self.peer, PEER, HOST),
        }
        for link, (there, theirs, ours) in far.items():
            end = ("type", "veth", "peer", "name", "eth0", "netns", there)
            self.run(self.host, "ip", "link", "add", link, *end)
            for where, name, addresses in ((self.host, link, ours), (there, "eth0", theirs)):
                for family in FAMILIES:
                    address = f"{addresses[family]}/{PREFIX[family]}"
                    nodad = ("nodad",) if family == 6 else ()
                    self.run(where, "ip", "address", "add", address, "dev", name, *nodad)
                self.run(where, "ip", "link", "set", name, "up")
        for family, via in UPLINK.items():
            self.run(self.box, "ip", f"-{family}", "route", "add", "default", "via", via)
        self.run(self.host, "sysctl", "-qw", "net.ipv4.ip_forward=1",
                 "net.ipv6.conf.all.forwarding=1")  # fmt: skip
        with netns.inside(world.fd(self.host)):
            self.rules, self.untracked = HostTable(NODE), UntrackedTraffic(NODE)
        self.rules.write(STATE)

    def run(self, where: str, *command: str) -> str:
        """Run a program in a namespace."""
        return self._world.run(where, *command)

    def pings(self, where: str, address: str) -> bool:
        """Return whether an address answers."""
        return self._world.pings(where, address) == 1

    def socket(self, where: str, family: int, protocol: str) -> socket.socket:
        """Open a socket in a namespace."""
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        with netns.inside(self._world.fd(where)):
            made = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.settimeout(10)
        return made

    def client_seen(
        self,
        ends: tuple[str, str],
        addresses: tuple[str, str],
        protocol: str,
        ports: tuple[int, int],
        source_port: int = 0,
    ) -> tuple[str, int]:
        """Send and answer; return the client's address and port as the server sees it.

        Of `addresses` and `ports`, the server's is the second one.
        """  # fmt: skip
        family = 6 if ":" in addresses[0] else 4
        client, server = (self.socket(end, family, protocol) for end in ends)
        with client, server:
            server.bind((addresses[1], ports[1]))
            client.bind(("", source_port))
            if protocol == "tcp":
                server.listen(1)
            client.connect((addresses[0], ports[0]))
            client.send(b"?")
            if protocol == "tcp":
                peer, seen = server.accept()
                with peer:
                    peer.send(b"!")
            else:
                _, seen = server.recvfrom(9)
                server.sendto(b"!", seen)
            assert client.recv(9) == b"!"
        return str(seen[0]), int(seen[1])

    def tracked(self) -> str:
        """Return the connections that the host tracks."""
        return self.run(self.host, "cat", "/proc/net/nf_conntrack")


@pytest.fixture
def place(world: World) -> Iterator[Place]:
    """Return the host, with the exemption in force."""
    made = Place(world)
    made.untracked.write(traffic_of(STATE))
    yield made
    made.untracked.close()
    made.rules.close()


def test_the_hosts_own_traffic_is_not_tracked(place: Place) -> None:
    """In both directions, to itself, and pings: no connection is in the kernel's table."""
    for family in FAMILIES:
        for protocol in ("tcp", "udp"):
            for ends in ((place.host, place.peer), (place.peer, place.host)):
                to = PEER[family] if ends[1] == place.peer else HOST[family]
                place.client_seen(ends, (to, to), protocol, (5201, 5201))
            own = HOST[family]
            place.client_seen((place.host, place.host), (own, own), protocol, (8081, 8081))
        assert place.pings(place.host, PEER[family])
        assert place.pings(place.peer, HOST[family])

    assert place.tracked() == ""


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_networks_are_translated_as_before(place: Place, family: int, protocol: str) -> None:
    """The way out, published ports, and the host's own clients of these."""
    out = (PEER[family], PEER[family])
    seen = place.client_seen((place.box, place.peer), out, protocol, (7, 7))
    assert seen[0] == HOST[family]
    assert seen[1] in MASQUERADE_PORTS[1]
    assert place.pings(place.box, PEER[family])
    seen = place.client_seen((place.box, place.peer), out, protocol, (7, 7), source_port=700)
    assert seen[1] in PRIVILEGED

    into = (HOST[family], BOX[family])
    seen = place.client_seen((place.peer, place.box), into, protocol, (8080, 80))
    assert seen[0] == PEER[family]
    place.client_seen((place.host, place.box), into, protocol, (8080, 80))
    place.client_seen((place.host, place.box), (BOX[family],) * 2, protocol, (81, 81))
    assert place.tracked() != ""


def test_the_table_ends_with_its_socket(place: Place) -> None:
    """Then everything is tracked."""
    assert "overlayd_untracked" in place.run(place.host, "nft", "list", "tables")
    place.untracked.close()
    assert "overlayd_untracked" not in place.run(place.host, "nft", "list", "tables")
    assert place.pings(place.host, PEER[4])
    assert PEER[4] in place.tracked()


def test_nft_can_load_a_saved_table(place: Place, tmp_path: Path) -> None:
    """Without an agent, a ruleset that contains it is loaded as a whole."""
    place.untracked.write(traffic_of(STATE).with_ports({TrackedPort(1, 7), TrackedPort(58, 8)}))
    saved = tmp_path / "nftables.conf"
    saved.write_text(place.run(place.host, "nft", "list", "ruleset"))
    place.untracked.close()
    place.run(place.host, "nft", "flush", "ruleset")

    place.run(place.host, "nft", "-f", str(saved))
    assert "overlayd_host" in place.run(place.host, "nft", "list", "tables")


def test_older_connections_keep_their_ports(world: World) -> None:
    """Those that began under other rules are found, and answered when the exemption begins."""
    place = Place(world)
    place.rules.remove()
    place.run(place.host, "nft", "table inet before { chain c { type nat hook postrouting "
              "priority 100; oifname wan ip saddr 10.32.0.0/24 masquerade; }; }")  # fmt: skip
    client, server = (place.socket(end, 4, "udp") for end in (place.box, place.peer))
    with client, server:
        server.bind((PEER[4], 7))
        client.bind(("", 45_000))
        client.connect((PEER[4], 7))
        client.send(b"?")
        assert server.recvfrom(9) == (b"?", (HOST[4], 45_000))
        place.run(place.host, "nft", "delete", "table", "inet", "before")
        place.rules.write(STATE)
        with netns.inside(world.fd(place.host)):
            kept = translated_ports()
        assert kept == {TrackedPort(17, 45_000)}
        place.untracked.write(traffic_of(STATE).with_ports(kept))
        server.sendto(b"!", (HOST[4], 45_000))
        assert client.recv(9) == b"!"
    place.untracked.close()
    place.rules.close()
