"""State directories that were copied to another host or restored from an old backup."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from overlay.lab import host_process, lab

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e
KILL = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"
PREVIOUS = "/var/lib/overlayd/state.previous.db"
WAIT_S = 60.0
# What a reboot leaves of a host: its disk. The processes of its containers end, too.
REBOOT = (
    "for name in $(ls /run/netns); do ip netns del $name; done; rm -rf /run/netns /run/overlayd; "
    "ip -br link | grep -o '^ovh[^@ ]*' | xargs -r -n1 ip link del; nft flush ruleset"
)


@pytest.fixture(scope="module")
def four(new_cluster: type[Cluster]) -> Iterator[Cluster]:
    """Three joined hosts with a container each, and a fourth without an agent."""
    assert not host_process.running(), "a lab is running on this machine: overlayd lab down"
    try:
        hosts = lab.make(4)
        lab.join(hosts[:3])
        lab.populate(hosts[:3])
        yield new_cluster(hosts)
    finally:
        host_process.end(host_process.running())


def health(cluster: Cluster, number: int) -> str:
    """Return the health messages of a host's `status` as one text."""
    return "\n".join(item["text"] for item in cluster.json(number, "status")["health"])


def known_to(cluster: Cluster, number: int) -> set[str]:
    """Return the names of the endpoints that a host knows."""
    return {each["name"] for each in cluster.json(number, "endpoint", "ls")["endpoints"]}


def ids_of(cluster: Cluster, number: int, name: str) -> list[str]:
    """Return the ids of the endpoints of a name that a host knows."""
    shown = cluster.json(number, "endpoint", "ls")["endpoints"]
    return [each["id"] for each in shown if each["name"] == name]


def alive(cluster: Cluster, number: int) -> int:
    """Return how many members a host considers alive."""
    count: int = cluster.json(number, "status")["cluster"]["members"]["alive"]
    return count


def test_a_restored_backup_reuses_no_address(
    four: Cluster, eventually: Callable[..., None]
) -> None:
    """A host with an old state gets its newest records from its peers before it writes.

    No address is allocated twice, and running containers stay attached.
    """
    four.ok(3, "sh", "-c", "sleep 1.5; cp -a /var/lib/overlayd /var/lib/backup")
    kept = four.attach(3, "kept")
    four.ok(3, "bash", "-c", f"{KILL}; rm -rf /var/lib/overlayd")
    four.ok(3, "cp", "-a", "/var/lib/backup", "/var/lib/overlayd")
    four.ok(3, "overlayd", "join")
    eventually(lambda: alive(four, 3) == 3, "vm3 among its peers", WAIT_S)

    fresh = four.attach(3, "fresh")

    assert fresh != kept
    assert four.inside(1, "c1", "ping", "-c1", "-W2", kept)[0] == 0, "connected all the time"
    shown = {e["name"]: e.get("target") for e in four.json(3, "endpoint", "ls")["endpoints"]}
    assert shown["kept"], "attached again"
    events = four.events(3)
    assert any(event["kind"] == "amnesia" for event in events)
    eventually(lambda: alive(four, 1) == 3, "vm3 seen alive", WAIT_S)
    assert four.inside(1, "c1", "ping", "-c1", "-W2", fresh)[0] == 0
    for number in (1, 2, 3):
        eventually(
            lambda number=number: four.json(number, "verify")["differences"] == [], "rows", WAIT_S
        )


DAMAGE = {
    "empty": ": >state.db",
    "overwritten": "dd if=/dev/urandom of=state.db bs=4096 seek=1 count=3 conv=notrunc status=none",
    "an older one": "cp -a /var/lib/weekold/state.db state.db",
}


