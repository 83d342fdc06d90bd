"""A virtual address that keepalived moves between containers of two hosts (VRRP, RFC 5798)."""

from __future__ import annotations

import re
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.e2e.conftest import wait_until
from tests.e2e.world import ips_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e
ADDRESSES = ("10.58.0.100", "fd58::100")
CONFIGURATION = """\
global_defs {{
  vrrp_version 3
}}
vrrp_instance web {{
  state BACKUP
  interface eth0
  virtual_router_id 51
  priority {priority}
  advert_int 0.2
  virtual_ipaddress {{
    10.58.0.100/24
  }}
}}
vrrp_instance web6 {{
  state BACKUP
  interface eth0
  virtual_router_id 51
  priority {priority}
  advert_int 0.2
  virtual_ipaddress {{
    fd58::100/64
  }}
}}
"""
INNER, INNER_IPV6, INNER_MAC = "10.59.0.100", "fd59::100", "02:00:00:00:00:07"
NEST = f"""
set -e
ip netns add inner
ip -n outer link add in0 link eth0 netns inner address {INNER_MAC} type macvlan mode bridge
ip -n inner address add {INNER}/24 dev in0
ip -n inner address add {INNER_IPV6}/64 dev in0 nodad
ip -n inner link set in0 up
"""
# Long before a stale neighbor entry would be asked again (some 45 s), also on a loaded machine.
GAP_MAX_S = 8.0


class Keepalived:
    """A container that takes the address while it is the one with the highest priority."""

    def __init__(self, cluster: Cluster, number: int, folder: Path, priority: int) -> None:
        self.cluster, self.number, self.name = cluster, number, f"ha{number}"
        self._file = folder / f"{self.name}.conf"
        self._file.write_text(CONFIGURATION.format(priority=priority))
        self._pid = folder / f"{self.name}.pid"

    def start(self) -> None:
        """Start keepalived in the container."""
        self.cluster.ok(
            self.number, "ip", "netns", "exec", self.name, "keepalived", "--vrrp", "-l",
            "-f", str(self._file), "-p", str(self._pid), "-r", f"{self._pid}.vrrp",
        )  # fmt: skip

    def stop(self) -> None:
        """Stop it, so that it gives the address up; return when it has ended."""
        self.cluster.ok(self.number, "kill", self._pid.read_text().strip())
        wait_until(lambda: not self._pid.exists(), f"{self.name} has ended")

    def kill(self) -> None:
        """End the container with all that is in it, without a word to anyone."""
        kill = f"kill -9 $(ip netns pids {self.name}); ip netns del {self.name}"
        self.cluster.ok(self.number, "sh", "-c", kill)

    def has_addresses(self) -> bool:
        """Return whether both addresses are on the container's interface."""
        shown = self.cluster.inside(self.number, self.name, "ip", "addr")[1]
        return all(address in shown for address in ADDRESSES)

    def has_any(self) -> bool:
        """Return whether one of them is."""
        shown = self.cluster.inside(self.number, self.name, "ip", "addr")[1]
        return any(address in shown for address in ADDRESSES)


class Pings:
    """Echo requests of a third host's container to one address, 20 a second."""

    def __init__(self, cluster: Cluster, address: str, log: Path) -> None:
        self._cluster, self._log = cluster, log
        command = f"ip netns exec ha3 ping -D -i 0.05 {address} >{log} 2>&1 & echo $!"
        self._pid = cluster.ok(3, "sh", "-c", command).strip()

    def times(self) -> list[float]:
        """Return when each answer came."""
        answer = re.compile(r"^\[([\d.]+)\] \d+ bytes from", re.MULTILINE)
        return [float(found) for found in answer.findall(self._log.read_text())]

    def longest_gap_s(self, since: float) -> float:
        """Return the longest time between two answers, of which the second is later than that."""
        return max(after - before for before, after in pairwise(self.times()) if after > since)

    def end(self) -> None:
        """Send no more."""
        self._cluster.ok(3, "kill", self._pid)


