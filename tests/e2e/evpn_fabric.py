"""A fabric of plain FRR around two overlayd hosts, on the hosts of a lab.

They are those of examples/evpn: vm1 and vm2 run overlayd. vm3 is a leaf: FRR with a kernel bridge.
vm4 and vm5 are route reflectors. vm6 and vm7 run overlayd as well, in a cluster of their own.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable
from typing import Any, Self

from overlay.lab import host_process, lab, underlay
from overlay.lab.host_process import HostProcess
from tests.e2e.conftest import Cluster, wait_until
from tests.e2e.typed import blocks, type_block

AS = 65000
VNI = 4100
LEAF, REFLECTORS = 3, (4, 5)
ISLAND, ISLAND_2 = 6, 7
SPEAKERS = (1, 2, ISLAND, ISLAND_2)
PASSWORD = "of-the-fabric"
_BGPD = "/usr/lib/frr/bgpd"
EXAMPLE = "examples/evpn/README.md"


def address(number: int) -> str:
    """Return the underlay address of a host."""
    return underlay.address_of(number)


class Fabric(Cluster):
    """The seven hosts."""

    def start_bgpd(self, number: int) -> None:
        """Start the bgpd of a reflector or of the leaf."""
        words = f"{_BGPD} -d -f /run/frr/bgpd.conf -A 127.0.0.1 -P 0"
        self.ok(number, "sh", "-c", f"{words} >/run/frr/bgpd.out 2>&1")  # FRR 10 keeps it open

    def plug(self, name: str, ip: str, mac: str = "") -> None:
        """Make a container on the leaf, and let it be heard; its address does not age there."""
        words = f"address {mac}" if mac else ""
        script = f"""set -e
ip netns add {name}; ip -n {name} link set lo up
ip link add p{name} type veth peer name eth0 {words} netns {name}
ip link set p{name} master bridge0 up
ip -n {name} addr add {ip}/16 dev eth0; ip -n {name} link set eth0 mtu 1400 up
ip netns exec {name} ping -c 1 -W 5 10.60.200.1 >/dev/null
"""
        self.ok(LEAF, "sh", "-c", script)
        self.hear(name, ip)

    def hear(self, name: str, ip: str) -> None:
        """Let the leaf know a container's address, as ARP does again and again.

        FRR deletes that row with another host's route for the address, if it came before that.
        """
        script = f"""mac=$(ip -n {name} -br link show eth0 | awk '{{print $3}}')
ip neigh replace {ip} lladdr $mac dev bridge0 nud permanent
"""
        self.ok(LEAF, "sh", "-c", script)

    def unplug(self, name: str, ip: str) -> None:
        """Remove a container of the leaf."""
        self.ok(LEAF, "ip", "neigh", "del", ip, "dev", "bridge0")
        self.ok(LEAF, "ip", "link", "del", f"p{name}")
        self.ok(LEAF, "ip", "netns", "del", name)

    def leaf_rows(self) -> str:
        """Return the rows of the leaf's tunnel."""
        return self.ok(LEAF, "bridge", "fdb", "show", "dev", "vx")

    def outside(self, number: int) -> set[str]:
        """Return the addresses that an overlayd host takes from the fabric."""
        shown = self.json(number, "evpn", "ls")
        return {ip for each in shown["endpoints"] for ip in each["ips"]}

    def pings(self, number: int, name: str, to: str, count: int = 1) -> int:
        """Return how many of so many pings, one after the other, are answered."""
        words = ("ping", "-n", "-c", str(count), "-i", "0.1", "-W", "2", to)
        _, out, _ = self.inside(number, name, *words)
        return out.count("bytes from")

    def wait_ping(self, number: int, name: str, to: str) -> None:
        """Wait until a ping is answered."""
        wait_until(lambda: self.pings(number, name, to) == 1, f"{name} on vm{number} reaches {to}")

    def ping_meanwhile(self, number: int, name: str, to: str) -> Pinging:
        """Ping ten times a second from now on."""
        return Pinging(self.hosts[number - 1], name, to)

    def pid(self, number: int, daemon: str) -> int:
        """Return the process of a daemon of FRR, as the host numbers it; 0 without a pid file."""
        paths = f"/run/frr/{daemon}.pid /run/frr/*/{daemon}.pid"
        _, out, _ = self.run(number, "sh", "-c", f"cat {paths} 2>/dev/null")
        return int((out.split() or ["0"])[0])

    def programs(self, number: int) -> set[str]:
        """Return the names of FRR's programs, and of what watches them, that run on a host."""
        out = self.ok(number, "ps", "-eo", "stat=,args=")
        running = [line for line in out.splitlines() if not line.startswith("Z")]
        return {word for word in ("zebra", "bgpd", "evpn run") for line in running if word in line}

    def kill(self, number: int, daemon: str) -> None:
        """Kill a daemon of FRR."""
        self.ok(number, "kill", "-9", str(self.pid(number, daemon)))

    def network_sandbox(self, number: int) -> str:
        """Return the name of the network's sandbox."""
        names = [line.split()[0] for line in self.ok(number, "ip", "netns").splitlines()]
        (found,) = [name for name in names if name.startswith("ov-001004-")]
        return found

    def shadow_rows(self, number: int) -> int:
        """Return how many rows of others FRR has in the shadow."""
        shadow = self.json(number, "evpn", "status")["shadow"]
        rows = self.ok(number, "ip", "netns", "exec", shadow, "bridge", "fdb", "show")
        return sum(" dst " in line for line in rows.splitlines())

    def health(self, number: int) -> list[dict[str, Any]]:
        """Return the health lines of an overlayd host."""
        found: list[dict[str, Any]] = json.loads(
            self.run(number, "overlayd", "status", "--json")[1]
        )["health"]
        return found

    def wait_known(self, ip: str) -> None:
        """Wait until all overlayd hosts take an address from the fabric."""
        wait_until(lambda: all(ip in self.outside(n) for n in SPEAKERS), f"{ip} is known")

    def listeners(self, number: int) -> list[str]:
        """Return the TCP sockets that listen on a host."""
        return self.ok(number, "ss", "-Hltn").splitlines()

    def watch_arp(self, number: int, name: str, count: int) -> subprocess.Popen[str]:
        """Capture so many ARP requests for 10.60.255.0/24 in a container, from now on."""
        requests = "arp[6:2] == 1 and arp[24:2] == 0x0a3c and arp[26] == 255"
        script = f"exec timeout 60 tcpdump -nlp -i eth0 -c {count} 'arp and {requests}' 2>&1"
        words = ["ip", "netns", "exec", name, "sh", "-c", script]
        started = subprocess.Popen(
            host_process.enter_command(self.hosts[number - 1], words),
            stdout=subprocess.PIPE,
            text=True,
            env=host_process.environment(),
        )
        assert started.stdout is not None
        while "listening on" not in (line := started.stdout.readline()):
            assert line, "tcpdump ended"
        return started

    def sessions(self, number: int) -> int:
        """Return how many BGP sessions an overlayd host has."""
        return sum(each["up"] for each in self.json(number, "evpn", "status")["neighbors"])

    def wait_settled(self, numbers: Iterable[int] = SPEAKERS, sessions: int = 2) -> None:
        """Wait until hosts have their sessions, and the tables of these are complete."""
        for number in numbers:
            wait_until(
                lambda number=number: (
                    self.sessions(number) == sessions  # type: ignore[misc]
                    and self.json(number, "evpn", "status")["settled"]
                ),
                f"vm{number} is in step",
                60.0,
            )


