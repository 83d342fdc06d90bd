"""Containers that Podman and containerd attach by CNI, with their own commands alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.e2e.cri import Cri
from tests.e2e.docker_engine import SERVE
from tests.e2e.typed import lines, type_line

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.docker]
PODMAN = [
    "env",
    "CONTAINERS_CONF=/run/containers.conf",
    "podman",
    "--cgroup-manager=cgroupfs",
    "--runtime",
    "runc",
]
LIMITS = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--cap-add", "net_raw"]
CTR = ["ctr", "-a", "/run/ctd/containerd.sock"]
SLEEP = ("lab:1", "/bin/sleep", "1000")
CONTAINERD = """
mkdir -p /run/ctd
printf 'version = 2\\nroot = "/run/ctd/root"\\nstate = "/run/ctd/state"\\n' > /run/ctd/config.toml
printf '[grpc]\\naddress = "/run/ctd/containerd.sock"\\n' >> /run/ctd/config.toml
cat >> /run/ctd/config.toml <<'X'
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/pause:1"
disable_apparmor = true
restrict_oom_score_adj = true
containerd.snapshotter = "native"
cni.bin_dir = "/opt/cni/bin"
X
setsid containerd -c /run/ctd/config.toml >/run/ctd/log 2>&1 </dev/null &
"""
PLUGIN = "/opt/cni/bin/overlayd"
KILL_AGENT = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"


def podman(cluster: Cluster, *words: str) -> str:
    """Run Podman on vm1; it must succeed."""
    return cluster.ok(1, *PODMAN, *words)


@pytest.fixture(scope="module")
def runtimes(cluster: Cluster, image: Path, eventually: Callable[..., None]) -> Cluster:
    """Podman on vm1 and containerd on vm2, both with the image and the network blue."""
    backend = "printf '[network]\\nnetwork_backend = \"cni\"\\n' > /run/containers.conf"
    # Podman's overlay driver cannot be on the lab's copy-on-write /var/lib.
    store = "mkdir -p /var/lib/containers && mount -t tmpfs lab /var/lib/containers"
    cluster.ok(1, "bash", "-c", f"{backend}; {store}")
    podman(cluster, "import", str(image), "lab:1")
    archive = str(image.with_name("docker.tar"))
    busybox = "docker.io/library/busybox:latest"
    podman(cluster, "tag", "lab:1", busybox)
    podman(cluster, "save", "--format", "docker-archive", "-o", archive, "lab:1", busybox)
    command = ("--change", 'CMD ["/bin/sleep", "1000"]')
    podman(cluster, "import", *command, str(image), "localhost/pause:1")
    pause = str(image.with_name("pause.tar"))
    podman(cluster, "save", "--format", "docker-archive", "-o", pause, "localhost/pause:1")
    cluster.ok(2, "bash", "-c", CONTAINERD)
    eventually(lambda: cluster.run(2, *CTR, "version")[0] == 0, "containerd", 60.0)
    cluster.ok(2, *CTR, "image", "import", "--snapshotter", "native", archive)
    cluster.ok(2, *CTR, "-n", "k8s.io", "image", "import", "--snapshotter", "native", pause)
    for number in (1, 2):
        cluster.ok(number, "overlayd", "cni", "install", "blue")
    cluster.ok(2, "ln", "-sf", "/usr/lib/cni/loopback", "/opt/cni/bin/")  # for the CRI
    return cluster


def endpoints(cluster: Cluster, number: int) -> dict[str, dict[str, Any]]:
    """Return the runtimes' endpoints as a host knows them, by name."""
    found = cluster.json(number, "endpoint", "ls", "--network", "blue")["endpoints"]
    return {each["name"]: each for each in found if each["name"] not in ("c1", "c2", "c3")}


def plugin(cluster: Cluster, command: str, fields: dict[str, Any], **variables: str) -> Any:
    """Call the plugin on vm1 as a runtime does; return what it writes."""
    environ = {"CNI_COMMAND": command} | {f"CNI_{key}": text for key, text in variables.items()}
    config = {"cniVersion": "1.1.0", "name": "blue", "type": "overlayd"} | fields
    words = [f"{key}={text}" for key, text in environ.items()]
    _, out, _ = cluster.run(1, "env", "-i", *words, PLUGIN, stdin=json.dumps(config))
    return json.loads(out) if out else None


