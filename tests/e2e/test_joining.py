"""Joining a cluster: which peers work, what is refused, and what is known when it returns."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    "ports",
    [("--vxlan-port", "7948"), ("--gossip-port", "5000", "--vxlan-port", "5000")],
)
def test_a_cluster_with_equal_ports_is_not_created(hosts: Cluster, ports: tuple[str, ...]) -> None:
    """The error names the port and the options; the host stays outside any cluster."""
    code, out, err = hosts.run(3, "overlayd", "join", *ports)

    assert (code, out) == (2, ""), err
    assert f"gossip and VXLAN cannot both use UDP port {ports[-1]}" in err
    assert "--gossip-port" in err
    assert "not in a cluster" in hosts.run(3, "overlayd", "status")[1]


VM1, VM2 = "192.168.56.11", "192.168.56.12"
SILENT, UNROUTABLE = "192.168.56.99", "203.0.113.9"


def join(hosts: Cluster, number: int, token: str, *words: str) -> tuple[int, str, str]:
    """Join with a token; return exit code, stdout and stderr."""
    line = ["overlayd", "join", *words, "--token-file", "-"]
    return hosts.run(number, *line, stdin=token)


def joined(hosts: Cluster, number: int, token: str, *words: str) -> dict[str, Any]:
    """Join with a token; return the JSON of the answer."""
    code, out, err = join(hosts, number, token, *words, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.fixture(scope="module")
def pair(hosts: Cluster, eventually: Callable[..., None]) -> Cluster:
    """Two members with twelve networks, vm1 the one holder; vm3 is outside."""
    for number in (1, 2, 3):
        path = "/etc/overlayd/overlayd.toml"
        hosts.ok(number, "sh", "-c", f"mkdir -p /etc/overlayd; echo authority_holders = 1 >{path}")
    hosts.ok(1, "overlayd", "join")
    token = hosts.ok(1, "overlayd", "token", "show")
    assert joined(hosts, 2, token, VM1)["via"] == VM1
    for number in range(12):
        subnet = f"10.{40 + number}.0.0/16"
        creator = 1 + number % 2
        hosts.ok(creator, "overlayd", "network", "create", f"n{number}", "--subnet", subnet)
    for number in (1, 2):
        eventually(
            lambda at=number: len(hosts.json(at, "network", "ls")["networks"]) == 12,
            f"vm{number} knows all networks",
        )
    return hosts


@pytest.mark.parametrize(
    ("peers", "via"),
    [
        ((VM1,), VM1),
        ((VM2,), VM2),
        ((SILENT, VM1), VM1),
        ((SILENT, VM2), VM2),
        ((UNROUTABLE, VM2), VM2),
        ((VM2, UNROUTABLE), VM2),
        (("127.0.0.1", VM1), VM1),
        ((UNROUTABLE, SILENT, VM2, VM1), VM1),
    ],
    ids=lambda given: "-".join([given] if isinstance(given, str) else given),
)
def test_any_live_peer_of_those_named_will_do(
    pair: Cluster, peers: tuple[str, ...], via: str
) -> None:
    """The order is free; the answer names the right peer, and counts what the others know."""
    token = pair.ok(1, "overlayd", "token", "show")
    answer = joined(pair, 3, token, *peers)
    pair.ok(3, "overlayd", "reset", "--yes")

    assert answer["via"] == via
    assert {key: answer[key] for key in ("members", "networks")} == {"members": 3, "networks": 12}


def test_a_name_that_another_living_node_has_is_refused(pair: Cluster) -> None:
    """The error proposes another name, with which the same token admits the host."""
    token = pair.ok(1, "overlayd", "token", "create", "--uses", "1")
    code, out, err = join(pair, 3, token, VM2, "--name", "vm2")

    assert (code, out) == (6, ""), err
    assert "another living node of the cluster is named vm2" in err
    assert "--name vm2-2" in err
    assert "not in a cluster" in pair.run(3, "overlayd", "status")[1]
    assert "refused vm2" in pair.ok(1, "overlayd", "events")
    assert joined(pair, 3, token, VM2, "--name", "vm2-2")["members"] == 3
    pair.ok(3, "overlayd", "reset", "--yes")


def test_a_clock_that_is_behind_is_told(pair: Cluster, tmp_path: Path) -> None:
    """The try uses up no token; with the clock set right, the same agent joins."""
    library, shift = tmp_path / "clockshift.so", tmp_path / "shift"
    source = Path(__file__).with_name("clockshift.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    shift.write_text("-172800", encoding="utf-8")
    token = pair.ok(1, "overlayd", "token", "create", "--uses", "1")
    shifted = ["env", f"LD_PRELOAD={library}", f"CLOCK_SHIFT_FILE={shift}"]
    line = ["overlayd", "join", VM1, "--token-file", "-"]
    code, out, err = pair.run(3, *shifted, *line, stdin=token)

    assert (code, out) == (6, ""), err
    assert "clock is at least 2 days behind" in err
    assert [
        one["name"] for one in pair.json(1, "members")["members"] if one["state"] == "alive"
    ] == ["vm1", "vm2"]
    shift.write_text("0", encoding="utf-8")
    assert joined(pair, 3, token, VM1)["members"] == 3
    pair.ok(3, "overlayd", "reset", "--yes")


def test_a_member_that_names_a_peer_of_another_cluster_is_told(pair: Cluster) -> None:
    """It is no success to stay where one is; naming a member again is harmless, dead or alive."""
    pair.ok(3, "overlayd", "join")
    vm3 = "192.168.56.13"
    code, out, err = pair.run(1, "overlayd", "join", vm3)

    assert (code, out) == (6, ""), err
    assert f"no member of this host's cluster answers at {vm3} port 7948/udp" in err
    assert "overlayd leave" in err
    assert len(pair.json(1, "members")["members"]) >= 2
    assert pair.json(1, "join", VM2)["already"]
    assert pair.json(1, "join", vm3, VM2)["already"], "one of those named is enough"
    pair.ok(2, "bash", "-c", "kill -9 $(pgrep -f '[o]verlay.cli.main agent')")
    assert pair.json(1, "join", VM2)["already"]


def test_a_join_beside_a_dead_member_is_bounded(
    pair: Cluster, eventually: Callable[..., None]
) -> None:
    """Once vm2 is known to be dead, a new host does not wait for it for long."""

    def is_dead() -> bool:
        states = {one["name"]: one["state"] for one in pair.json(1, "members")["members"]}
        return bool(states["vm2"] == "dead")

    eventually(is_dead, "vm2, killed by the test before")
    pair.ok(3, "overlayd", "reset", "--yes")
    token = pair.ok(1, "overlayd", "token", "show")
    answer = joined(pair, 3, token, VM2, VM1)

    assert answer["via"] == VM1
    assert answer["networks"] == 12
    assert answer["elapsed_ms"] < 10_000