class Pinging:
    """Pings under way; used as a context, it counts what was lost."""

    def __init__(self, host: HostProcess, name: str, to: str) -> None:
        words = ["ip", "netns", "exec", name, "ping", "-n", "-i", "0.1", "-W", "3", to]
        self._process = subprocess.Popen(
            host_process.enter_command(host, ["timeout", "-s", "INT", "120", *words]),
            stdout=subprocess.PIPE,
            text=True,
            env=host_process.environment(),
        )
        self.lost = -1
        self.sent = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        # nsenter forks for the new pid namespace: the ping itself is the last child.
        subprocess.run(["pkill", "-INT", "-P", str(self._process.pid)], check=False)
        out, _ = self._process.communicate(timeout=30)
        found = re.search(r"(\d+) packets transmitted, (\d+) received", out)
        assert found is not None, out
        self.sent = int(found[1])
        self.lost = self.sent - int(found[2])


def make_fabric() -> Fabric:
    """Make the hosts, and type the example up to where both hosts of the cluster are enabled.

    The island has the same network, which is not exported yet.
    """
    fabric = Fabric(lab.make(7))
    lab.join(fabric.hosts[:2])
    lab.join(fabric.hosts[ISLAND - 1 : ISLAND])
    token = fabric.ok(ISLAND, "overlayd", "token", "show")
    join = ("overlayd", "join", address(ISLAND), "--token-file", "-")
    code, _, err = fabric.run(ISLAND_2, *join, stdin=token)
    assert code == 0, err
    *setup, _, _ = blocks(EXAMPLE)
    for block in setup:
        type_block(fabric, block)
    network = ("wide", "--vni", str(VNI), "--subnet", "10.60.0.0/16", "--ip-range", "10.60.2.0/24")
    fabric.ok(ISLAND, "overlayd", "network", "create", *network)
    known = ("overlayd", "network", "inspect", "wide")
    wait_until(lambda: fabric.run(ISLAND_2, *known)[0] == 0, "the island knows the network")
    for number in (ISLAND, ISLAND_2):
        fabric.ok(number, "overlayd", "container", "add", f"c{number}", "--network", "wide")
    return fabric


def show_example(fabric: Fabric) -> str:
    """Type what the example shows; return what it prints."""
    return type_block(fabric, [*blocks(EXAMPLE)][-2])


def end_example(fabric: Fabric) -> None:
    """Type the end of the example."""
    type_block(fabric, [*blocks(EXAMPLE)][-1])
