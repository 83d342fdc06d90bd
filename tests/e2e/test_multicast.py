"""Multicast goes to the hosts that have receivers; what nobody has named goes to all."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.e2e.conftest import wait_until

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e
KILL = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"
GROUPS = ("239.1.2.3", "ff15::a:b:c")
OTHERS = ("239.1.2.4", "ff15::a:b:d")
RECEIVE = """\
import socket, sys, time
opened = []
for group in sys.argv[1:]:
    family = socket.AF_INET6 if ":" in group else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.bind((group, 5000))
    opened.append((made, family, socket.inet_pton(family, group)))
index = socket.if_nametoindex("eth0")
print("joins", time.time(), flush=True)
for made, family, group in opened:
    if family == socket.AF_INET:
        request = group + bytes(4) + index.to_bytes(4, sys.byteorder)
        made.setsockopt(0, socket.IP_ADD_MEMBERSHIP, request)
    else:
        made.setsockopt(41, socket.IPV6_JOIN_GROUP, group + index.to_bytes(4, sys.byteorder))
    made.setblocking(False)
import select
while True:
    for made in select.select([made for made, _, _ in opened], [], [])[0]:
        print(made.recv(2000).decode(), time.time(), flush=True)
"""
# Joins as many groups of each family as a host may not name; 20 a socket (igmp_max_memberships).
JOIN_MANY = """\
import socket, sys, time
index, opened = socket.if_nametoindex("eth0"), []
for number in range(200):
    if number % 20 == 0:
        opened += [socket.socket(each, socket.SOCK_DGRAM)
                   for each in (socket.AF_INET, socket.AF_INET6)]
    raw = index.to_bytes(4, sys.byteorder)
    group = socket.inet_pton(socket.AF_INET, f"239.3.0.{number}")
    opened[-2].setsockopt(0, socket.IP_ADD_MEMBERSHIP, group + bytes(4) + raw)
    group = socket.inet_pton(socket.AF_INET6, f"ff15::3:{number:x}")
    opened[-1].setsockopt(41, socket.IPV6_JOIN_GROUP, group + raw)
time.sleep(600)
"""
SEND = """\
import socket, sys, time
text, count, *groups = sys.argv[1:]
index = socket.if_nametoindex("eth0")
senders = {}
for family, level, option in ((socket.AF_INET, 0, socket.IP_MULTICAST_IF),
                              (socket.AF_INET6, 41, socket.IPV6_MULTICAST_IF)):
    senders[family] = socket.socket(family, socket.SOCK_DGRAM)
    raw = index.to_bytes(4, sys.byteorder)
    senders[family].setsockopt(level, option, bytes(8) + raw if level == 0 else raw)
for number in range(int(count)):
    for group in groups:
        family = socket.AF_INET6 if ":" in group else socket.AF_INET
        senders[family].sendto(f"<{text} {number} {group}>".encode(), (group, 5000))
    time.sleep(0.02 if int(count) > 1 else 0)