def test_the_lines_of_the_guides_work(
    runtimes: Cluster, image: Path, eventually: Callable[..., None]
) -> None:
    """A container that Podman runs has its port, and is pinged from one of containerd's."""
    podman(runtimes, "import", *SERVE, str(image), "docker.io/library/nginx:latest")
    *_, ping = guide = lines("docs/guide/cni.md", "On two hosts")
    for line in guide[:-1]:
        type_line(runtimes, line)
    assert " 0% packet loss" in type_line(runtimes, ping)
    assert runtimes.ok(3, "curl", "-s", "-m", "5", "http://192.168.56.11:8080/") == "served\n"

    podman(runtimes, "rm", "-f", "-t", "0", "web")
    for line in lines("docs/guide/podman.md", "CNI: Podman 4.3 of Debian 12"):
        type_line(runtimes, line)
    assert runtimes.inside(3, "c3", "ping", "-c", "1", "-W", "5", "web")[0] == 0
    podman(runtimes, "rm", "-f", "-t", "0", "web")
    eventually(lambda: all(endpoints(runtimes, n) == {} for n in (1, 2, 3)), "nothing is left")


def test_containers_of_two_runtimes_reach_each_other(
    runtimes: Cluster, eventually: Callable[..., None]
) -> None:
    """By name and address, after nothing but their runtimes' commands; and rm leaves nothing."""
    options = ("--network", "blue:ip=10.32.5.5,mac=02:42:00:00:00:77,alias=www", "-p", "8080:80")
    podman(runtimes, "run", "-d", "--name", "web", *LIMITS, *options, *SLEEP)
    ctr = ("run", "-d", "--snapshotter", "native", "--cni", "localhost/lab:1", "t1")
    runtimes.ok(2, *CTR, *ctr, "/bin/sleep", "1000")
    seen = endpoints(runtimes, 3)
    assert seen["web"]["ips"] == ["10.32.5.5"]
    assert seen["web"]["mac"] == "02:42:00:00:00:77"

    ping = ("ping", "-c", "1", "-W", "5")
    podman(runtimes, "exec", "web", *ping, "default-t1")
    inside = ("task", "exec", "--exec-id", "ping", "t1")
    runtimes.ok(2, *CTR, *inside, *ping, "10.32.5.5")
    assert runtimes.inside(3, "c3", *ping, "www")[0] == 0
    (port,) = runtimes.json(1, "publish", "ls")["published"]
    assert (port["host_port"], port["ips"]) == (8080, ["10.32.5.5"])
    assert [runtimes.differences(n) for n in (1, 2)] == [[], []]

    podman(runtimes, "network", "disconnect", "blue", "web")
    assert "web" not in endpoints(runtimes, 1)
    podman(runtimes, "network", "connect", "blue", "web")  # Podman keeps a socket on port 8080
    podman(runtimes, "restart", "-t", "0", "web")
    assert endpoints(runtimes, 3)["web"]["ips"] == ["10.32.5.5"]
    podman(runtimes, "exec", "web", *ping, "c3")
    podman(runtimes, "rm", "-f", "-t", "0", "web")
    runtimes.ok(2, *CTR, "task", "kill", "-s", "9", "t1")
    eventually(lambda: all(endpoints(runtimes, n) == {} for n in (1, 2, 3)), "nothing is left")
    assert runtimes.json(1, "publish", "ls")["published"] == []
    assert runtimes.ok(1, "bash", "-c", "ls /var/lib/cni/results") == ""


def test_a_pod_is_attached_as_for_a_kubelet(
    runtimes: Cluster, eventually: Callable[..., None]
) -> None:
    """Name, address and port by containerd's CRI, and the end that is reported twice."""
    cri = Cri(runtimes, 2)
    pod = cri.run("pod1", host_port=8081, container_port=80)

    ip = cri.ip(pod)
    assert endpoints(runtimes, 3)["pod1"]["ips"] == [ip]
    assert runtimes.inside(3, "c3", "ping", "-c", "1", "-W", "5", "pod1")[0] == 0
    inside = ("-n", "k8s.io", "task", "exec", "--exec-id", "ping", pod)
    runtimes.ok(2, *CTR, *inside, "/bin/ping", "-c", "1", "-W", "5", "c3.blue.overlay")
    (port,) = runtimes.json(2, "publish", "ls")["published"]
    assert (port["host_port"], port["ips"]) == (8081, [ip])
    cri.end(pod)
    eventually(lambda: all(endpoints(runtimes, n) == {} for n in (1, 2, 3)), "nothing is left")
    assert runtimes.json(2, "publish", "ls")["published"] == []