def test_keepalived_moves_addresses_between_hosts(
    cluster: Cluster, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    """A third host reaches them wherever they are, at once; who has no leave never has them."""
    subnets = ("--subnet", "10.58.0.0/24", "--subnet", "fd58::/64")
    reserved = [f"--aux-address=web{len(address)}={address}" for address in ADDRESSES]
    cluster.ok(1, "overlayd", "network", "create", "ha", *subnets, *reserved)
    allowed = [f"--allow-ip={address}" for address in ADDRESSES]
    first, second = (Keepalived(cluster, n, tmp_path, 200 // n) for n in (1, 2))
    for each in (first, second):
        cluster.attach(each.number, each.name, *allowed, network="ha")
    cluster.attach(3, "ha3", network="ha")
    first.start()
    eventually(first.has_addresses, "the first container has the addresses")
    pings = [Pings(cluster, each, tmp_path / f"{len(each)}") for each in ADDRESSES]

    def move(title: str, to: Keepalived, since: float = 0.0) -> None:
        """Wait until a container answers, and tell how long nobody did since then."""
        eventually(to.has_addresses, f"{to.name} has the addresses")
        before = [len(each.times()) for each in pings]
        for each, count in zip(pings, before, strict=True):
            eventually(lambda e=each, n=count: len(e.times()) > n + 5, f"{to.name} answers")
        gaps_s = [each.longest_gap_s(since) for each in pings]
        shown = ", ".join(f"{gap_s:.2f} s" for gap_s in gaps_s)
        print(f"{title}: without an answer for {shown}")  # noqa: T201 - asked for
        assert max(gaps_s) < GAP_MAX_S

    move("start", first)
    second.start()
    since = time.time()
    first.stop()
    move("stopped", second, since)
    since = time.time()
    first.start()  # its priority is higher
    eventually(lambda: not second.has_any(), "the second gives them back")
    move("back", first, since)
    since = time.time()
    first.kill()
    move("killed", second, since)

    second.stop()
    eventually(lambda: not second.has_any(), "nobody has them")
    for ping, address, length in zip(pings, ADDRESSES, (24, 64), strict=True):
        ping.end()
        take = ("addr", "add", f"{address}/{length}", "dev", "eth0")
        cluster.inside(3, "ha3", "ip", *take, *(["nodad"] if length == 64 else []))
        taken = cluster.inside(2, second.name, "ping", "-c3", "-i0.2", "-W1", address)
        assert "100% packet loss" in taken[1], "a container may only use what it was allowed"


def test_a_container_inside_a_container_has_its_mac(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """Allowed, it is reached from both hosts and reaches them; with another MAC it is not."""
    reserved = ("--aux-address", f"inner={INNER}", "--aux-address", f"inner6={INNER_IPV6}")
    subnets = ("--subnet", "10.59.0.0/24", "--subnet", "fd59::/64")
    cluster.ok(1, "overlayd", "network", "create", "nest", *subnets, *reserved)
    allowed = ("--allow-mac", INNER_MAC, "--allow-ip", INNER, "--allow-ip", INNER_IPV6)
    cluster.attach(1, "outer", *allowed, network="nest")
    for number in (1, 2):
        cluster.attach(number, f"other{number}", network="nest")
    others = {number: ips_of(cluster, 1, f"other{number}") for number in (1, 2)}
    cluster.ok(1, "sh", "-c", NEST)

    def is_reached(number: int, ip: str) -> bool:
        ping = ("ping", "-c2", "-i0.2", "-W1", ip)
        return cluster.inside(number, f"other{number}", *ping)[0] == 0

    for number, ips in others.items():
        for inner, ip in zip((INNER, INNER_IPV6), ips, strict=True):
            eventually(lambda n=number, i=inner: is_reached(n, i), f"{inner} from vm{number}")
            assert cluster.inside(1, "inner", "ping", "-c1", "-W5", ip)[0] == 0
    assert cluster.differences(1) == []
    cluster.ok(1, "ip", "netns", "add", "late")
    wish = ("overlayd", "attach", "late", "--network", "nest", "--mac", INNER_MAC)
    code, _, err = cluster.run(1, *wish)
    assert (code, "outer on vm1 may use it beside its own" in err) == (6, True)

    cluster.ok(1, "ip", "-n", "inner", "link", "set", "in0", "address", "02:00:00:00:00:08")
    for number, ips in others.items():
        for inner, ip in zip((INNER, INNER_IPV6), ips, strict=True):
            assert cluster.inside(1, "inner", "ping", "-c1", "-W1", ip)[0] != 0
            assert not is_reached(number, inner)


def test_only_reserved_addresses_can_be_allowed(cluster: Cluster) -> None:
    """Another container would get one that is not, later."""
    cluster.ok(1, "ip", "netns", "add", "greedy")
    wish = ("overlayd", "attach", "greedy", "--network", "blue", "--allow-ip", "10.32.9.9")
    code, _, err = cluster.run(1, *wish)

    assert code == 2
    assert "--allow-ip: 10.32.9.9 may become the address of a container" in err
    assert "--aux-address NAME=ADDRESS" in err
    assert "greedy" not in cluster.ok(1, "overlayd", "endpoint", "ls")
