"""A physical interface of a host in a network: machines behind it, and two hosts on one wire."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from overlay.lab import host_process, lab
from overlay.lab.frames import arp, arp_frame
from overlay.model import parse_ip
from tests.e2e.conftest import wait_until

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e
KILL = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"
CREATE = (
    "overlayd", "network", "create", "green", "--subnet", "10.60.0.0/24", "--subnet", "fd60::/64",
)  # fmt: skip
MACHINE, MACHINE6, MAC = "10.60.0.200", "fd60::200", "52:54:00:00:00:99"
TABLES = "for s in $(ls /run/netns | grep ^ov-); do ip netns exec $s nft list tables; done"
FILE = """
owner = "lan"
[[plug]]
host = "vm1"
network = "green"
interface = "eth2"
[[plug]]
host = "vm2"
network = "green"
interface = "eth2"
"""
ALLOW = """mkdir -p /etc/overlayd; echo 'cluster_plugs = "eth2"' >/etc/overlayd/overlayd.toml"""
REFUSED = {
    "plug green eth1": "carries the cluster's own packets",
    "plug blue eth9": "there is no interface 'eth9'",
    "plug blue eth1.5000": "not a valid VLAN ID",
    "plug red eth2": "there is no network 'red'",
    "plug blue eth2": "eth2 is plugged into green",
    "plug green lo": "plugged into green here already",
    "plug green eth2 --segment lab": "eth2 is plugged into green",
    "rm green": "interfaces of vm1 are plugged into it",
}
FRAMES_MAX = 300  # a storm has thousands; an active plug asks for 32 addresses a second
UNTIL_TAKEN_OVER_S = 60.0  # the death of an agent, its lease, and a loaded machine


class Outside:
    """A switch with the interfaces eth2 of vm1 and vm2, and a machine, on the lab's own switch."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.switch = lab.switch()
        self.run("ip", "netns", "add", "machine")
        self.run("ip", "link", "add", "wire", "type", "bridge")
        self.run("ip", "link", "set", "wire", "up")
        for number in (1, 2):
            self._cable(f"wire{number}", "eth2", number, "wire")
        self.run("ip", "link", "add", "wire0", "type", "veth", "peer", "eth0", "netns", "machine")
        self.run("ip", "link", "set", "wire0", "master", "wire", "up")
        self.inside("ip", "link", "set", "eth0", "address", MAC, "mtu", "1450", "up")
        self.inside("ip", "address", "add", f"{MACHINE}/24", "dev", "eth0")
        self.inside("ip", "address", "add", f"{MACHINE6}/64", "dev", "eth0", "nodad")

    def run(self, *command: str) -> str:
        """Run a command on the switch."""
        done = host_process.run(self.switch, *command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def inside(self, *command: str) -> str:
        """Run a command in the machine outside."""
        return self.run("ip", "netns", "exec", "machine", *command)

    def second_wire(self) -> None:
        """Add another wire, with eth3 of vm1 and a machine named other."""
        self.run("ip", "netns", "add", "other")
        self.run("ip", "link", "add", "hall", "type", "bridge")
        self.run("ip", "link", "set", "hall", "up")
        self._cable("hall1", "eth3", 1, "hall")
        self.run("ip", "link", "add", "hall0", "type", "veth", "peer", "eth0", "netns", "other")
        self.run("ip", "link", "set", "hall0", "master", "hall", "up")
        inside = ("ip", "netns", "exec", "other", "ip")
        self.run(*inside, "link", "set", "eth0", "mtu", "1450", "up")
        self.run(*inside, "address", "add", "10.60.0.201/24", "dev", "eth0")

    def _cable(self, end: str, interface: str, number: int, bridge: str) -> None:
        # The peer is placed by pid, which `ip` looks up in the machine's own /proc.
        subprocess.run(
            ["nsenter", "--target", str(self.switch.pid), "--net",
             "ip", "link", "add", end, "type", "veth",
             "peer", "name", interface, "netns", str(self.cluster.hosts[number - 1].pid)],
            check=True,
        )  # fmt: skip
        self.cluster.ok(number, "ip", "link", "set", interface, "up")
        self.run("ip", "link", "set", end, "master", bridge, "up")

    def reaches(self, address: str, machine: str = "machine") -> bool:
        """Return whether an address answers a machine."""
        command = ("ip", "netns", "exec", machine, "ping", "-c1", "-W1", address)
        return host_process.run(self.switch, *command).returncode == 0

    def sees_looped_frames(self) -> bool:
        """Return whether a broadcast of the machine comes back to it."""
        before = self._received()
        self.announce(MACHINE)
        self.reaches("10.60.0.1")
        return self._received() - before > FRAMES_MAX

    def announce(self, address: str) -> None:
        """Send gratuitous ARP requests for an address from the machine."""
        ip, mac = parse_ip(address), bytes.fromhex(MAC.replace(":", ""))
        frame = arp_frame(mac, arp((mac, ip), (bytes(6), ip))).hex()
        self.inside(sys.executable, "-m", "overlay.lab.frames", "frames", "eth0", *3 * [frame])

    def _received(self) -> int:
        return int(self.inside("cat", "/sys/class/net/eth0/statistics/rx_packets"))


@pytest.fixture(scope="module")
def outside(cluster: Cluster) -> Outside:
    """Return a wire between vm1, vm2 and a machine; network green has a container per host."""
    cluster.ok(1, *CREATE)
    for number in (1, 2, 3):
        cluster.ok(number, "overlayd", "container", "add", f"g{number}", "--network", "green")
    made = Outside(cluster)
    made.inside("ip", "address", "add", f"{following(cluster)}/24", "dev", "eth0")
    return made


def addresses(cluster: Cluster, name: str) -> tuple[str, str]:
    """Return the IPv4 and the IPv6 address of a container on network green."""
    listed = cluster.json(3, "endpoint", "ls", "--network", "green")["endpoints"]
    (ips,) = [each["ips"] for each in listed if each["name"] == name]
    return ips[0], ips[1]


def following(cluster: Cluster) -> str:
    """Return the address after that of g1, which its host gives out next."""
    head, _, last = addresses(cluster, "g1")[0].rpartition(".")
    return f"{head}.{int(last) + 1}"


def reaches_machine(cluster: Cluster, number: int) -> bool:
    """Return whether the machine answers a host's container, by both families."""
    return all(
        cluster.inside(number, f"g{number}", "ping", "-c1", "-W1", target)[0] == 0
        for target in (MACHINE, MACHINE6)
    )


def plugs(cluster: Cluster, number: int) -> dict[str, str]:
    """Return the state of each host's plug, as a host shows it."""
    shown = cluster.json(number, "network", "inspect", "green")["plugs"]
    return {each["node"]: each["state"] for each in shown}


def test_machines_outside_are_on_the_segment(cluster: Cluster, outside: Outside) -> None:
    """They and the containers of all hosts reach each other, by IPv4 and IPv6."""
    done = cluster.json(1, "network", "plug", "green", "eth2")
    assert (done["state"], done["changed"]) == ("active", True)
    assert cluster.json(1, "network", "plug", "green", "eth2")["changed"] is False

    for number in (1, 2, 3):
        for address in addresses(cluster, f"g{number}"):
            wait_until(partial(outside.reaches, address), f"the machine to {address}")
        wait_until(partial(reaches_machine, cluster, number), f"g{number} to it")
    outside.inside("ping", "-c1", "-W2", "10.60.0.1")
    for words, why in REFUSED.items():
        code, _, err = cluster.run(1, "overlayd", "network", *words.split())
        assert code in (3, 5, 6), f"{words}: {code} {err}"
        assert why in err, err
    assert not outside.sees_looped_frames()
    assert all(cluster.differences(each) == [] for each in (1, 2, 3))


@pytest.mark.usefixtures("outside")
def test_addresses_outside_are_not_given_out(cluster: Cluster) -> None:
    """Neither the next free one, of which nothing was heard, nor one by request, on any host."""
    used, silent = addresses(cluster, "g1")[0], following(cluster)

    def seen() -> set[str]:
        return {each["ip"] for each in cluster.json(3, "network", "inspect", "green")["outside"]}

    wait_until(lambda: {silent, MACHINE, MACHINE6} <= seen(), "all hosts to know them")
    for wanted, number in ((silent, 1), (MACHINE, 3)):
        code, _, err = cluster.run(
            number, "overlayd", "container", "add", "x", "--network", "green", "--ip", wanted
        )
        assert code == 6, err
        assert "outside" in err
    given = cluster.ok(1, "overlayd", "container", "add", "x", "--network", "green").split()[0]
    assert given not in {silent, used}
    cluster.ok(1, "overlayd", "container", "rm", "x")


def test_machines_outside_take_no_containers_address(cluster: Cluster, outside: Outside) -> None:
    """Their frames from it are dropped; the others go on."""
    victim = addresses(cluster, "g3")[0]
    refused = cluster.json(1, "network", "plug", "green", "eth2")["refused"]
    outside.announce(victim)

    wait_until(
        lambda: cluster.json(1, "network", "plug", "green", "eth2")["refused"] > refused, "drops"
    )
    assert MAC not in cluster.inside(1, "g1", "ip", "neigh", "show", victim)[1]
    assert outside.reaches(victim)


def test_policies_name_machines_outside_by_range(cluster: Cluster, outside: Outside) -> None:
    """Denied by the network's default, and let in by a range of addresses, on every host."""
    cluster.ok(1, "overlayd", "network", "set", "green", "--default-deny", "on")
    target = addresses(cluster, "g3")[0]
    wait_until(lambda: not outside.reaches(target), "the default to be in force")
    assert not reaches_machine(cluster, 1)
    cluster.ok(
        1, "overlayd", "policy", "create", "lan", "--network", "green",
        "--from", "cidr:10.60.0.192/26",
    )  # fmt: skip
    wait_until(lambda: outside.reaches(target), "the policy to be in force")
    cluster.ok(1, "overlayd", "policy", "rm", "lan")
    cluster.ok(1, "overlayd", "network", "set", "green", "--default-deny", "off")
    wait_until(lambda: reaches_machine(cluster, 3), "the default to allow again")


def test_one_of_two_hosts_on_a_wire_is_active(cluster: Cluster, outside: Outside) -> None:
    """The other waits, `status` says for whom, and takes over when the first one's agent dies."""
    text = cluster.ok(2, "overlayd", "network", "plug", "green", "eth2")
    assert text.startswith("eth2 is plugged into green: standby (the plug of vm1 is active")
    assert "standby (the plug of vm1" in cluster.ok(2, "overlayd", "status")
    wait_until(lambda: plugs(cluster, 3) == {"vm1": "active", "vm2": "standby"}, "vm3 to know")
    assert not outside.sees_looped_frames()
    assert outside.reaches(addresses(cluster, "g3")[0])

    cluster.ok(1, "bash", "-c", KILL)
    wait_until(lambda: plugs(cluster, 2)["vm2"] == "active", "vm2", UNTIL_TAKEN_OVER_S)
    for name in ("g2", "g3"):
        wait_until(partial(outside.reaches, addresses(cluster, name)[0]), f"{name} by vm2")
    assert not outside.sees_looped_frames()

    cluster.ok(1, "sh", "-c", ALLOW)
    cluster.ok(1, "overlayd", "join")
    wait_until(lambda: plugs(cluster, 1) == {"vm1": "standby", "vm2": "active"}, "vm1 waits")
    wait_until(partial(reaches_machine, cluster, 1), "g1 by vm2")
    assert not outside.sees_looped_frames()


def test_a_host_plugs_several_wires(cluster: Cluster, outside: Outside) -> None:
    """Both are active, and machines on one reach those on the other; one wire stays one plug."""
    outside.second_wire()
    done = cluster.json(1, "network", "plug", "green", "eth3", "--segment", "hall")
    assert (done["segment"], done["state"]) == ("hall", "active")
    for address in (addresses(cluster, "g3")[0], MACHINE):
        wait_until(partial(outside.reaches, address, "other"), f"the other machine to {address}")
    assert not outside.sees_looped_frames()
    code, _, err = cluster.run(1, "overlayd", "network", "unplug", "green")
    assert code == 6
    assert "eth2, eth3" in err
    cluster.ok(1, "overlayd", "network", "unplug", "green", "eth3")

    # The same wire under another name: the probes tell.
    outside.run("ip", "link", "set", "hall1", "master", "wire")
    cluster.ok(1, "overlayd", "network", "plug", "green", "eth3", "--segment", "hall")
    wait_until(lambda: len(cluster.json(1, "network", "inspect", "green")["plugs"]) == 3, "three")
    shown = cluster.json(1, "network", "inspect", "green")["plugs"]
    assert [each["state"] for each in shown].count("active") == 1
    assert not outside.sees_looped_frames()
    cluster.ok(1, "overlayd", "network", "unplug", "green", "eth3")


def test_an_unplugged_interface_is_the_hosts_again(cluster: Cluster, outside: Outside) -> None:
    """The other host takes over; without any plug, all is as before."""
    cluster.ok(2, "overlayd", "network", "unplug", "green")
    wait_until(lambda: plugs(cluster, 1) == {"vm1": "active"}, "vm1 takes over")
    wait_until(lambda: reaches_machine(cluster, 3), "by vm1")
    assert cluster.ok(1, "overlayd", "network", "unplug", "green").startswith("eth2 is unplugged")
    assert cluster.ok(1, "overlayd", "network", "unplug", "green").startswith("no interface")
    wait_until(lambda: not outside.reaches(addresses(cluster, "g1")[0]), "no way in")
    for number in (1, 2):
        assert "promiscuity 0" in cluster.ok(number, "ip", "-d", "link", "show", "eth2")
        tables = cluster.ok(number, "sh", "-c", TABLES)
        assert "plug" not in tables
    wait_until(lambda: plugs(cluster, 3) == {}, "vm3 knows of no plug")
    wait_until(
        lambda: cluster.json(3, "network", "inspect", "green")["outside"] == [], "nor of a machine"
    )
    assert all(cluster.differences(each) == [] for each in (1, 2, 3))


def test_files_declare_plugs_of_all_hosts(cluster: Cluster, outside: Outside) -> None:
    """A host gives only what its configuration names; what is pruned is the host's again."""
    applied = partial(apply, cluster, 3)
    assert {each["action"] for each in applied(FILE, "--dry-run")[1]["changes"]} == {"create"}
    assert plugs(cluster, 3) == {}
    assert applied(FILE)[0] == 0
    wait_until(lambda: plugs(cluster, 3) == {"vm1": "active"}, "vm1 plugs it")
    wait_until(lambda: outside.reaches(addresses(cluster, "g3")[0]), "the machine is on it")
    told = "cluster_plugs does not allow eth2"
    wait_until(lambda: told in cluster.ok(2, "overlayd", "status"), "vm2 gives nothing")
    assert applied(FILE)[1]["changes"] == []
    exported = cluster.json(3, "export", "--owner", "lan")["plug"]
    assert [each["host"] for each in exported] == ["vm1", "vm2"]

    code, out = applied('owner = "lan"', "--prune")
    assert (code, len(out["changes"])) == (0, 2)
    assert "promiscuity 0" in cluster.ok(1, "ip", "-d", "link", "show", "eth2")  # `apply` waits
    wait_until(lambda: plugs(cluster, 3) == {}, "vm3 knows of no plug")
    wait_until(lambda: "cluster_plugs" not in cluster.ok(2, "overlayd", "status"), "vm2 is content")


def apply(cluster: Cluster, number: int, text: str, *options: str) -> tuple[int, dict[str, Any]]:
    """Apply a file on a host; return the exit code and the plan."""
    command = ("overlayd", "apply", "-", "--json", *options)
    code, out, err = cluster.run(number, *command, stdin=text)
    assert out, err
    return code, json.loads(out)
