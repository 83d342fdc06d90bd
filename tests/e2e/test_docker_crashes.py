"""Agent and dockerd, killed at every step of `docker run -p` and `docker rm`.

The agent dies at each point that a call of Docker's passes, and starts again while Docker waits;
dockerd dies at moments all over a run. Each command succeeds or fails in words, the next one works,
and in the end nothing is left in any of the states.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from overlay.failpoint import VARIABLE
from tests.e2e.docker_engine import KILL_DOCKERD, start_dockerd

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.chaos, pytest.mark.timeout(1800)]
PLAN = "/run/crash-plan"
SUPERVISE = f"""
kill -9 $(pgrep -f '[o]verlay.cli.main agent')
export {VARIABLE}={PLAN}
setsid sh -c 'while :; do overlayd agent; rm -f {PLAN}; done' >>/run/agents.log 2>&1 &
"""
SLEEP = ("lab:1", "/bin/sleep", "10000")
SERVE = "echo served >/tmp/index.html; exec busybox httpd -f -p 80 -h /tmp"
RUN = ("docker", "run", "-d", "--name", "crash", "--network", "green", "-p", "8080:80",
       "lab:1", "/bin/sh", "-c", SERVE)  # fmt: skip
REMOVE = ("docker", "rm", "-f", "crash")
KEPT = 3  # documents of the container that stays: endpoint, attachment, reservation
STORED = """
import json, sqlite3
kinds = "reservation", "docker-endpoint", "endpoint", "published"
rows = sqlite3.connect("file:/var/lib/overlayd/state.db?mode=ro", uri=True).execute(
    "SELECT kind, json FROM value")
print(json.dumps([row for row in rows if row[0] in kinds and "netns:c1" not in row[1]]))
"""


@pytest.fixture(scope="module")
def docker(cluster: Cluster, image: Path, eventually: Callable[..., None]) -> Cluster:
    """Start dockerd on vm1, with the network green, and an agent that is started when it dies."""
    start_dockerd(cluster, 1, eventually)
    cluster.ok(1, "docker", "import", str(image), "lab:1")
    create = ("docker", "network", "create", "-d", "overlayd", "--ipam-driver", "overlayd")
    cluster.ok(1, *create, "--subnet", "10.77.0.0/16", "-o", "overlayd.network=green", "green")
    cluster.ok(1, "docker", "run", "-d", "--name", "stays", "--network", "green", *SLEEP)
    cluster.ok(1, "bash", "-c", SUPERVISE)
    eventually(lambda: responds(cluster), "the supervised agent")
    return cluster


def responds(cluster: Cluster) -> bool:
    """Return whether vm1's agent answers, and serves Docker."""
    code, out, _ = cluster.run(1, "overlayd", "status", "--json")
    return code == 0 and json.loads(out)["cluster"] is not None


def names(cluster: Cluster, number: int) -> list[str]:
    """Return the names on green as a host knows them."""
    found = cluster.json(number, "endpoint", "ls", "--network", "green")["endpoints"]
    return [each["name"] for each in found]


def stored(cluster: Cluster) -> list[Any]:
    """Return what vm1's state has of Docker's endpoints."""
    found: list[Any] = json.loads(cluster.ok(1, "python3", "-c", STORED))
    return found


def points(cluster: Cluster, command: tuple[str, ...]) -> int:
    """Run a command; return how many points it makes the agent pass."""
    cluster.ok(1, "sh", "-c", f"rm -f {PLAN}.passed; echo trace > {PLAN}")
    cluster.ok(1, *command)
    cluster.ok(1, "rm", PLAN)
    return len(cluster.ok(1, "cat", f"{PLAN}.passed").split())


def require_served(cluster: Cluster, eventually: Callable[..., None], moment: str) -> None:
    """Make sure that the container has its port and its name, here and on another host."""
    ask = ("curl", "-s", "-m", "5", "http://192.168.56.11:8080/")
    eventually(lambda: cluster.run(3, *ask)[1] == "served\n", f"the port after {moment}")
    eventually(lambda: "crash" in names(cluster, 3), f"the name after {moment}")


def require_removed(cluster: Cluster, eventually: Callable[..., None], moment: str) -> None:
    """Remove the container, if it is there, and make sure that it is gone everywhere."""
    eventually(lambda: responds(cluster), f"the agent after {moment}")
    eventually(lambda: cluster.run(1, *REMOVE)[0] == 0, f"the removal after {moment}")
    eventually(lambda: names(cluster, 3) == ["stays"], f"the end after {moment}")


def require_clean(cluster: Cluster, eventually: Callable[..., None]) -> None:
    """Make sure that the next container works, and that nothing is left of any before."""
    cluster.ok(1, *RUN)
    require_served(cluster, eventually, "all of them")
    require_removed(cluster, eventually, "all of them")
    assert cluster.differences(1) == []
    # What Docker lacks is removed at the second comparison, a minute later.
    eventually(lambda: len(stored(cluster)) == KEPT, "nothing left in the state", 200.0)


def test_an_agent_may_die_at_any_point(docker: Cluster, eventually: Callable[..., None]) -> None:
    """Docker waits for the next agent: the call is repeated, or fails in words."""
    run, remove = points(docker, RUN), points(docker, REMOVE)
    assert run > 5
    assert remove > 3
    for command, count in ((RUN, run), (REMOVE, remove)):
        for number in range(1, count + 1):
            moment = f"point {number} of {count} of {command[1]}"
            if command is REMOVE:
                docker.ok(1, *RUN)
            docker.ok(1, "sh", "-c", f"echo '*:{number}' > {PLAN}")
            code, _, err = docker.run(1, *command)
            docker.run(1, "rm", "-f", PLAN)
            assert code == 0 or "overlayd" in err, f"{moment}: {err}"
            eventually(lambda: responds(docker), "the agent")
            if command is RUN and code == 0:
                require_served(docker, eventually, moment)
            require_removed(docker, eventually, moment)
            print(f"{moment}: {'done' if code == 0 else err.strip()}")  # noqa: T201 - asked for
    require_clean(docker, eventually)


def test_dockerd_may_die_at_any_moment(docker: Cluster, eventually: Callable[..., None]) -> None:
    """Its next start deletes what it knows of; the agent, what nobody has."""
    for hundredths in range(0, 60, 5):
        start = f"{' '.join(RUN[:-1])} '{SERVE}' >/dev/null 2>&1 & sleep 0.{hundredths:02}"
        docker.ok(1, "bash", "-c", f"{start}; {KILL_DOCKERD}; wait")
        start_dockerd(docker, 1, eventually)
        docker.ok(1, "docker", "start", "stays")
        require_removed(docker, eventually, f"{hundredths} hundredths of a second")
    require_clean(docker, eventually)
