"""Upgrade from an earlier version, one host at a time: no packet is lost.

The earlier version speaks protocol 1, so the two do not talk to each other meanwhile.

The earlier package is built from the repository's history, with the present package's libraries.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from overlay.kernel.bpf.hooks.tcx import has_tcx
from overlay.lab import host_process, lab
from overlay.lab.driver import AgentDriver, wait_until
from tests.e2e.packages import OVERLAYD, PREPARE, agent_pid, dpkg, stop_agent, version_of
from tests.e2e.ping_log import lost_pings
from tests.e2e.world import netns, seen_as, serve

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.netns, pytest.mark.e2e]
ROOT = Path(__file__).parent.parent.parent
EARLIER = "6b0f32443963449201650a8001a0556e8e3baa5e"
EARLIER_VERSION = f"0.1.0-0~{EARLIER[:7]}"  # ~: lower than every version of that number
HOSTS = (1, 2, 3)
PINGS_PER_S = 500
JOINING = 4  # joins and leaves while both versions are in the cluster
SETTLE_S = 60.0  # a loaded machine; dropping an old key takes 10 s
KEPT = {
    "networks": ("name", "vni", "subnets", "driver", "labels"),
    "endpoints": ("network", "name", "mac", "ips", "host"),
    "published": ("protocol", "host_port", "name", "network", "port"),
    "tokens": ("id", "label", "expires", "uses_max"),
}
READ_STATE = """
import json, sqlite3
state = sqlite3.connect("file:/var/lib/overlayd/state.db?mode=ro", uri=True)
rows = state.execute("SELECT kind, key, json FROM value")
print(json.dumps({f"{kind} {key}": json.loads(text) for kind, key, text in rows}))
"""
IMPORTED_FROM = "import overlay; print(overlay.__file__)"
DIFFERING_FILES = """
dpkg --verify overlayd
dpkg -L overlayd | sort > /run/packaged
find /opt/overlayd | sort | comm -23 - /run/packaged
"""
# What a reboot takes away. The agent's own files under /run go with it.
REBOOT = """
for name in $(ls /run/netns); do ip netns del $name; done
for table in $(nft list tables | grep -o 'overlayd[^ ]*'); do nft delete table inet $table; done
rm -rf /run/overlayd
"""


@pytest.fixture(scope="module")
def earlier(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the package that the earlier commit's own script builds."""
    tree = tmp_path_factory.mktemp("earlier")
    archive = tree / "tree.tar"
    git = subprocess.run(
        ["git", "archive", "--output", archive, EARLIER],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    if git.returncode:
        pytest.fail(
            f"cannot read commit {EARLIER[:7]}, the version to upgrade from: {git.stderr.strip()}\n"
            "This test needs the repository with its history: git fetch --unshallow"
        )
    subprocess.run(["tar", "-x", "-f", archive, "-C", tree], check=True, timeout=60)
    # The libraries were fetched when today's package was built; there may be no network here.
    # That script looks for them under a name made from its arguments: the tree, `.`.
    name = hashlib.sha256(b".\n").hexdigest()[:8]
    for wheels in package.parent.glob("wheels-*"):
        minor = wheels.name.split("-")[1]
        mine = tree / "build" / f"wheels-{minor}-{name}"
        shutil.copytree(wheels, mine, dirs_exist_ok=True)
        (mine / "complete").touch()  # newer than the tree's files
    chosen = {
        "DEB_VERSION": EARLIER_VERSION,
        "DPKG_DEB_COMPRESSOR_TYPE": "none",
        "TOOLS": sys.executable,
    }
    built = subprocess.run(
        [tree / "deploy/deb/build.sh"],
        env=os.environ | chosen, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    return tree / built.stdout.strip()


@pytest.fixture(scope="module")
def cluster(new_cluster: type[Cluster], earlier: Path) -> Iterator[Cluster]:
    """Return three joined hosts with the earlier version, and a fourth without any."""
    assert not host_process.running(), "a lab is up on this machine: overlayd lab down"
    with pytest.MonkeyPatch.context() as patch:
        # Each host must run its own package, not a tree that this variable names.
        patch.delenv("PYTHONPATH", raising=False)
        try:
            made = new_cluster(lab.make(JOINING))
            for number in (*HOSTS, JOINING):
                made.ok(number, "sh", "-c", PREPARE)
            for number in HOSTS:
                install(made, number, earlier)
            overlayd(made, 1, "join")
            for number in HOSTS[1:]:
                join(made, number, via=1)
            populate(made)
            yield made
        finally:
            host_process.end(host_process.running())


def populate(cluster: Cluster) -> None:
    """Store every kind of state, except what is kept of stopped Docker and Podman containers."""
    dual = ["--subnet", "10.40.0.0/24", "--subnet", "fd40::/64", "--label", "team=a"]
    lan = ["--driver", "macvlan", "--parent", "eth1", "--subnet", "192.168.7.0/24"]
    overlayd(cluster, 1, "network", "create", "blue", "--subnet", "10.32.0.0/16")
    overlayd(cluster, 1, "network", "create", "dual", *dual)
    overlayd(cluster, 1, "network", "create", "lan", *lan)
    for number in HOSTS:
        options = ["--alias", "app", "--label", f"tier={number}", "--dns", "192.0.2.1"]
        overlayd(cluster, number, "container", "add", f"c{number}", *on("blue"), *options)
        overlayd(cluster, number, "publish", f"c{number}", f"808{number}:80")
        printer = [f"printer{number}", f"10.32.99.{number}"]
        overlayd(cluster, number, "dns", "add", *printer, *on("blue"))
        serve(cluster, number, netns(f"c{number}"), "", 80)
    for number in (1, 3):
        overlayd(cluster, number, "network", "create", f"home{number}", "--driver", "bridge")
        overlayd(cluster, number, "container", "add", f"h{number}", *on(f"home{number}"))
    overlayd(cluster, 1, "container", "add", "m1", *on("lan"))
    for number in (2, 3):  # the present version would hold its records by itself
        overlayd(cluster, number, "container", "add", "gone", *on("lan"))
        overlayd(cluster, number, "container", "rm", "gone")
    overlayd(cluster, 1, "container", "add", "s1", *on("container:c1"))
    fixed = ["--ip", "10.40.0.70", "--rate", "50mbit", "--gateway-priority", "7"]
    overlayd(cluster, 1, "attach", "c1", *on("dual"), *fixed)
    overlayd(cluster, 2, "expose", "dual")
    overlayd(cluster, 3, "container", "add", "gone", *on("dual"))
    overlayd(cluster, 3, "container", "rm", "gone")
    overlayd(cluster, 1, "token", "create", "--label", "rack", "--expires", "24h", "--uses", "9")
    for name in ("vm2", "vm3"):  # as the present version would do by itself
        overlayd(cluster, 1, "promote", name)
    overlayd(cluster, 1, "key", "rotate")


def overlayd(cluster: Cluster, number: int, *words: str) -> str:
    """Run a host's installed command line, which must succeed; return its stdout."""
    return cluster.ok(number, OVERLAYD, *words)


def answer(cluster: Cluster, number: int, what: str) -> Any:
    """Return the API's answer for a path below /v1."""
    return AgentDriver(cluster.hosts[number - 1], number).get(f"/v1/{what}")


def on(*networks: str) -> list[str]:
    """Return the options that name networks."""
    return [word for network in networks for word in ("--network", network)]


def address_of(number: int) -> str:
    """Return a host's underlay address."""
    return f"192.168.56.{10 + number}"


def install(cluster: Cluster, number: int, package: Path) -> None:
    """Install a package on a host, or upgrade to it, and check that it left only its own files."""
    code, output = dpkg(cluster, number, "-i", str(package))
    assert code == 0, output
    assert cluster.ok(number, "sh", "-c", DIFFERING_FILES) == ""
    found = cluster.ok(number, "/opt/overlayd/bin/python", "-P", "-c", IMPORTED_FROM)
    assert found.startswith("/opt/overlayd/")


def join(cluster: Cluster, number: int, *, via: int) -> None:
    """Join a host to the cluster through an authority holder, with that host's token."""
    token = overlayd(cluster, via, "token", "show")
    joining = [OVERLAYD, "join", address_of(via), "--token-file", "-"]
    code, _, errors = cluster.run(number, *joining, stdin=token)
    assert code == 0, errors


def upgrade(cluster: Cluster, number: int, package: Path) -> None:
    """Install the present package and restart the agent, as systemd would."""
    before = agent_pid(cluster, number)
    install(cluster, number, package)
    assert EARLIER_VERSION not in version_of(cluster, number)
    # The earlier agent still runs; the command line of the present version must work with it.
    assert agent_pid(cluster, number) == before
    overlayd(cluster, number, "status")
    stop_agent(cluster, number)
    overlayd(cluster, number, "join")
    assert agent_pid(cluster, number) != before


@contextlib.contextmanager
def pings(cluster: Cluster, *flows: tuple[int, int]) -> Iterator[None]:
    """Ping between the containers c1 ... c3, 500 times a second, while the block runs.

    A flow names the two hosts. Every ping must be answered, exactly once.
    """
    ips = {each["name"]: each["ips"][0] for each in answer(cluster, 1, "endpoints")["endpoints"]
           if each["network"] == "blue"}  # fmt: skip
    running = {}
    for source, target in flows:
        log = f"/run/ping-c{target}.log"
        ping = f"ping -n -i {1 / PINGS_PER_S} -w 120 {ips[f'c{target}']} >{log} 2>&1 & echo $!"
        running[source, target] = cluster.ok(
            source, "sh", "-c", f"ip netns exec c{source} {ping}"
        ).strip()
    yield
    for (source, target), process in running.items():
        # On SIGINT ping writes its summary. It stays a zombie in a lab host, so wait for the text.
        log = f"/run/ping-c{target}.log"
        stop = f"kill -INT {process}; until grep -q 'packet loss' {log}; do sleep 0.01; done"
        cluster.ok(source, "timeout", "20", "sh", "-c", stop)
        require_no_loss(cluster.ok(source, "cat", log))


def require_no_loss(log: str) -> None:
    """Fail unless each ping was answered exactly once."""
    answered = re.findall(r"icmp_seq=(\d+) ttl", log)
    lost = lost_pings(log, under_way_max=PINGS_PER_S)
    print(f"{len(lost)} pings lost, {len(answered)} answered")  # noqa: T201 - shown with -s
    assert len(answered) > 500
    assert lost == [], f"{len(lost)} pings lost, {len(answered)} answered: {lost[:20]}"
    assert len(answered) == len(set(answered))


def kept_lists(cluster: Cluster, number: int) -> dict[str, Any]:
    """Return what a host's lists contain whoever is heard at the moment."""
    found = {kind: answer(cluster, number, kind)[kind] for kind in KEPT}
    kept: dict[str, Any] = {
        kind: [{field: each[field] for field in fields if field in each} for each in found[kind]]
        for kind, fields in KEPT.items()
    }
    members = answer(cluster, number, "members")["members"]
    names = sorted((each["name"], each["address"]) for each in members)
    return {**kept, "members": [list(each) for each in names]}


def dead_to(cluster: Cluster, number: int) -> set[str]:
    """Return the members that a host takes for dead."""
    members = answer(cluster, number, "members")["members"]
    return {each["name"] for each in members if each["state"] == "dead"}


def state_of(cluster: Cluster, number: int) -> dict[str, Any]:
    """Return the JSON rows of a host's state file, by kind and key."""
    found: dict[str, Any] = json.loads(cluster.ok(number, "/usr/bin/python3", "-c", READ_STATE))
    return found


def changes(before: Any, after: Any, path: str = "") -> list[str]:
    """Return the differences between two answers; new fields and other reasons are allowed."""
    if isinstance(before, dict) and isinstance(after, dict):
        found = [f"{path}.{field} is gone" for field in before if field not in after]
        for field in {each for each in before.keys() & after.keys() if not each.endswith("_why")}:
            found += changes(before[field], after[field], f"{path}.{field}")
        return found
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [each for i, pair in pairs for each in changes(*pair, f"{path}[{i}]")]
    return [] if before == after else [f"{path}: {before!r} became {after!r}"]


def require_clean(cluster: Cluster, *numbers: int) -> None:
    """Fail unless hosts are healthy, their kernels as desired and their logs free of tracebacks."""
    for number in numbers:
        overlayd(cluster, number, "status", "--wait")
        overlayd(cluster, number, "verify")
        drops = answer(cluster, number, "status")["drops"]
        assert not [reason for reason in drops if "malformed" in reason], drops
        log = cluster.ok(number, "cat", "/run/overlayd/agent.log")
        assert "Traceback" not in log, log[-2000:]


def reaches(cluster: Cluster, number: int, source: str, name: str) -> bool:
    """Return whether a container gets an answer from a name."""
    ping = ["ping", "-c", "1", "-W", "2", name]
    return cluster.run(number, OVERLAYD, "container", "exec", source, "--", *ping)[0] == 0


def wait_for_reach(cluster: Cluster, number: int, source: str, name: str) -> None:
    """Wait until a container gets an answer from a name."""
    wait_until(lambda: reaches(cluster, number, source, name), f"{source} reaches {name}")


def is_fastest(cluster: Cluster, number: int) -> bool:
    """Return whether a host's frames of blue take the fastest path that `auto` may use here."""
    wanted = "native" if has_tcx() else "fast"
    networks = answer(cluster, number, "status")["networks"]
    return {each["data_path"] for each in networks if each["name"] == "blue"} == {wanted}


def names_known(cluster: Cluster, number: int) -> set[str]:
    """Return the names that a host resolves on the networks that all hosts participate in."""
    names = answer(cluster, number, "dns")["names"]
    return {each["name"] for each in names if each["network"] in {"blue", "of1", "of2"}}


def wait_for_names(cluster: Cluster, number: int, names: set[str]) -> None:
    """Wait until a host resolves names."""
    wait_until(lambda: names <= names_known(cluster, number), f"vm{number} knows {names}")


def wait_for_networks(cluster: Cluster, number: int, names: set[str]) -> None:
    """Wait until a host knows networks."""

    def known() -> set[str]:
        return {each["name"] for each in answer(cluster, number, "networks")["networks"]}

    wait_until(lambda: names <= known(), f"vm{number} knows {names}")


def test_an_upgrade_under_traffic_loses_no_packet(cluster: Cluster, package: Path) -> None:
    """Pings to and from vm1 go on while it is upgraded, and while the others do not hear it.

    Its state stays the same. The versions refuse each other's datagrams, so each side takes the
    other for dead meanwhile; what is programmed stays.
    """
    for number in HOSTS:
        overlayd(cluster, number, "status", "--wait")
    made = {f"{kind}{number}" for kind in ("c", "printer") for number in HOSTS}
    wait_for_names(cluster, 1, made | {"app"})
    listed, stored = kept_lists(cluster, 1), state_of(cluster, 1)
    caller = seen_as(cluster, 3, [], address_of(1), 8081)
    assert caller
    with pings(cluster, (1, 2), (3, 1), (2, 3)):
        upgrade(cluster, 1, package)
        wait_until(lambda: dead_to(cluster, 1) == {"vm2", "vm3"}, "vm1 hears nobody", SETTLE_S)
        wait_until(lambda: "vm1" in dead_to(cluster, 2), "vm2 does not hear vm1", SETTLE_S)
        wait_until(lambda: is_fastest(cluster, 1), "vm1's native path", SETTLE_S)

    assert changes(listed, kept_lists(cluster, 1)) == []
    now = state_of(cluster, 1)
    assert now.pop("epoch ") > stored.pop("epoch ")
    # The sealing counter advances, and the old key may have been dropped meanwhile.
    assert now.pop("keyring ")["keys"][-1] == stored.pop("keyring ")["keys"][-1]
    assert changes(stored, now) == []
    assert seen_as(cluster, 3, [], address_of(1), 8081) == caller


def test_the_versions_refuse_each_other_in_words(cluster: Cluster) -> None:
    """The upgraded host counts what it refuses, and names the hosts to upgrade."""
    status = answer(cluster, 1, "status")
    assert status["drops"]["other-version"] > 0
    told = [
        fault["text"] for fault in status["health"] if "version 1 of the protocol" in fault["text"]
    ]
    assert [text.partition(" ")[0] for text in sorted(told)] == ["vm2", "vm3"]
    assert "speaks version 1" in overlayd(cluster, 1, "events")
    assert answer(cluster, 2, "status")["drops"]["other-version"] > 0


def test_the_last_upgrades_lose_no_packet(cluster: Cluster, package: Path) -> None:
    """vm2 is upgraded under traffic; vm3 over a reboot, which leaves only its state file."""
    listed = kept_lists(cluster, 2)
    with pings(cluster, (1, 2), (2, 1), (3, 2)):
        upgrade(cluster, 2, package)
        wait_until(lambda: dead_to(cluster, 2) == {"vm3"}, "vm2 hears vm1", SETTLE_S)
        wait_until(lambda: is_fastest(cluster, 2), "vm2's native path", SETTLE_S)
    assert changes(listed, kept_lists(cluster, 2)) == []

    kept = kept_lists(cluster, 3)
    del kept["endpoints"]  # a reboot ends the containers
    with pings(cluster, (1, 2), (2, 1)):
        stop_agent(cluster, 3)
        cluster.ok(3, "sh", "-c", REBOOT)
        install(cluster, 3, package)
        overlayd(cluster, 3, "join")
        wait_until(
            lambda: {"c3", "h3"}.isdisjoint(
                each["name"] for each in answer(cluster, 3, "endpoints")["endpoints"]
            ),
            "the records of the ended containers to go",
        )
        overlayd(cluster, 3, "container", "add", "c3", *on("blue"))
        overlayd(cluster, 3, "container", "add", "h3", *on("home3"))
        for number in HOSTS:
            overlayd(cluster, number, "status", "--wait", "--timeout", "90")

    now = kept_lists(cluster, 3)
    del now["endpoints"]
    assert changes(kept, now) == []
    serve(cluster, 3, netns("c3"), "", 80)
    wait_until(lambda: seen_as(cluster, 1, [], address_of(3), 8083) != "", "vm3's port 8083")


def test_an_upgraded_cluster_is_whole(cluster: Cluster, package: Path) -> None:
    """All hosts run the present version, make and reach new things, and rotate the key.

    A fourth host joins it.
    """
    overlayd(cluster, 2, "key", "rotate")
    overlayd(cluster, 1, "network", "create", "new", "--subnet", "10.51.0.0/24")
    for number in HOSTS:
        wait_for_networks(cluster, number, {"new"})
        overlayd(cluster, number, "container", "add", f"e{number}", *on("new"))
    for here, there in ((1, 2), (2, 3), (3, 1)):
        assert EARLIER_VERSION not in version_of(cluster, here)
        wait_for_reach(cluster, here, f"c{here}", f"c{there}")
        wait_for_reach(cluster, here, f"e{here}", f"e{there}")
    for number in (2, 3):
        wait_for_names(cluster, number, names_known(cluster, 1))
        wait_for_names(cluster, 1, names_known(cluster, number))
    install(cluster, JOINING, package)
    join(cluster, JOINING, via=2)
    overlayd(cluster, JOINING, "container", "add", "c4", *on("blue"))
    wait_for_reach(cluster, JOINING, "c4", "c1")
    require_clean(cluster, *HOSTS, JOINING)
