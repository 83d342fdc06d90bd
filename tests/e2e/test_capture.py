"""`capture` sees every packet at both ends, on the fast path and on the bridge's."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from overlay.lab import host_process
from tests.pcapng_reader import ReadPacket, read

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
Eventually = Callable[..., None]
# Echo requests and replies of either version, and nothing that the kernel sends by itself.
ECHOES = "icmp or (icmp6 and (ip6[40] = 128 or ip6[40] = 129))"
WAIT_S = 120


class Running:
    """A capture on a host, from the moment that it sees packets."""

    def __init__(self, cluster: Cluster, number: int, *words: str) -> None:
        command = ("overlayd", "capture", *words, "--seconds", str(WAIT_S))
        self._process = subprocess.Popen(
            host_process.enter_command(cluster.hosts[number - 1], command),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=host_process.environment(),
        )
        assert self._process.stderr is not None
        self.said = ""
        while "Ctrl-C ends it" not in self.said:
            line = self._process.stderr.readline()
            assert line, self.said
            self.said += line

    def result(self, code: int = 0) -> list[dict[str, Any]]:
        """Wait for its end; return its lines of JSON."""
        out, err = self._process.communicate(timeout=WAIT_S)
        self.said += err
        assert self._process.returncode == code, self.said
        return [json.loads(line) for line in out.splitlines()]


@pytest.fixture(scope="module")
def both(cluster: Cluster) -> Cluster:
    """Return the cluster with containers on the fast path, and others on the bridge's."""
    subnets = ("--subnet", "10.77.0.0/16", "--subnet", "fd77::/64")
    cluster.ok(1, "overlayd", "network", "create", "dual", *subnets)
    for number in (1, 2):
        cluster.attach(number, f"fast{number}", network="dual")
        cluster.attach(number, f"slow{number}", "--rate", "1gbit", network="dual")
    return cluster


def addresses(cluster: Cluster, name: str) -> list[str]:
    """Return a container's addresses."""
    listed = cluster.json(1, "endpoint", "ls")["endpoints"]
    found: list[str] = next(each["ips"] for each in listed if each["name"] == name)
    return found


def ping_all(cluster: Cluster, name: str) -> None:
    """Send one packet of each version of IP from the first host's container to the second's."""
    for ip in addresses(cluster, f"{name}2"):
        assert cluster.inside(1, f"{name}1", "ping", "-c", "1", "-W", "20", ip)[0] == 0


def warm(cluster: Cluster, name: str, eventually: Eventually) -> None:
    """Wait until the hosts have each other's rows."""
    for ip in addresses(cluster, f"{name}2"):
        eventually(
            lambda ip=ip: cluster.inside(1, f"{name}1", "ping", "-c", "1", "-W", "2", ip)[0] == 0,
            f"{name}1 reaches {ip}",
        )


@pytest.mark.parametrize(("name", "way"), [("fast", "fast"), ("slow", "bridge")])
def test_every_packet_is_seen_at_both_ends(
    both: Cluster, eventually: Eventually, tmp_path: Path, name: str, way: str
) -> None:
    """IPv4 and IPv6, requests and replies: four at each end, in the order of travel."""
    warm(both, name, eventually)
    shown = json.loads(both.ok(1, "overlayd", "ping", f"{name}2", "--from", f"{name}1", "-c", "0",
                               "--json").splitlines()[0])  # fmt: skip
    if way == "fast" and shown["way"]["kind"] != "fast":
        way = "bridge"  # a kernel without eBPF
    assert shown["way"]["kind"] == way
    path = tmp_path / "o.pcapng"
    capture = Running(both, 1, f"{name}1", "--peer", f"{name}2", "--both-ends", "-w", str(path),
                      "--filter", ECHOES, "--count", "8")  # fmt: skip
    ping_all(both, name)
    capture.result()

    found = read(path.read_bytes())
    assert [each.name for each in found.interfaces] == [f"vm1/{name}1/eth0", f"vm2/{name}2/eth0"]
    assert "the clock" in found.interfaces[1].comment
    assert ("fast path" in found.interfaces[0].comment) is (way == "fast")
    kinds = [(each.interface, each.direction, kind(each)) for each in found.packets]
    travel = [(0, "out", 4), (1, "in", 4), (1, "out", 4), (0, "in", 4)]
    travel += [(at, direction, 6) for at, direction, _ in travel]
    assert sorted(kinds) == sorted(travel)
    vteps = "VTEP 192.168.56.11 to 192.168.56.12"
    assert any(each.comment.endswith(vteps) for each in found.packets)
    done = subprocess.run(
        ["tcpdump", "-n", "-r", path], capture_output=True, text=True, check=True, timeout=60
    )
    assert len(done.stdout.splitlines()) == 8
    assert done.stdout.count("echo request") == 4


