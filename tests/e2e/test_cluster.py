"""Three hosts and one network, tested with real packets."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
from overlay.lab.host_process import enter_command, environment

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e
IPS = {1: "c1", 2: "c2", 3: "c3"}


def ip_of(cluster: Cluster, name: str) -> str:
    """Return the address of an endpoint, as vm1 sees it."""
    endpoints = cluster.json(1, "endpoint", "ls")["endpoints"]
    (found,) = [endpoint["ips"][0] for endpoint in endpoints if endpoint["name"] == name]
    return str(found)


class Capture:
    """tcpdump on a host's underlay while a block runs; `text` is its output."""

    def __init__(self, cluster: Cluster, number: int, expression: str) -> None:
        target = str(cluster.hosts[number - 1].pid)
        # Not into the host's processes: the signal that ends it must reach tcpdump itself.
        command = ["nsenter", "--target", target, "--net", "tcpdump", "-Z", "root"]
        self._output = tempfile.NamedTemporaryFile("w")  # noqa: SIM115 - closed in __exit__
        self._whole = ""
        self._process = subprocess.Popen(
            [*command, "--immediate-mode", "-l", "-n", "-e", "-i", "eth1", expression],
            stdout=self._output, stderr=subprocess.PIPE, text=True, env=environment(),
        )  # fmt: skip

    @property
    def text(self) -> str:
        """Return its output so far, in the order of the packets."""
        return self._whole or Path(self._output.name).read_text(encoding="utf-8")

    def __enter__(self) -> Self:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if "listening on" in line:
                return self
        raise AssertionError("tcpdump did not start")

    def __exit__(self, *_details: object) -> None:
        self._process.terminate()
        self._process.communicate(timeout=60)
        self._whole = self.text
        self._output.close()


def test_nothing_is_repaired_that_nobody_changed(cluster: Cluster) -> None:
    """An agent's own changes, of which the kernel tells as of others', are not taken for theirs."""
    repairs = [each for number in (1, 2, 3) for each in cluster.events(number)]
    assert [each for each in repairs if each["kind"] == "repaired"] == []


