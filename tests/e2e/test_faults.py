"""Agents killed, hosts partitioned, everything restarted, on real hosts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e
DEATH_S = 40.0
KILL = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"


ENDING = """
import os, socket
path = "/run/overlayd/api.sock"
os.unlink(path)
server = socket.socket(socket.AF_UNIX)
server.bind(path)
server.listen()
print("listens", flush=True)
for _ in range(2):
    peer, _ = server.accept()
    if peer.recv(1):
        break
server.close()
"""


def states(cluster: Cluster, number: int) -> dict[str, str]:
    """Return each member's state, as vm`number` sees it."""
    members = cluster.json(number, "members")["members"]
    return {member["name"]: member["state"] for member in members}


def names(cluster: Cluster, number: int) -> set[str]:
    """Return the endpoints that vm`number` knows."""
    return {endpoint["name"] for endpoint in cluster.json(number, "endpoint", "ls")["endpoints"]}


def all_alive(cluster: Cluster) -> bool:
    """Return whether every host considers all members alive."""
    return all(set(states(cluster, number).values()) == {"alive"} for number in (1, 2, 3))


def cut(cluster: Cluster, number: int) -> None:
    """Drop all datagrams of the others that arrive at vm`number` on the underlay."""
    rules = "table inet lab { chain i { type filter hook input priority 0; iif eth1 drop; }; }"
    cluster.ok(number, "nft", rules)


def heal(cluster: Cluster, number: int) -> None:
    """Stop dropping them."""
    cluster.ok(number, "nft", "delete", "table", "inet", "lab")


def test_a_killed_agent_is_declared_dead_and_comes_back(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """The others declare it dead within seconds and keep forwarding; then it is alive again."""
    cluster.ok(3, "bash", "-c", KILL)
    eventually(lambda: states(cluster, 1)["vm3"] == "dead", "vm3 seen dead by vm1", DEATH_S)
    eventually(lambda: states(cluster, 2)["vm3"] == "dead", "vm3 seen dead by vm2", DEATH_S)

    assert cluster.inside(1, "c1", "ping", "-c1", "-W5", "10.32.170.0")[0] == 0
    assert cluster.run(1, "ip", "netns", "exec", "c1", "dig", "+short", "c3.overlay")[1] == ""

    code, page, _ = cluster.run(3, "overlayd", "doctor")
    assert (code, "the agent on this host has died" in page) == (1, True), page
    assert "containers stay connected without the agent" in page
    code, page, _ = cluster.run(1, "overlayd", "doctor")
    assert (code, "vm3 is dead" in page, "forget vm3" in page) == (1, True, True), page

    meanwhile = cluster.attach(1, "meanwhile")
    cluster.ok(3, "overlayd", "join")

    eventually(lambda: all_alive(cluster), "everyone alive")
    eventually(lambda: cluster.run(1, "overlayd", "doctor")[0] == 0, "no problem on vm1", DEATH_S)
    eventually(lambda: "meanwhile" in names(cluster, 3), "what was written meanwhile")
    eventually(lambda: cluster.json(3, "verify")["differences"] == [], "its rows")
    assert cluster.inside(3, "c3", "ping", "-c1", "-W5", meanwhile)[0] == 0


def test_a_partition_loses_nothing(cluster: Cluster, eventually: Callable[..., None]) -> None:
    """Both sides keep attaching during the partition, and agree soon after it."""
    cut(cluster, 3)
    eventually(lambda: states(cluster, 1)["vm3"] == "dead", "vm3 out of sight", DEATH_S)
    cluster.attach(1, "near")
    cluster.attach(3, "far", "--wait", "none")
    heal(cluster, 3)

    eventually(lambda: all_alive(cluster), "everyone alive", DEATH_S)
    for number in (1, 2, 3):
        eventually(
            lambda number=number: {"near", "far"} <= names(cluster, number), "records of both sides"
        )
        eventually(
            lambda number=number: cluster.json(number, "verify")["differences"] == [], "rows"
        )
    assert cluster.inside(1, "near", "ping", "-c1", "-W5", "10.32.170.1")[0] == 0


def test_restarted_agents_find_each_other(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """After a start in reverse order they use the peers on their disks."""
    before = names(cluster, 1)
    for number in (1, 2, 3):
        cluster.ok(number, "bash", "-c", KILL)
    for number in (3, 2, 1):
        cluster.ok(number, "overlayd", "join")

    eventually(lambda: all_alive(cluster), "everyone alive", DEATH_S)
    for number in (1, 2, 3):
        eventually(lambda number=number: names(cluster, number) == before, "all endpoints")
        eventually(
            lambda number=number: cluster.json(number, "verify")["differences"] == [], "rows"
        )
    assert cluster.inside(1, "c1", "ping", "-c1", "-W5", "c3")[0] == 0


def test_a_join_while_the_agent_exits_starts_another(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """A killed agent may accept one more connection: the join then starts a new agent."""
    cluster.ok(3, "bash", "-c", f"{KILL}; while pgrep -f '[o]verlay.cli.main agent'; do :; done")
    cluster.ok(3, "bash", "-c", f"python3 -c '{ENDING}' >/run/ending 2>&1 &")
    eventually(lambda: "listens" in cluster.ok(3, "cat", "/run/ending"), "who ends")

    assert "already a member" in cluster.ok(3, "overlayd", "join")
    eventually(lambda: all_alive(cluster), "everyone alive")


def test_a_dead_node_can_be_forgotten(cluster: Cluster, eventually: Callable[..., None]) -> None:
    """A live node is refused; a dead one's endpoints and rows go, and it cannot come back."""
    code, _, err = cluster.run(1, "overlayd", "forget", "vm3")
    assert code == 6, err
    cluster.ok(3, "bash", "-c", KILL)
    eventually(lambda: states(cluster, 1)["vm3"] == "dead", "vm3 dead", DEATH_S)

    cluster.ok(1, "overlayd", "forget", "vm3")

    for number in (1, 2):
        eventually(lambda number=number: "vm3" not in states(cluster, number), "vm3 forgotten")
        eventually(lambda number=number: "c3" not in names(cluster, number), "its endpoints gone")
        eventually(
            lambda number=number: cluster.json(number, "verify")["differences"] == [], "rows"
        )
    cluster.run(3, "overlayd", "join")
    assert "vm3" not in states(cluster, 1)

    def inherited() -> bool:
        shares = cluster.json(1, "network", "inspect", "blue")["grants"]
        return {share["node"] for share in shares} == {"vm1", "vm2"}

    eventually(inherited, "vm3's addresses back with who granted them")
    assert cluster.attach(2, "heir", "--ip", "10.32.170.0") == "10.32.170.0"
