"""A namespace that acts as the internet, and servers that return the client's address."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

WORLD, WORLD6 = "203.0.113.254", "2001:db8:113::254"
# Stands for the internet: behind an interface of the host's own, with no route back to us. Without
# duplicate address detection, until whose end the host asks for no neighbor that it forwards to.
MAKE_WORLD = f"""
set -e
ip netns add world
ip link add wan0 type veth peer name eth0 netns world
sysctl -qw net.ipv6.conf.wan0.accept_dad=0
ip netns exec world sysctl -qw net.ipv6.conf.eth0.accept_dad=0
ip address add 203.0.113.1/24 dev wan0
ip -6 address add 2001:db8:113::1/64 dev wan0 nodad
ip link set wan0 up
ip -n world link set lo up
ip -n world address add {WORLD}/24 dev eth0
ip -n world -6 address add {WORLD6}/64 dev eth0 nodad
ip -n world link set eth0 up
ip route add default via {WORLD}
ip -6 route add default via {WORLD6}
"""
SERVE = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
udp = sys.argv[3] == "udp"
server = socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind((sys.argv[1], int(sys.argv[2])))
if not udp:
    server.listen(8)
while True:
    if udp:
        _, address = server.recvfrom(100)
        server.sendto(address[0].encode(), address)
    else:
        peer, address = server.accept()
        peer.sendall(address[0].encode())
        peer.close()
"""
ASK = """
import socket, sys
if sys.argv[3] == "udp":
    family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
    peer = socket.socket(family, socket.SOCK_DGRAM)
    peer.settimeout(5)
    peer.connect((sys.argv[1], int(sys.argv[2])))
    peer.send(b"who am I?")
else:
    peer = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
print(peer.recv(100).decode())
"""


def serve(
    cluster: Cluster, number: int, where: list[str], ip: str, port: int, protocol: str = "tcp"
) -> None:
    """Start a server that tells each caller the address it sees."""
    command = shlex.join([*where, "python3", "-c", SERVE, ip, str(port), protocol])
    cluster.ok(number, "sh", "-c", f"{command} >/run/served.{port} 2>&1 &")


def seen_as(
    cluster: Cluster, number: int, where: list[str], ip: str, port: int, protocol: str = "tcp"
) -> str:
    """Return the client address that a server sees; empty without an answer."""
    code, out, _ = cluster.run(number, *where, "python3", "-c", ASK, ip, str(port), protocol)
    return out.strip() if code == 0 else ""


def netns(name: str) -> list[str]:
    """Return the command line prefix for a namespace."""
    return ["ip", "netns", "exec", name]


def ips_of(cluster: Cluster, number: int, name: str) -> list[str]:
    """Return a container's addresses, as a host knows them."""
    shown = cluster.json(number, "endpoint", "ls")["endpoints"]
    (found,) = [each["ips"] for each in shown if each["name"] == name]
    return list(found)


def make_dual(cluster: Cluster) -> None:
    """Put the first two hosts on the internet, and a container of each on a dual-stack network."""
    for number in (1, 2):
        cluster.ok(number, "sh", "-c", MAKE_WORLD)
    cluster.ok(1, "overlayd", "network", "create", "dual", "--subnet", "10.60.0.0/24",
               "--subnet", "fd60::/64")  # fmt: skip
    for number in (1, 2, 3):
        cluster.attach(number, f"d{number}", network="dual")