def test_a_container_is_on_two_networks(runtimes: Cluster) -> None:
    """Its ports, which Podman asks for on both, are published once."""
    runtimes.ok(1, "overlayd", "network", "create", "green", "--subnet", "10.40.0.0/16")
    runtimes.ok(1, "overlayd", "cni", "install", "green")
    networks = ("--network", "blue", "--network", "green", "-p", "8080-8081:80-81")
    podman(runtimes, "run", "-d", "--name", "both", *LIMITS, *networks, *SLEEP)

    found = runtimes.json(1, "endpoint", "ls")["endpoints"]
    assert sorted(each["network"] for each in found if each["name"] == "both") == ["blue", "green"]
    assert len(runtimes.json(1, "publish", "ls")["published"]) == 2
    podman(runtimes, "rm", "-f", "-t", "0", "both")
    assert runtimes.json(1, "publish", "ls")["published"] == []
    runtimes.ok(1, "overlayd", "cni", "uninstall", "green")


def test_the_runtime_prints_what_to_do(runtimes: Cluster) -> None:
    """Podman's own error has the cause, and no half-made container stays."""
    run = ("run", "--name", "late", *LIMITS, "--network", "blue:ip=10.32.0.1")
    code, _, err = runtimes.run(1, *PODMAN, *run, *SLEEP)

    assert code != 0
    assert "10.32.0.1 cannot be given to a container: it is the subnet's gateway" in err
    podman(runtimes, "rm", "late")
    assert endpoints(runtimes, 1) == {}


def test_chained_plugins_get_the_result(runtimes: Cluster) -> None:
    """Debian's tuning, firewall and portmap behind overlayd, and CHECK, DEL and GC of all."""
    conflist = json.loads(runtimes.ok(1, "cat", "/etc/cni/net.d/10-overlayd-blue.conflist"))
    conflist["name"] = "chain"
    del conflist["plugins"][0]["capabilities"]["portMappings"]
    conflist["plugins"] += [
        {"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.arp_notify": "1"}},
        {"type": "firewall"},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    write = "cat > /etc/cni/net.d/20-chain.conflist"
    code, _, err = runtimes.run(1, "bash", "-c", write, stdin=json.dumps(conflist))
    assert code == 0, err
    run = ("run", "-d", "--name", "chained", *LIMITS, "--network", "chain", "-p", "8088:80")
    podman(runtimes, *run, *SLEEP)

    ping = ("ping", "-c", "1", "-W", "5", "chained")
    assert runtimes.inside(3, "c3", *ping)[0] == 0
    podman(runtimes, "rm", "-f", "-t", "0", "chained")
    assert endpoints(runtimes, 1) == {}
    runtimes.ok(1, "rm", "/etc/cni/net.d/20-chain.conflist")