"""


class Receiver:
    """A program in a container that is member of groups."""

    def __init__(self, cluster: Cluster, number: int, name: str, log: Path, *groups: str) -> None:
        self._cluster, self._number, self._log = cluster, number, log
        command = f"ip netns exec {name} {sys.executable} -c '{RECEIVE}' {' '.join(groups)}"
        self._pid = cluster.ok(number, "sh", "-c", f"{command} >{log} 2>&1 & echo $!").strip()

    def has(self, *texts: str) -> bool:
        """Return whether it has received all of the texts."""
        return all(f"<{text}" in self._log.read_text() for text in texts)

    def first_after_join_s(self, group: str) -> float:
        """Return the time from its joins to the first datagram of a group."""
        lines = [line.split() for line in self._log.read_text().splitlines()]
        first = next(words for words in lines if words[-2] == f"{group}>")
        return float(first[-1]) - float(lines[0][1])

    def end(self) -> None:
        """Have it leave its groups."""
        self._cluster.ok(self._number, "kill", self._pid)


class UnderlayFrames:
    """The packets that a host receives by VXLAN, as bytes."""

    def __init__(self, cluster: Cluster, number: int, file: Path) -> None:
        self._cluster, self._number, self._file = cluster, number, file
        command = f"tcpdump -i eth1 -U -s 0 -w {file} udp port 4789"
        shown = file.with_suffix(".log")
        self._pid = cluster.ok(number, "sh", "-c", f"{command} >{shown} 2>&1 & echo $!").strip()
        wait_until(lambda: "listening on" in shown.read_text(), "tcpdump listens")

    def has(self, text: str) -> bool:
        """Return whether a text has come."""
        return f"<{text}".encode() in self._file.read_bytes()

    def end(self) -> None:
        """Stop."""
        self._cluster.ok(self._number, "kill", self._pid)


class Stage:
    """A network with a container on each host; that of vm1 sends."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self._folder = cluster, folder
        subnets = ("--subnet", "10.65.0.0/24", "--subnet", "fd65::/64")
        cluster.ok(1, "overlayd", "network", "create", "cast", *subnets)
        for number in (1, 2, 3):
            cluster.attach(number, f"cast{number}", network="cast")
        self.seen = [UnderlayFrames(cluster, number, folder / f"vm{number}") for number in (2, 3)]
        self._fences = 0

    def receiver(self, number: int, *groups: str) -> Receiver:
        """Start a receiver on a host."""
        log = self._folder / f"receiver{number}{len(groups)}{self._fences}"
        return Receiver(self.cluster, number, f"cast{number}", log, *groups)

    def send(self, text: str, *groups: str, count: int = 1) -> None:
        """Send a text to groups from vm1."""
        command = (sys.executable, "-c", SEND, text, str(count), *groups)
        code, out, err = self.cluster.inside(1, "cast1", *command)
        assert code == 0, out + err

    def arrived(self, text: str, *groups: str) -> list[int]:
        """Send a text to groups; return the hosts that it comes to, for all of the groups.

        Nothing, which no test expects, if it comes to one for some of the groups alone.

        A group that nobody has named is flooded, and tells that what was sent before has come.
        """
        self._fences += 1
        fence = f"fence{self._fences}"
        self.send(text, *groups)
        self.send(fence, "239.77.77.77")
        wait_until(lambda: all(each.has(fence) for each in self.seen), "an unknown group's frame")
        found = []
        for number, seen in enumerate(self.seen, 2):
            came = {seen.has(f"{text} 0 {group}") for group in groups}
            if len(came) > 1:  # one family alone: rows are changing, or this is a fault
                return []
            found += [number] if came == {True} else []
        return found

    def settle(self, hosts: list[int]) -> None:
        """Wait until the groups come to these hosts alone: their rows follow the records."""

        def is_so() -> bool:
            return self.arrived(f"settle{self._fences + 1}", *GROUPS) == hosts

        wait_until(is_so, f"{GROUPS} come to {hosts}")

    def wants(self) -> dict[str, tuple[bool, list[str]]]:
        """Return what vm1 knows of the hosts' groups."""
        shown = self.cluster.json(1, "network", "inspect", "cast")["multicast"]
        return {each["node"]: (each["all"], each["groups"]) for each in shown}

    def close(self) -> None:
        """End the captures."""
        for each in self.seen:
            each.end()


@pytest.fixture
def stage(cluster: Cluster, tmp_path: Path) -> Iterator[Stage]:
    """Return the network and its containers."""
    made = Stage(cluster, tmp_path)
    yield made
    made.close()


def test_only_hosts_with_receivers_get_a_group(stage: Stage) -> None:
    """On the underlay, for IPv4 and IPv6; a host that joins, leaves or dies is followed.

    A container that joins more groups than a host may name has its own host want all.
    """
    cluster = stage.cluster
    nothing: tuple[bool, list[str]] = (False, [])
    first = stage.receiver(2, *GROUPS)
    wait_until(
        lambda: stage.wants() == {"vm1": nothing, "vm2": (False, list(GROUPS)), "vm3": nothing},
        "vm1 knows who wants what",
    )
    stage.settle([2])
    wait_until(lambda: first.has("settle"), "the receiver has it")
    assert stage.arrived("unknown", *OTHERS) == [2, 3]
    text = cluster.ok(1, "overlayd", "network", "inspect", "cast")
    assert "vm3: no groups" in text

    with ThreadPoolExecutor() as pool:
        sending = pool.submit(stage.send, "late", *GROUPS, count=300)
        wait_until(lambda: first.has("late"), "the stream has begun")
        second = stage.receiver(3, *GROUPS, *OTHERS)
        wait_until(lambda: second.has("late"), "the second receiver")
        sending.result()
    for group in GROUPS:
        took_s = second.first_after_join_s(group)
        print(f"{group}: first datagram {took_s:.3f} s after the join")  # noqa: T201 - asked for
    assert stage.arrived("two", *OTHERS) == [3]
    second.end()
    wait_until(lambda: stage.wants()["vm3"] == nothing, "the second receiver's groups are gone")
    stage.settle([2])
    assert [cluster.differences(number) for number in (1, 2, 3)] == [[], [], []]

    cluster.ok(3, "sh", "-c", KILL)
    wait_until(lambda: stage.wants()["vm3"] == (True, []), "vm3 is dead, and wants all")
    stage.settle([2, 3])

    command = f"ip netns exec cast1 {sys.executable} -c '{JOIN_MANY}'"
    greedy = cluster.ok(1, "sh", "-c", f"{command} >/dev/null 2>&1 & echo $!").strip()
    wait_until(lambda: stage.wants()["vm1"] == (True, []), "vm1 has more groups than it may name")
    assert stage.wants()["vm2"] == (False, list(GROUPS))
    assert stage.arrived("beside", *GROUPS) == [2, 3]
    assert cluster.differences(1) == []
    cluster.ok(1, "kill", greedy)
    first.end()
