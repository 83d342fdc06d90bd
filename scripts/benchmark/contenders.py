"""The networks that are measured: ways from one host of a lab to another.

Owns: setting up each of them, and running commands at its two ends. All share one underlay.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from overlay.lab import host_process, lab, underlay
from overlay.lab.host_process import HostProcess
from scripts.benchmark import underlays

DOCKER_PORT, HAND_PORT, HAND_VNI = 4790, 4791, 77
_DOCKER_WAIT_S = 60.0


@dataclass(frozen=True)
class End:
    """One end of a contender: where commands run, and its address."""

    enter: tuple[str, ...]
    address: str

    def run(self, *command: str, timeout_s: float = 60.0) -> str:
        """Run a command at this end; return its output. Raises RuntimeError if it fails."""
        done = subprocess.run(
            [*self.enter, *command], capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout[-500:]}{done.stderr[-500:]}")
        return done.stdout


@dataclass(frozen=True)
class Contender:
    """A network path from the first host to the second."""

    name: str
    ends: tuple[End, End]

    def prefixed(self, sender: tuple[str, ...], receiver: tuple[str, ...]) -> Contender:
        """Return the same path, on which every command runs by another one, as chrt(1)."""
        one, two = self.ends
        ends = (
            replace(one, enter=(*one.enter, *sender)),
            replace(two, enter=(*two.enter, *receiver)),
        )
        return replace(self, ends=ends)


def ok(host: HostProcess, *command: str, stdin: str | None = None) -> str:
    """Run a command on a host; return its output. Raises RuntimeError if it fails."""
    done = host_process.run(host, *command, stdin=stdin, timeout_s=120.0)
    if done.returncode:
        raise RuntimeError(f"{host.name}: {' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def all_of(hosts: Sequence[HostProcess], tell: Callable[[str], None]) -> list[Contender]:
    """Set up all five, on seven hosts of which the first three have overlayd.

    Docker has the next two, as its rules and connection tracking would slow down the others. The
    last two have neither: there are the bare underlay and the hand-made VXLAN. Each pair has its
    own cable, as a switch in between would add the same to all and hide the differences.
    """
    clean, ours, dockers = hosts[5:7], hosts[:2], hosts[3:5]
    found = [bare(clean), hand_made(clean), beside(ours), overlayd(ours)]
    cable(dockers)
    tell("starting two dockerd and a swarm")
    return [*found, docker(dockers)]


def switch_native_off(pair: Sequence[HostProcess]) -> None:
    """Configure two hosts, before their agents start, not to take the native path."""
    script = """mkdir -p /etc/overlayd; echo 'native_path = "off"' >/etc/overlayd/overlayd.toml"""
    for host in pair:
        ok(host, "sh", "-c", script)


def with_native(
    hosts: Sequence[HostProcess], kind: str, tell: Callable[[str], None]
) -> list[Contender]:
    """Set up four, on eight hosts of which the first four are members; two of them not native.

    Their cables are of a kind of `underlays`. Networks are exposed on all members, as by default.
    """
    ours, natives, dockers, clean = hosts[:2], hosts[2:4], hosts[4:6], hosts[6:8]
    for pair in (ours, natives, dockers):
        cable(pair, kind)
    tell("starting two dockerd and a swarm")
    for host in natives:
        (network,) = lab.query(host, "status")["networks"]
        if network["data_path"] != "native":
            raise RuntimeError(f"{host.name}: {network['data_path_why']}")
    native = Contender("overlayd, native path", overlayd(natives).ends)
    return [bare(clean, kind), overlayd(ours), native, docker(dockers, underlays.mtu(kind) - 50)]


def _number(host: HostProcess) -> int:
    return int(host.name.removeprefix("vm"))


def cable(pair: Sequence[HostProcess], kind: str = underlays.DEFAULT, name: str = "cable") -> None:
    """Connect two hosts by a veth pair, and route their underlay addresses through it."""
    one, two = pair
    ends = ["nsenter", "--target", str(one.pid), "--net", "ip", "link", "add", name]
    far = ["type", "veth", "peer", "name", name, "netns", str(two.pid)]
    subprocess.run([*ends, *far], check=True, timeout=30)
    for own, other in ((one, two), (two, one)):
        underlays.apply(own, name, kind)
        ok(own, "ip", "link", "set", name, "up")
        ok(own, "ip", "route", "add", f"{underlay.address_of(_number(other))}/32", "dev", name,
           "src", underlay.address_of(_number(own)))  # fmt: skip


def bare(pair: Sequence[HostProcess], kind: str = underlays.DEFAULT) -> Contender:
    """Connect two hosts without overlayd: the underlay itself."""
    cable(pair, kind)
    return Contender("underlay", _host_ends(pair))


def beside(pair: Sequence[HostProcess]) -> Contender:
    """Connect two hosts with overlayd, a network exposed and a port published.

    Measured is the hosts' own traffic, which should cost what it costs without overlayd.
    """
    cable(pair)
    for host in pair:
        ok(host, "overlayd", "publish", f"c{_number(host)}", "8080:80")
    return Contender("underlay beside overlayd", _host_ends(pair))


def _host_ends(pair: Sequence[HostProcess]) -> tuple[End, End]:
    one, two = (
        End(tuple(host_process.enter_command(host, [])), underlay.address_of(_number(host)))
        for host in pair
    )
    return one, two


def hand_made(pair: Sequence[HostProcess]) -> Contender:
    """Create a VXLAN, a bridge and a container by hand, with fixed rows: a lower bound."""
    ends = []
    for number, host in enumerate(pair, 1):
        peer, other = 3 - number, underlay.address_of(_number(pair[2 - number]))
        own = underlay.address_of(_number(host))
        script = f"""
            ip netns add hand; ip netns add handc
            ip link add name vx type vxlan id {HAND_VNI} local {own} \
                dstport {HAND_PORT} nolearning
            ip link set dev vx netns hand
            ip -n hand link add name br type bridge
            ip -n hand link set dev vx mtu 1450 master br up; ip -n hand link set dev br mtu 1450 up
            ip link add name p netns hand mtu 1450 type veth peer name eth0 netns handc mtu 1450 \
                address 02:77:00:00:00:0{number}
            ip -n hand link set dev p master br up
            ip -n handc link set lo up; ip -n handc link set eth0 up
            ip -n handc address add 10.77.0.{number}/24 dev eth0
            bridge -n hand fdb append 00:00:00:00:00:00 dev vx dst {other} self
            bridge -n hand fdb replace 02:77:00:00:00:0{peer} dev vx dst {other} self
            bridge -n hand fdb replace 02:77:00:00:00:0{peer} dev vx master static
        """
        ok(host, "sh", "-ec", script)
        enter = host_process.enter_command(host, ["ip", "netns", "exec", "handc"])
        ends.append(End(tuple(enter), f"10.77.0.{number}"))
    return Contender("hand-made VXLAN", (ends[0], ends[1]))


def overlayd(pair: Sequence[HostProcess]) -> Contender:
    """Return the lab's own network: each host's container on blue."""
    ends = []
    for host in pair:
        name = f"c{_number(host)}"
        enter = host_process.enter_command(host, ["ip", "netns", "exec", name])
        found = lab.query(host, "endpoint", "ls")["endpoints"]
        (address,) = [item["ips"][0] for item in found if item["name"] == name]
        ends.append(End(tuple(enter), address))
    return Contender("overlayd", (ends[0], ends[1]))


def docker(hosts: Sequence[HostProcess], mtu: int = 1450) -> Contender:
    """Create a two-node swarm with an attachable overlay and a container on each node."""
    swarm(hosts, mtu)
    return Contender("Docker swarm overlay", (container(hosts[0], 1), container(hosts[1], 2)))


def swarm(hosts: Sequence[HostProcess], mtu: int, programs: Sequence[Path] = ()) -> None:
    """Create a two-node swarm with the attachable overlay dnet, and the image lab:1.

    The image has busybox and these static programs, in /bin.
    """
    archive = _image(programs)
    for host in hosts:
        script = (
            "mkdir -p /run/docker-data && mount -t tmpfs d /run/docker-data;"
            " setsid dockerd --data-root /run/docker-data --exec-root /run/docker-exec"
            " >/run/dockerd.log 2>&1 &"
        )
        ok(host, "bash", "-c", script)
    for host in hosts:
        _wait(lambda host=host: host_process.run(host, "docker", "info").returncode == 0, host)  # type: ignore[misc]
        ok(host, "docker", "import", str(archive), "lab:1")
    first, second = (underlay.address_of(_number(host)) for host in hosts)
    ok(hosts[0], "docker", "swarm", "init", "--advertise-addr", first,
       "--data-path-port", str(DOCKER_PORT))  # fmt: skip
    token = ok(hosts[0], "docker", "swarm", "join-token", "-q", "worker").strip()
    ok(hosts[1], "docker", "swarm", "join", "--token", token, "--advertise-addr", second, first)
    ok(hosts[0], "docker", "network", "create", "-d", "overlay", "--attachable",
       "--opt", f"com.docker.network.driver.mtu={mtu}",
       "--subnet", "10.88.0.0/16", "dnet")  # fmt: skip


def container(host: HostProcess, number: int) -> End:
    """Start a container on dnet that does nothing."""
    ok(host, "docker", "run", "-d", "--name", f"d{number}", "--network", "dnet",
       "lab:1", "/bin/sleep", "100000")  # fmt: skip
    return end_of(host, f"d{number}")


def end_of(host: HostProcess, name: str) -> End:
    """Return where a container on dnet is."""
    (shown,) = json.loads(ok(host, "docker", "inspect", name))
    pid = shown["State"]["Pid"]
    enter = host_process.enter_command(host, ["nsenter", "--target", str(pid), "--net"])
    return End(tuple(enter), shown["NetworkSettings"]["Networks"]["dnet"]["IPAddress"])


def _image(programs: Sequence[Path]) -> Path:
    """Return a container image as a tar file with only static programs and busybox."""
    root = Path(tempfile.mkdtemp(prefix="overlayd-bench-"))
    (root / "bin").mkdir()
    busybox = shutil.which("busybox")
    assert busybox is not None, "busybox-static is missing: scripts/setup installs it"
    shutil.copy(busybox, root / "bin/busybox")
    for program in programs:
        shutil.copy(program, root / "bin" / program.name)
    for applet in ("sh", "sleep"):
        (root / "bin" / applet).symlink_to("busybox")
    for place in ("etc", "proc", "sys", "dev", "tmp", "run"):
        (root / place).mkdir()
    archive = root.with_suffix(".tar")
    subprocess.run(["tar", "-C", str(root), "-cf", str(archive), "."], check=True)
    shutil.rmtree(root)
    return archive


def _wait(condition: Callable[[], bool], host: HostProcess) -> None:
    deadline = time.monotonic() + _DOCKER_WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            tail = host_process.run(host, "tail", "-n", "5", "/run/dockerd.log").stdout
            raise RuntimeError(f"dockerd on {host.name} did not come up: {tail}")
        time.sleep(0.2)
