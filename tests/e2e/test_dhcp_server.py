"""DHCP servers and routers in containers: only those that the operator allows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from overlay.model import parse_ip
from tests.e2e.conftest import wait_until

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e
SUBNETS = ("--subnet", "10.60.0.0/24", "--subnet", "fd60::/64")
LEASED, LEASED_IPV6 = "10.60.0.100", "fd60::100"
RESERVED = (f"--aux-address=lease={LEASED}", f"--aux-address=lease6={LEASED_IPV6}")
TAKE = """\
#!/bin/sh
if [ "$1" = bound ]; then ip address replace "$ip/$mask" dev "$interface"; echo "leased $ip"; fi
"""
SOLICIT = """\
import socket, sys
client, wanted = bytes.fromhex("0003000102aabbccddee"), bytes.fromhex(sys.argv[1])
option = lambda number, body: number.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body
request = b"\\x01abc" + option(1, client) + option(3, b"\\0\\0\\0\\1" + bytes(8))
asking = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
asking.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
asking.bind(("::", 546))
asking.settimeout(1)
for _ in range(int(sys.argv[2])):
    asking.sendto(request, ("ff02::1:2", 547, 0, socket.if_nametoindex("eth0")))
    try:
        answer = asking.recv(1500)
    except TimeoutError:
        continue
    sys.exit(not (answer[0] == 2 and wanted in answer))
sys.exit(1)
"""


class Dnsmasq:
    """A container with dnsmasq: a server of DHCP and DHCPv6, and a router by its words."""

    def __init__(self, cluster: Cluster, number: int, name: str, folder: Path) -> None:
        self._cluster, self._number = cluster, number
        self._pid = folder / f"{name}.pid"
        served = (f"{LEASED},{LEASED},255.255.255.0,5m", f"{LEASED_IPV6},{LEASED_IPV6},64,5m")
        code, out, err = cluster.inside(
            number, name, "dnsmasq", "--conf-file=/dev/null", "--port=0", "--user=root",
            "--interface=eth0", "--bind-interfaces", "--dhcp-authoritative", "--enable-ra",
            "--no-ping", "--ra-param=eth0,1,600", f"--pid-file={self._pid}",
            f"--dhcp-leasefile={self._pid}.leases", *(f"--dhcp-range={each}" for each in served),
        )  # fmt: skip
        assert code == 0, out + err

    def stop(self) -> None:
        """Stop it; return when it has ended."""
        self._cluster.ok(self._number, "kill", self._pid.read_text().strip())
        wait_until(lambda: not self._pid.exists(), "dnsmasq has ended")


class Client:
    """A container that asks for a lease, and heeds routers."""

    def __init__(self, cluster: Cluster, number: int, name: str, script: Path) -> None:
        self._cluster, self._number, self._name, self._script = cluster, number, name, script
        self._inside("sysctl", "-q", "-w", "net.ipv6.conf.eth0.accept_ra=2")

    def is_leased(self, tries: int) -> bool:
        """Return whether it gets the lease of IPv4."""
        asked = ("busybox", "udhcpc", "-i", "eth0", "-f", "-n", "-q", "-T", "1", "-t", f"{tries}")
        code, out = self._inside(*asked, "-s", str(self._script))
        return code == 0 and f"leased {LEASED}" in out

    def is_advertised(self, tries: int) -> bool:
        """Return whether a DHCPv6 server offers it the address."""
        wanted = parse_ip(LEASED_IPV6).hex()
        return self._inside(sys.executable, "-c", SOLICIT, wanted, f"{tries}")[0] == 0

    def has_router(self) -> bool:
        """Return whether a router advertisement has given it a route."""
        return "proto ra" in self._inside("ip", "-6", "route", "show", "default")[1]

    def reaches(self, name: str) -> bool:
        """Return whether it reaches a container from its leased address."""
        return self._inside("ping", "-c1", "-W5", "-I", LEASED, name)[0] == 0

    def _inside(self, *command: str) -> tuple[int, str]:
        code, out, err = self._cluster.inside(self._number, self._name, *command)
        return code, out + err


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """Return the script by which a client takes its address."""
    made = tmp_path / "take"
    made.write_text(TAKE)
    made.chmod(0o755)
    return made


def test_only_an_allowed_server_gives_leases(
    cluster: Cluster, tmp_path: Path, script: Path
) -> None:
    """Across hosts, DHCP, DHCPv6 and router advertisements; policies judge them like others."""
    cluster.ok(1, "overlayd", "network", "create", "lease", *SUBNETS, *RESERVED)
    allowed = ("--allow-ip", LEASED, "--allow-ip", LEASED_IPV6)
    cluster.attach(2, "asks", *allowed, network="lease")
    cluster.attach(3, "rogue", network="lease")
    server_ip = cluster.attach(
        1, "gives", "--allow-dhcp-server", "--allow-ra", network="lease"
    ).split()[0]
    client = Client(cluster, 2, "asks", script)

    rogue = Dnsmasq(cluster, 3, "rogue", tmp_path)
    assert not client.is_leased(2)
    assert not client.is_advertised(1)
    assert not client.has_router()
    rogue.stop()

    server = Dnsmasq(cluster, 1, "gives", tmp_path)
    assert client.is_leased(20)
    assert client.reaches(server_ip)
    assert client.is_advertised(20)
    wait_until(client.has_router, "the router of vm1 is known on vm2")

    cluster.ok(1, "overlayd", "network", "set", "lease", "--default-deny", "on")
    wait_until(lambda: not client.reaches(server_ip), "nothing passes that no policy allows")
    assert not client.is_leased(1)
    answers = ("--port", "68/udp", "--port", "546/udp")
    cluster.ok(
        1, "overlayd", "policy", "create", "dhcp", "--network", "lease", "--from", "name=gives",
        *answers,
    )  # fmt: skip
    wait_until(lambda: client.is_leased(1), "the policy lets the server answer")
    assert client.is_advertised(20)
    server.stop()
    (found,) = [
        each
        for each in cluster.json(1, "endpoint", "ls", "--network", "lease")["endpoints"]
        if each["name"] == "gives"
    ]
    assert (found["allow_dhcp_server"], found["allow_ra"]) == (True, True)
    assert [cluster.differences(number) for number in (1, 2, 3)] == [[], [], []]