def test_a_damaged_state_loses_no_container(four: Cluster, eventually: Callable[..., None]) -> None:
    """Containers attached since the last copy stay connected; what was detached stays so.

    The agent learns from its peers what it had written, and then adopts what the kernel connects.
    """
    four.ok(3, "cp", "-a", "/var/lib/overlayd", "/var/lib/weekold")
    for number, (name, damage) in enumerate(DAMAGE.items()):
        old, new = f"old{number}", f"new{number}"
        four.ok(3, "overlayd", "container", "add", old, "--network", "blue")
        four.ok(3, "bash", "-c", KILL)
        four.ok(3, "overlayd", "join")  # its state is copied at this start
        four.ok(3, "cp", "-a", PREVIOUS, "/run/previous")  # and again every 10 s
        made = four.ok(3, "overlayd", "container", "add", new, "--network", "blue")
        address = made.split()[0]
        interface = four.inside(3, new, "cat", "/sys/class/net/eth0/ifindex")[1]
        four.ok(3, "overlayd", "detach", old)
        # A detach waits for the others no longer than a second; what they don't know is lost.
        eventually(lambda old=old: old not in known_to(four, 1), f"{old} is gone")

        ended = f"{KILL}; cp -a /run/previous {PREVIOUS}"
        four.ok(3, "bash", "-c", f"{ended}; cd /var/lib/overlayd; rm -f *-wal *-shm; {damage}")
        four.ok(3, "overlayd", "join")

        def recovered() -> bool:
            return "1 containers attached again" in (four.json(3, "status")["recovery"] or "")

        eventually(recovered, f"{name}: recovered", WAIT_S)
        eventually(lambda: four.run(3, "overlayd", "verify")[0] == 0, f"{name}: rows", WAIT_S)
        assert four.inside(1, "c1", "ping", "-c1", "-W2", address)[0] == 0, name
        assert four.inside(3, new, "cat", "/sys/class/net/eth0/ifindex")[1] == interface, name
        assert (new in known_to(four, 1), old in known_to(four, 1)) == (True, False), name
        assert "eth0" not in four.inside(3, old, "ip", "-br", "link")[1], name
        targets = {each["name"] for each in four.json(3, "container", "ls")["containers"]}
        assert {old, new} <= targets, name
        four.ok(3, "overlayd", "detach", new)
    assert "Recovery" in four.ok(3, "overlayd", "status")


def test_a_reboot_restores_what_asks_for_it(four: Cluster, eventually: Callable[..., None]) -> None:
    """Bare containers are gone from the list, or made again with their addresses.

    Also where the reboot follows a restore of the state from before an earlier one, since which the
    container has a newer endpoint.
    """
    add = ("overlayd", "container", "add")
    kept = four.ok(2, *add, "kept2", "--network", "blue", "--restart", "always").split()[0]
    four.ok(2, *add, "side2", "--network", "container:kept2", "--restart", "always")
    four.ok(2, *add, "brief2", "--network", "blue")

    def restored() -> bool:
        """Return whether the container has its address, and its former endpoint has ended.

        It is connected by that again if its namespace has got the number of its former one.
        """
        shown = four.json(2, "endpoint", "ls")["endpoints"]
        attached = [(each["name"], each["ips"]) for each in shown if each.get("target")]
        inside = four.inside(2, "kept2", "ip", "-br", "addr")[1]
        return attached == [("kept2", [kept])] and kept in inside

    for of_state in (
        "cp -a /var/lib/overlayd /var/lib/older",
        "rm -r /var/lib/overlayd; cp -a /var/lib/older /var/lib/overlayd",
    ):
        four.ok(2, "bash", "-c", f"{KILL}; {REBOOT}; {of_state}")
        assert four.ok(2, "ip", "netns") == ""
        four.ok(2, "overlayd", "join")
        eventually(restored, "the container that was made again is attached", WAIT_S)
        # An attach is on this disk, and shown, before the container is connected and others hear of
        # it: killed between these, and with an older disk, nobody knows the endpoint any more.
        eventually(lambda: ids_of(four, 1, "kept2") == ids_of(four, 2, "kept2"), "known to vm1")
    listed = [each["name"] for each in four.json(2, "container", "ls")["containers"]]
    assert listed == ["kept2", "side2"]
    eventually(lambda: four.inside(1, "c1", "ping", "-c1", "-W2", kept)[0] == 0, "answers")
    assert kept in four.ok(2, "cat", "/etc/netns/kept2/hosts")
    assert four.inside(2, "side2", "ip", "-br", "addr")[1].count(kept) == 1
    four.ok(2, "overlayd", "container", "rm", "side2", "kept2")
    four.ok(2, *add, "c2", "--network", "blue")