def kind(packet: ReadPacket) -> int:
    """Return the version of IP."""
    return packet.data[14] >> 4


def test_lines_name_host_and_direction(both: Cluster) -> None:
    """One object a packet with --json, and a summary; the far host has an event of it."""
    capture = Running(both, 2, "fast2", "--peer", "fast1", "--both-ends", "--json",
                      "--filter", "icmp", "--count", "4")  # fmt: skip
    ip = addresses(both, "fast2")[0]
    assert both.inside(1, "fast1", "ping", "-c", "1", "-W", "20", ip)[0] == 0
    *frames, summary = capture.result()

    assert sorted((each["node"], each["direction"]) for each in frames) == [
        ("vm1", "in"), ("vm1", "out"), ("vm2", "in"), ("vm2", "out"),
    ]  # fmt: skip
    assert {each["protocol"] for each in frames} == {"icmp"}
    assert all(each["peer_vtep"] != each["vtep"] for each in frames)
    assert not summary["partial"]
    assert summary["clock_error_ms"] is not None
    events = [each["text"] for each in both.events(1) if each["kind"] == "capture"]
    assert "vm2 captures the frames between fast1 and its fast2, here at fast1" in events


def test_two_containers_of_one_host_are_both_ends(both: Cluster) -> None:
    """Without another host; a far end that is not a container's is refused."""
    capture = Running(both, 1, "fast1", "--peer", "slow1", "--both-ends", "--json",
                      "--filter", "icmp", "--count", "4")  # fmt: skip
    ip = addresses(both, "slow1")[0]
    assert both.inside(1, "fast1", "ping", "-c", "1", "-W", "20", ip)[0] == 0
    *frames, _ = capture.result()
    assert {(each["container"], each["direction"]) for each in frames} == {
        ("fast1", "in"), ("fast1", "out"), ("slow1", "in"), ("slow1", "out"),
    }  # fmt: skip
    code, _, err = both.run(1, "overlayd", "capture", "fast2")
    assert (code, "it is on vm2" in err) == (5, True), err


def test_a_capture_ends_with_the_container(both: Cluster) -> None:
    """Also where it is the far one that ends: this end goes on."""
    both.attach(1, "brief1", network="dual")
    both.attach(2, "brief2", network="dual")
    local = Running(both, 1, "brief1", "--json")
    far = Running(both, 1, "brief1", "--peer", "brief2", "--both-ends", "--json")
    both.ok(2, "overlayd", "detach", "brief2")
    both.ok(2, "ip", "netns", "del", "brief2")
    both.ok(1, "ip", "netns", "del", "brief1")
    assert "brief1 has ended" in local.result()[-1]["ended"]
    assert "brief1 has ended" in far.result(4)[-1]["ended"]
    assert "brief2 on vm2 has ended" in far.said


def test_others_than_root_may_not_capture(both: Cluster) -> None:
    """Nor is the API's answer theirs."""
    words = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "overlayd")
    code, _, err = both.run(1, *words, "capture", "fast1")
    assert (code, "only root may capture packets" in err) == (1, True), err


def test_an_agent_without_the_right_refuses(both: Cluster, tmp_path: Path) -> None:
    """`capture_from_peers = false`: the capability is gone, too, and the others say why."""
    config = tmp_path / "overlayd.toml"
    config.write_text("capture_from_peers = false\n")
    both.ok(3, "sh", "-c", "kill -9 $(pgrep -f '[o]verlay.cli.main agent')")
    both.ok(3, "overlayd", "join", "--config", str(config))
    both.ok(3, "overlayd", "status", "--wait")
    pid = both.ok(3, "pgrep", "-f", "[o]verlay.cli.main agent").split()[0]
    status = both.ok(3, "cat", f"/proc/{pid}/status")
    held = next(line.split()[1] for line in status.splitlines() if line.startswith("CapPrm"))
    assert not int(held, 16) & 1 << 13
    capture = Running(both, 1, "c1", "--peer", "c3", "--both-ends", "--json",
                      "--filter", "icmp", "--count", "2")  # fmt: skip
    ip = addresses(both, "c3")[0]
    assert both.inside(1, "c1", "ping", "-c", "1", "-W", "20", ip)[0] == 0
    assert len(capture.result(4)) == 3
    assert "capture_from_peers = true" in capture.said
