"""Backends of services that tell their name, and clients that count who answered."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from tests.e2e.world import netns

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

KILL = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"
SERVER = """
import socket, sys, threading
name, ip = sys.argv[1:]
def talk(made, client):
    with made:
        made.sendall(f"{name} {client}\\n".encode())
        while data := made.recv(64):
            made.sendall(data)
def datagrams():
    while True:
        data, client = udp.recvfrom(64)
        udp.sendto(name.encode(), client)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind((ip, 8080))
threading.Thread(target=datagrams, daemon=True).start()
with socket.create_server((ip, 8080), backlog=4096) as listening:
    while True:
        made, client = listening.accept()
        threading.Thread(target=talk, args=(made, client[0]), daemon=True).start()
"""
CLIENT = """
import collections, json, socket, sys
ip, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
found = collections.Counter()
for at in range(count):
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.settimeout(20)
        client.bind(("0.0.0.0", 20000 + at if count > 1 else 0))
        client.connect((ip, port))
        found[client.makefile().readline().strip()] += 1
print(json.dumps(found))
"""


def ask(
    cluster: Cluster, number: int, container: str | None, ip: str, port: int = 80, count: int = 1
) -> Counter[str]:
    """Open connections; return how often which backend answered, and whom it saw."""
    where = netns(container) if container is not None else []
    program = ("python3", "-c", CLIENT, ip, str(port), str(count))
    return Counter(json.loads(cluster.ok(number, *where, *program)))


def names(found: Counter[str]) -> Counter[str]:
    """Return how often which backend answered."""
    by_name: Counter[str] = Counter()
    for answer, count in found.items():
        by_name[answer.split()[0]] += count
    return by_name


def start_server(cluster: Cluster, number: int, name: str, ip: str) -> None:
    """Start the server of a backend."""
    command = f"ip netns exec {name} python3 - {name} {ip} >/run/{name}.log 2>&1 <<'E' &\n{SERVER}E"
    cluster.ok(number, "sh", "-c", command)