def test_parallel_adds_check_and_gc(runtimes: Cluster, eventually: Callable[..., None]) -> None:
    """Ten at once have ten addresses; CHECK agrees, and GC leaves the valid one."""
    ids = [f"k{number}" for number in range(10)]
    for each in ids:
        runtimes.ok(1, "ip", "netns", "add", each)
    config = json.dumps({"cniVersion": "1.1.0", "name": "blue", "type": "overlayd"})
    add = (
        f"for id in {' '.join(ids)}; do CNI_COMMAND=ADD CNI_CONTAINERID=$id CNI_IFNAME=eth0"
        f" CNI_NETNS=/run/netns/$id {PLUGIN} <<< '{config}' > /run/$id.json & done; wait"
    )
    runtimes.ok(1, "bash", "-c", add)
    results = {each: json.loads(runtimes.ok(1, "cat", f"/run/{each}.json")) for each in ids}
    assert len({result["ips"][0]["address"] for result in results.values()}) == 10

    key = {"IFNAME": "eth0", "NETNS": "/run/netns/k0", "CONTAINERID": "k0"}
    fields = {"prevResult": results["k0"]}
    assert plugin(runtimes, "CHECK", fields, **key) is None

    def misses_the_address() -> bool:
        """Flush it and check; the agent may have repaired it meanwhile."""
        runtimes.inside(1, "k0", "ip", "addr", "flush", "dev", "eth0")
        found = plugin(runtimes, "CHECK", fields, **key)
        return found is not None and found["code"] == 101

    eventually(misses_the_address, "CHECK misses the address")
    assert plugin(runtimes, "ADD", {}, **key)["code"] == 100

    valid = {"cni.dev/valid-attachments": [{"containerID": "k9", "ifname": "eth0"}]}
    assert plugin(runtimes, "GC", valid) is None
    assert set(endpoints(runtimes, 1)) == {"k9"}
    runtimes.ok(1, "ip", "netns", "del", "k9")
    assert plugin(runtimes, "DEL", {}, CONTAINERID="k9", IFNAME="eth0") is None
    assert plugin(runtimes, "STATUS", {}) is None


def test_a_port_has_the_options_of_the_configuration(runtimes: Cluster) -> None:
    """Or those of one container; what the kernel then has is as planned."""
    runtimes.ok(1, "ip", "netns", "add", "apart")
    key = {"CONTAINERID": "apart", "NETNS": "/run/netns/apart", "IFNAME": "eth0"}
    own = {"args": {"cni": {"priority": 7}}}
    options = {"vlan": "10,20-30", "isolated": True, "priority": "1", "storm": 200}
    added = plugin(runtimes, "ADD", options | own | {"allowNonIP": "llc"}, **key)
    assert "code" not in added, added
    found = endpoints(runtimes, 1)["apart"]
    shown = [found[name] for name in ("vlan", "isolated", "priority", "storm", "allow_non_ip")]
    assert shown == ["10,20-30", True, "7", 200, "llc"]
    assert runtimes.differences(1) == []
    assert plugin(runtimes, "DEL", {}, CONTAINERID="apart", IFNAME="eth0") is None
    runtimes.ok(1, "ip", "netns", "del", "apart")
    refused = plugin(runtimes, "ADD", {"priority": "8"}, **key | {"NETNS": "/run/netns/c1"})
    assert "is not a priority" in refused["msg"]


def test_without_an_agent_nothing_is_forgotten(
    runtimes: Cluster, eventually: Callable[..., None]
) -> None:
    """ADD and STATUS say so; what was removed meanwhile is withdrawn at the agent's start."""
    podman(runtimes, "run", "-d", "--name", "web", *LIMITS, "--network", "blue", "-p", "8080:80",
           *SLEEP)  # fmt: skip
    runtimes.ok(1, "bash", "-c", KILL_AGENT)
    key = {"CONTAINERID": "k1", "IFNAME": "eth0", "NETNS": "/run/netns/c1"}
    assert plugin(runtimes, "ADD", {}, **key)["code"] == 11
    assert plugin(runtimes, "STATUS", {})["code"] == 50
    assert runtimes.inside(1, "c1", "ping", "-c", "1", "-W", "5", "10.32.0.1")[0] == 0
    runtimes.run(1, *PODMAN, "rm", "-f", "-t", "0", "web")
    runtimes.ok(1, "overlayd", "join")

    eventually(lambda: all(endpoints(runtimes, n) == {} for n in (1, 2, 3)), "withdrawn")
    eventually(lambda: runtimes.json(1, "publish", "ls")["published"] == [], "its port, too")


def test_reset_removes_only_what_is_overlayds(runtimes: Cluster) -> None:
    """Launcher and conflist go, and Podman's own network stays."""
    before = runtimes.ok(1, "ls", "/etc/cni/net.d").split()
    runtimes.ok(1, "overlayd", "reset", "--yes")

    after = runtimes.ok(1, "ls", "/etc/cni/net.d").split()
    assert set(before) - set(after) == {"10-overlayd-blue.conflist"}
    assert runtimes.run(1, "test", "-e", PLUGIN)[0] != 0