def test_a_lost_state_directory_keeps_containers(
    four: Cluster, eventually: Callable[..., None]
) -> None:
    """The host joins anew: its former sandbox is removed, and its containers attached again.

    It does not create a cluster meanwhile, as a join without a peer would.
    """
    made = ("overlayd", "container", "add", "web3", "--network", "blue", "--alias", "front3")
    address = four.ok(3, *made).split()[0]
    four.attach(3, "plain3")
    token = four.ok(1, "overlayd", "token", "show")
    four.ok(3, "bash", "-c", f"{KILL}; rm -rf /var/lib/overlayd/*")
    code, _, err = four.run(3, "overlayd", "join")
    assert (code, "join PEER --token-file FILE" in err) == (6, True), err
    join = ("overlayd", "join", "192.168.56.11", "--name", "vm3new", "--token-file", "-")
    code, _, err = four.run(3, *join, stdin=token)
    assert code == 0, err

    def attached() -> set[tuple[str, str]]:
        shown = four.json(3, "endpoint", "ls")["endpoints"]
        return {(each["name"], each["target"]) for each in shown if each.get("target")}

    wanted = {(name, f"netns:{name}") for name in ("c3", "web3", "plain3")}
    eventually(lambda: wanted <= attached(), "the containers attached again", 90.0)
    eventually(lambda: four.run(3, "overlayd", "verify")[0] == 0, "rows", WAIT_S)
    assert len([n for n in four.ok(3, "ip", "netns").split() if n.startswith("ov-")]) == 1
    shown = {each["name"]: each for each in four.json(3, "endpoint", "ls")["endpoints"]}
    assert shown["web3"]["ips"] == [address]
    assert shown["web3"]["aliases"] == ["front3"]
    for name in ("c3", "web3", "plain3"):
        ping = ("ping", "-c1", "-W2", shown[name]["ips"][0])
        eventually(lambda ping=ping: four.inside(1, "c1", *ping)[0] == 0, f"{name} answers")
    assert "web3" in [each["name"] for each in four.json(3, "container", "ls")["containers"]]
    eventually(lambda: alive(four, 1) == 3, "vm1 sees three members", WAIT_S)


def test_a_copied_disk_is_reported_on_both_hosts(
    four: Cluster, eventually: Callable[..., None], tmp_path: Path
) -> None:
    """The original and the copy each name the address of the other, and their peers know, too."""
    four.ok(3, "overlayd", "endpoint", "set", "c3", "--add-label", "team=db")
    copy = tmp_path / "disk.tar"
    four.ok(3, "tar", "-C", "/var/lib", "-cf", str(copy), "overlayd")
    four.ok(4, "tar", "-C", "/var/lib", "-xf", str(copy))
    four.ok(4, "overlayd", "join")

    text = "a host at {} uses the identity of this one (vm3new)"
    eventually(
        lambda: text.format("192.168.56.14") in health(four, 3), "the original's warning", WAIT_S
    )
    eventually(
        lambda: text.format("192.168.56.13") in health(four, 4), "the copy's warning", WAIT_S
    )
    eventually(lambda: "uses the identity of vm3" in health(four, 1), "a peer's warning", WAIT_S)
    shown = [event for event in four.events(3) if event["kind"] == "clone"]
    assert len(shown) == 1, "one event, not one per second"
    code, _, err = four.run(4, "overlayd", "leave")
    assert (code, "would leave as well" in err) == (6, True), err


def test_a_copy_joins_as_a_new_node_after_a_reset(
    four: Cluster, eventually: Callable[..., None]
) -> None:
    """As the error says, the copy becomes a new node by a reset, and the original recovers.

    Its containers are attached again: the copy withdrew, under the shared identity, the endpoints
    that it had no container for.
    """
    four.ok(4, "overlayd", "reset", "--yes")
    token = four.ok(1, "overlayd", "token", "show")
    code, _, err = four.run(
        4, "overlayd", "join", "192.168.56.12", "--name", "vm4", "--token-file", "-", stdin=token
    )
    assert code == 0, err
    four.ok(3, "bash", "-c", KILL)
    four.ok(3, "overlayd", "join")

    eventually(lambda: alive(four, 1) == 4, "four nodes", WAIT_S)
    eventually(lambda: health(four, 3) == "", "no warning", 90.0)
    eventually(lambda: alive(four, 3) == 4, "vm3 sees all members", WAIT_S)
    ping = ("ping", "-c1", "-W2", "c3.overlay")
    eventually(lambda: four.inside(1, "c1", *ping)[0] == 0, "its container answers", WAIT_S)
    assert four.inside(3, "c3", "ip", "-br", "link")[1].count("eth") == 1
    shown = {each["name"]: each["labels"] for each in four.json(1, "endpoint", "ls")["endpoints"]}
    assert shown["c3"] == {"team": "db"}, "as before: with it go isolation, VLANs and limits"
