"""A partition in which the same things were created twice: all hosts report the conflicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e
DEATH_S = 40.0
CUT = "table inet lab { chain i { type filter hook input priority 0; iif eth1 drop; }; }"
KILL = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"
MAC = "02:00:00:00:00:77"


def seen(cluster: Cluster, number: int) -> dict[str, str]:
    """Return the states of all members, as vm`number` sees them."""
    members = cluster.json(number, "members")["members"]
    return {member["name"]: member["state"] for member in members}


def clashes(cluster: Cluster, number: int) -> set[str]:
    """Return what vm`number`'s status reports as used twice."""
    health = cluster.json(number, "status")["health"]
    return {item["text"] for item in health if "used twice" in item["text"]}


def test_every_conflict_has_one_winner_on_all_hosts(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """A container's name, a MAC and a network's name conflict; three hosts report the same."""
    cluster.ok(3, "nft", CUT)
    eventually(lambda: seen(cluster, 3)["vm1"] == "dead", "vm1 out of vm3's sight", DEATH_S)
    eventually(lambda: seen(cluster, 1)["vm3"] == "dead", "vm3 out of vm1's sight", DEATH_S)
    for number in (1, 3):
        cluster.attach(number, f"t{number}", "--name", "twin", "--wait", "none")
        cluster.attach(number, f"m{number}", "--mac", MAC, "--wait", "none")
        subnet = f"10.6{number}.0.0/24"
        cluster.ok(number, "overlayd", "network", "create", "both", "--subnet", subnet)
    cluster.ok(3, "nft", "delete", "table", "inet", "lab")

    eventually(lambda: set(seen(cluster, 1).values()) == {"alive"}, "everyone alive", DEATH_S)
    for number in (1, 2, 3):
        eventually(lambda n=number: len(clashes(cluster, n)) == 3, f"clashes at vm{number}")
    told = clashes(cluster, 1)
    assert clashes(cluster, 2) == clashes(cluster, 3) == told
    assert [kind for kind in ("name twin", f"MAC {MAC}", "network name both")
            if not any(text.startswith(kind) for text in told)] == []  # fmt: skip
    for number in (1, 2, 3):
        eventually(
            lambda n=number: told <= {
                event["text"] for event in cluster.events(n)
            },
            f"events at vm{number}",
        )  # fmt: skip

    answers = [
        cluster.run(number, "ip", "netns", "exec", f"c{number}", "dig", "+short", "twin.overlay")[1]
        for number in (1, 2, 3)
    ]
    assert answers[0] == answers[1] == answers[2]
    assert len(answers[0].split()) == 1
    (twin,) = [text for text in told if text.startswith("name twin")]
    assert answers[0].strip() in twin.partition(" has it")[0]

    cluster.ok(3, "bash", "-c", KILL)
    cluster.ok(3, "overlayd", "join")
    eventually(lambda: clashes(cluster, 3) == told, "the same after a restart", DEATH_S)
    loser = "t1" if " on vm3 has it" in twin else "t3"
    cluster.ok(int(loser[1]), "overlayd", "detach", loser)
    eventually(lambda: twin not in clashes(cluster, 2), "the clash is over")