def test_members_show_the_held_part_of_every_log(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """Once quiet, each node holds every log of the others completely."""

    def logs(number: int) -> dict[str, Any]:
        members = cluster.json(number, "members")["members"]
        return {member["name"]: member["logs"] for member in members}

    def all_equal() -> bool:
        seen = [logs(number) for number in (1, 2, 3)]
        own = [seen[index][f"vm{index + 1}"]["versions"] for index in range(3)]
        return all(
            view[f"vm{index + 1}"]["versions"] == own[index] for view in seen for index in range(3)
        )

    eventually(all_equal, "the same versions everywhere")
    shown = logs(1)["vm2"]
    assert {log["scope"] for log in shown["versions"]} == {"cluster", "blue"}
    assert all(log["held"] == log["origin"] > 0 for log in shown["versions"])
    eventually(lambda: (logs(1)["vm2"]["equal_s"] or 99) < 5, "digests compared")


KILL = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"
SCRAPE = """import socket
s = socket.socket(socket.AF_UNIX)
s.connect("/run/overlayd/api.sock")
s.sendall(b"GET /metrics HTTP/1.0\\r\\n\\r\\n")
while data := s.recv(65536):
    print(data.decode(), end="")
"""


ALIVE = 'overlayd_members{state="alive"} 3'


def test_metrics_are_served_on_the_socket(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """/metrics serves the output of `overlayd metrics`, with Prometheus' content type."""
    eventually(lambda: ALIVE in cluster.ok(1, "overlayd", "metrics"), "all alive")
    _, told, _ = cluster.run(1, "overlayd", "metrics")
    _, shown, _ = cluster.run(1, "python3", "-c", SCRAPE)
    assert "text/plain; version=0.0.4" in shown
    for text in (told, shown):
        assert ALIVE in text
        assert 'overlayd_cluster_endpoints{network="blue"} 3' in text


def test_metrics_follow_the_traffic(cluster: Cluster, eventually: Callable[..., None]) -> None:
    """Bytes of a container, its network and its tunnel grow by what it sends; paths are up."""

    def counted(name: str) -> int:
        shown = cluster.ok(1, "overlayd", "metrics")
        pattern = rf'^overlayd_{name}\{{network="blue"\}} (\d+)$'
        (found,) = re.findall(pattern, shown, re.MULTILINE)
        return int(found)

    def of_container() -> int:
        endpoints = cluster.json(1, "top", "--count", "1")["endpoints"]
        (found,) = [each["counters"] for each in endpoints if each["endpoint"] == "c1"]
        return int(found["transmit_bytes"])

    names = ("network_transmit_bytes_total", "tunnel_transmit_bytes_total")
    before = [counted(name) for name in names]
    sent = of_container()
    address = cluster.json(2, "endpoint", "ls", "--network", "blue")["endpoints"]
    ((other,),) = [each["ips"] for each in address if each["name"] == "c2"]
    code, out, err = cluster.inside(1, "c1", "ping", "-c5", "-i0.05", "-s1000", other)
    assert code == 0, out + err
    for name, value in zip(names, before, strict=True):
        eventually(lambda name=name, value=value: counted(name) >= value + 5000, name)
    eventually(lambda: of_container() >= sent + 5000, "the container's own counter")
    for peer in ("vm2", "vm3"):
        up = f'overlayd_path_up{{peer="{peer}"}} 1'
        eventually(lambda up=up: up in cluster.ok(1, "overlayd", "metrics"), up)
    shown = cluster.ok(1, "overlayd", "metrics")
    for peer in ("vm2", "vm3"):
        assert f'overlayd_path_probes_total{{peer="{peer}"}}' in shown
    assert 'overlayd_attach_duration_seconds_bucket{le="+Inf"} 1' in shown


def test_metrics_are_served_on_tcp_if_asked(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """`metrics_listen` opens a port that has two pages; without it there is none."""
    setting = "metrics_listen = '127.0.0.1:9469'"
    cluster.ok(2, "bash", "-c", f'echo "{setting}" >/run/metrics.toml')
    cluster.ok(2, "bash", "-c", KILL)
    cluster.ok(2, "overlayd", "--config", "/run/metrics.toml", "join")
    try:
        page = ("curl", "-sS", "http://127.0.0.1:9469/metrics")
        eventually(lambda: ALIVE in cluster.ok(2, *page), "all alive, by TCP")
        health = json.loads(cluster.ok(2, "curl", "-sS", "http://127.0.0.1:9469/healthz"))
        assert health["status"] in ("ok", "degraded")
        assert "only /healthz and /metrics" in cluster.ok(
            2, "curl", "-sS", "http://127.0.0.1:9469/v1/status"
        )
    finally:
        cluster.ok(2, "bash", "-c", KILL)
        cluster.ok(2, "overlayd", "join")
    assert cluster.run(2, "curl", "-sS", "http://127.0.0.1:9469/metrics")[0] == 7


def test_the_page_shows_the_cluster(cluster: Cluster, eventually: Callable[..., None]) -> None:
    """To root, with live paths; another user of the host is refused."""
    cluster.ok(
        1, "bash", "-c", "overlayd web >/run/web.log 2>&1 </dev/null & echo $! >/run/web.pid"
    )
    curl = ("curl", "-sS", "--retry", "60", "--retry-connrefused", "--retry-delay", "1")
    state = ("http://127.0.0.1:7950/state",)

    def kinds() -> list[str]:
        items = json.loads(cluster.ok(1, *curl, *state))["items"]
        assert {"host/vm1", "network/blue"} <= set(items)
        return [items[f"host/{name}"]["path"]["kind"] for name in ("vm2", "vm3")]

    try:
        eventually(lambda: kinds() == ["ok", "ok"], "the page shows both paths as ok")
        other = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
        assert "you may not see this page" in cluster.ok(1, *other, *curl, *state)
        said = "serving the page on http://127.0.0.1:7950/"
        eventually(lambda: said in cluster.ok(1, "cat", "/run/web.log"), "it says where")
    finally:
        cluster.ok(1, "bash", "-c", "kill $(cat /run/web.pid)")


def test_members_can_be_watched(cluster: Cluster) -> None:
    """--watch refreshes the table every second and exits cleanly on Ctrl-C."""
    # A shell without job control starts what it has in the background with Ctrl-C ignored.
    words = ["env", "--default-signal=INT", "overlayd", "members", "--watch"]
    command = enter_command(cluster.hosts[0], words)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env=environment()
    ) as watching:
        assert watching.stdout is not None
        tables = 0
        while tables < 2:
            line = watching.stdout.readline()
            assert line, "it ended by itself"
            tables += "NODE " in line
        cluster.ok(1, "pkill", "-INT", "-f", "[m]embers --watch")
        _, err = watching.communicate(timeout=30)

    assert (watching.returncode, err) == (0, "")


@pytest.mark.parametrize("source", [1, 2, 3])
def test_containers_reach_each_other(cluster: Cluster, source: int) -> None:
    """From each host's container, every other one answers the first ping."""
    for target, name in IPS.items():
        if target != source:
            code, out, err = cluster.inside(
                source, f"c{source}", "ping", "-c1", "-W5", ip_of(cluster, name)
            )
            assert code == 0, out + err


def test_containers_have_names(cluster: Cluster) -> None:
    """A container on another host is reachable by its name."""
    assert cluster.inside(1, "c1", "ping", "-c1", "-W5", "c3")[0] == 0
    assert cluster.inside(3, "c3", "ping", "-c1", "-W5", "c2.blue.overlay")[0] == 0


def test_frames_between_hosts_are_vxlan(cluster: Cluster, eventually: Callable[..., None]) -> None:
    """On the underlay a ping is UDP to port 4789 with the network's VNI."""
    vni = cluster.json(1, "network", "inspect", "blue")["vni"]
    target = ip_of(cluster, "c2")
    with Capture(cluster, 1, "udp port 4789") as capture:
        assert cluster.inside(1, "c1", "ping", "-c1", "-W5", target)[0] == 0
        eventually(lambda: "ICMP echo reply" in capture.text, "both ways")

    assert f"vni {vni}" in capture.text
    assert re.search(r"192\.168\.56\.11\.\d+ > 192\.168\.56\.12\.4789: VXLAN", capture.text)


def test_the_first_ping_after_attach_is_answered(cluster: Cluster) -> None:
    """When attach returns on vm1, a single ping from vm3 is answered."""
    for number in range(10):
        ip = cluster.attach(1, f"first{number}")
        code, out, _ = cluster.inside(3, "c3", "ping", "-c1", "-W5", ip)
        assert code == 0, out


def test_arp_for_a_remote_container_is_answered_locally(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """No ARP request for a known container crosses the underlay."""
    ip = cluster.attach(2, "quiet")
    with Capture(cluster, 1, "udp port 4789") as capture:
        assert cluster.inside(1, "c1", "ping", "-c1", "-W5", ip)[0] == 0
        eventually(lambda: "ICMP echo reply" in capture.text, "the ping, and what was before it")

    assert "ICMP echo request" in capture.text
    assert f"who-has {ip}" not in capture.text


def test_broadcast_reaches_all_hosts(cluster: Cluster) -> None:
    """The containers on the other hosts receive one broadcast ping."""
    for number in (2, 3):
        cluster.ok(
            number, "ip", "netns", "exec", f"c{number}",
            "sysctl", "-qw", "net.ipv4.icmp_echo_ignore_broadcasts=0",
        )  # fmt: skip
    _, out, _ = cluster.inside(1, "c1", "ping", "-b", "-c2", "-W1", "10.32.255.255")

    answered = set(re.findall(r"from (\d+\.\d+\.\d+\.\d+)", out))
    assert {ip_of(cluster, "c2"), ip_of(cluster, "c3")} <= answered


def red_events(cluster: Cluster) -> set[str]:
    """Return what vm1, which is not on network red, has recorded of it."""
    events = [each for each in cluster.events(1) if each["kind"] == "network"]
    return {each["text"].partition(":")[0] for each in events if each["network"] == "red"}


def test_two_networks_do_not_see_each_other(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """A container on another network receives nothing, even with a neighboring address."""
    cluster.ok(2, "overlayd", "network", "create", "red", "--subnet", "10.77.0.0/16")
    ip = cluster.attach(2, "reddish", network="red")
    cluster.attach(3, "reddish3", network="red")

    assert cluster.inside(1, "c1", "ping", "-c1", "-W1", ip)[0] != 0
    assert cluster.inside(3, "reddish3", "ping", "-c1", "-W5", ip)[0] == 0
    eventually(lambda: "created" in red_events(cluster), "an event of the network on vm1")
    for number, name in ((2, "reddish"), (3, "reddish3")):
        cluster.ok(number, "overlayd", "detach", name)
    cluster.ok(1, "overlayd", "network", "rm", "red")
    eventually(lambda: "removed" in red_events(cluster), "an event of its end")


def test_after_detach_its_rows_are_gone_everywhere(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """No FDB, bridge or neighbor row of a detached container is left on any host."""
    ip = cluster.attach(2, "leaver")
    endpoints = cluster.json(1, "endpoint", "ls")["endpoints"]
    (mac,) = [endpoint["mac"] for endpoint in endpoints if endpoint["name"] == "leaver"]
    for number in (1, 3):
        assert mac in cluster.ok(
            number, "ip", "netns", "exec", cluster.sandbox(number), "bridge", "fdb"
        )

    cluster.ok(2, "overlayd", "detach", "leaver")

    def gone() -> bool:
        shown = "".join(
            cluster.ok(number, "ip", "netns", "exec", cluster.sandbox(number), *words)
            for number in (1, 2, 3)
            for words in (("bridge", "fdb"), ("ip", "neigh"))
        )
        return mac not in shown and f"{ip} " not in shown

    eventually(gone, "rows of a detached container")


def test_the_kernel_is_exactly_as_desired(cluster: Cluster) -> None:
    """`verify` finds no difference on any host."""
    for number in (1, 2, 3):
        assert cluster.differences(number) == []


def test_attaching_again_gives_the_same_address(cluster: Cluster) -> None:
    """Attach is idempotent, and its stdout is only the address."""
    ip = cluster.attach(1, "again")
    out = cluster.ok(1, "overlayd", "attach", "netns:again", "--network", "blue")

    assert out == f"{ip}\n"


def test_a_given_address_of_another_hosts_space_is_granted(cluster: Cluster) -> None:
    """`--ip` works for any free address of the subnet, whichever host owns it."""
    assert cluster.attach(3, "fixed", "--ip", "10.32.77.7") == "10.32.77.7"
    code, _, _ = cluster.inside(1, "c1", "ping", "-c1", "-W5", "10.32.77.7")

    assert code == 0


def test_a_restarted_agent_adopts_the_existing_state(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """Killing an agent loses no ping, and the next start needs no operation."""
    pinging = subprocess.Popen(
        enter_command(
            cluster.hosts[0],
            ["bash", "-c", f"ip netns exec c1 ping -i 0.01 -c 300 -q {ip_of(cluster, 'c2')}"],
        ),
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    for number in (1, 2):
        cluster.ok(number, "bash", "-c", "kill -9 $(pgrep -f '[o]verlay.cli.main agent')")
        cluster.ok(number, "overlayd", "join")
    out, _ = pinging.communicate(timeout=30)

    assert " 0% packet loss" in out, out
    eventually(
        lambda: cluster.json(1, "status")["cluster"]["members"]["alive"] == 3, "all alive again"
    )
    assert cluster.differences(1) == []


def test_a_container_that_ends_is_withdrawn_everywhere(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """The endpoint of a namespace that disappears is withdrawn on all hosts."""
    cluster.attach(2, "mortal")
    cluster.ok(2, "ip", "netns", "del", "mortal")

    def gone() -> bool:
        names = [e["name"] for e in cluster.json(1, "endpoint", "ls")["endpoints"]]
        return "mortal" not in names

    eventually(gone, "the endpoint of a vanished namespace")


def test_deleted_rows_are_restored(cluster: Cluster, eventually: Callable[..., None]) -> None:
    """Rows that somebody deletes are restored upon the kernel's notification."""
    sandbox = cluster.sandbox(1)
    before = cluster.differences(1)
    cluster.ok(1, "ip", "netns", "exec", sandbox, "bridge", "fdb", "flush", "dev", "vxlan0")

    eventually(lambda: cluster.json(1, "verify")["differences"] == before == [], "repair")


def test_leave_withdraws_and_reset_leaves_nothing(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """Leaving withdraws all endpoints; reset removes every interface, namespace, rule and file."""
    cluster.ok(3, "overlayd", "leave")
    assert json.loads(cluster.ok(3, "overlayd", "leave", "--json"))["left"] is False

    def on_vm3() -> list[str]:
        endpoints = cluster.json(1, "endpoint", "ls")["endpoints"]
        return [each["name"] for each in endpoints if each["node"] == "vm3"]

    eventually(lambda: on_vm3() == [], "its endpoints are withdrawn")
    eventually(lambda: cluster.json(1, "status")["cluster"]["members"]["left"] == 1, "vm3 left")

    cluster.ok(3, "overlayd", "reset", "--yes")

    left = cluster.ok(3, "ls", "/run/netns").split()
    assert [name for name in left if name == "c3" or name.startswith("ov-")] == []
    links = re.findall(r"^\d+: ([^:@]+)", cluster.ok(3, "ip", "link"), re.MULTILINE)
    assert sorted(links) == ["eth1", "lo"]
    assert "overlayd" not in cluster.ok(3, "nft", "list", "tables")
    for path in ("/var/lib/overlayd", "/run/overlayd", "/etc/netns", "/run/docker/plugins"):
        assert cluster.run(3, "test", "-e", path)[0] != 0, path


def test_a_host_that_was_reset_can_join_again(cluster: Cluster) -> None:
    """After a reset, the host joins and attaches like any new host."""
    token = cluster.ok(1, "overlayd", "token", "show")
    code, _, err = cluster.run(
        3, "overlayd", "join", "192.168.56.12", "--token-file", "-", stdin=token
    )
    assert code == 0, err

    ip = cluster.attach(3, "fresh")

    assert cluster.inside(1, "c1", "ping", "-c1", "-W5", ip)[0] == 0
