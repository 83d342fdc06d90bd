"""`ping` sends real packets and names the way; `trace` finds planted faults at their step."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
Eventually = Callable[..., None]


def address(cluster: Cluster, name: str) -> str:
    """Return a container's address."""
    listed = cluster.json(1, "endpoint", "ls")["endpoints"]
    found: str = next(each["ips"][0] for each in listed if each["name"] == name)
    return found


def ping(cluster: Cluster, number: int, *words: str) -> list[dict[str, Any]]:
    """Ping as JSON; return the lines."""
    _, out, err = cluster.run(number, "overlayd", "ping", *words, "-W", "5", "--json")
    assert out, err
    return [json.loads(line) for line in out.splitlines()]


def test_ping_reaches_a_container_on_another_host(cluster: Cluster) -> None:
    """By name and by address, with the way it takes."""
    for target in ("c2", address(cluster, "c2")):
        way, echo, summary = ping(cluster, 1, target, "-c", "1")
        assert (way["source"]["name"], way["target"]["node"]) == ("c1", "vm2")
        assert way["way"]["peer_vtep"] == "192.168.56.12"
        assert echo["problem"] is None
        assert summary["answered"] == 1


def test_the_size_that_is_said_to_fit_fits(cluster: Cluster) -> None:
    """Exactly: one byte more is refused."""
    fits = ping(cluster, 1, "c2", "-c", "0")[0]["way"]["fits"]

    assert ping(cluster, 1, "c2", "-c", "1", "-s", str(fits - 28))[-1]["answered"] == 1
    too_large = ping(cluster, 1, "c2", "-c", "1", "-s", str(fits - 27))
    assert too_large[1]["problem"] == "too large for the container's interface"
    assert too_large[-1]["answered"] == 0


def test_the_host_sends_where_no_container_is(cluster: Cluster, eventually: Eventually) -> None:
    """From its own address on an exposed network; else from the gateway, to its own container."""
    way, _, summary = ping(cluster, 1, "c1", "-c", "1")
    assert (way["source"]["kind"], summary["answered"]) == ("host", 1)

    cluster.ok(1, "overlayd", "network", "create", "quiet", "--internal", "--subnet", "fd71::/64")
    cluster.attach(1, "q1", network="quiet")
    way, _, summary = ping(cluster, 1, "q1", "-c", "1")
    assert (way["source"]["kind"], summary["answered"]) == ("gateway", 1)

    def refused() -> bool:
        code, _, err = cluster.run(2, "overlayd", "ping", "q1", "-c", "1")
        return (code, "nothing to send from on network quiet" in err) == (6, True)

    eventually(refused, "vm2 knows the container, and has nothing there")


def test_a_source_on_another_host_is_located(cluster: Cluster) -> None:
    """The error names the host; so does a name that nobody has."""
    code, _, err = cluster.run(1, "overlayd", "ping", "c1", "--from", "c2", "-c", "1")
    assert (code, "it is on vm2" in err) == (5, True), err
    code, _, err = cluster.run(1, "overlayd", "ping", "nobody", "-c", "1")
    assert (code, "there is no container 'nobody'" in err) == (5, True), err


def trace(cluster: Cluster, number: int, *words: str) -> dict[str, Any]:
    """Trace as JSON."""
    _, out, err = cluster.run(number, "overlayd", "trace", *words, "--json")
    assert out, err
    found: dict[str, Any] = json.loads(out)
    return found


def outcomes(found: dict[str, Any]) -> set[str]:
    """Return the outcomes of all steps."""
    return {each["outcome"] for leg in found["legs"] for each in leg["findings"]}


def dropped_at(found: dict[str, Any]) -> tuple[str, str, str]:
    """Return the host, phase and step of the first thing that drops a packet, or empty texts."""
    drops = (
        (leg["node"], leg["phase"], each["step"])
        for leg in found["legs"]
        for each in leg["findings"]
        if each["outcome"] == "drop"
    )
    return next(drops, ("", "", ""))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_both_halves_are_explained_on_any_host(
    cluster: Cluster, eventually: Eventually, number: int
) -> None:
    """By the agents of both; the third host asks both."""
    eventually(
        lambda: outcomes(trace(cluster, number, "c1", "c2", "--no-send")) == {"ok"}, "all is well"
    )
    found = trace(cluster, number, "c1", "c2")
    assert [leg["node"] for leg in found["legs"]] == ["vm1", "vm2", "vm2", "vm1"]
    assert found["attempt"]["answered"] is (True if number == 1 else None)


def test_nothing_listening_is_found_on_the_other_host(cluster: Cluster) -> None:
    """And refused when it is tried."""
    found = trace(cluster, 1, "c1", "c2", "--dport", "80")

    assert dropped_at(found) == ("vm2", "receive", "listener")
    assert found["attempt"]["answered"] is False


@pytest.fixture(scope="module")
def loose(cluster: Cluster) -> Cluster:
    """Return the cluster with two containers whose interfaces are their own business."""
    cluster.attach(1, "h1", "--hands-off")
    cluster.attach(2, "h2", "--hands-off")
    return cluster


@pytest.mark.parametrize(
    ("number", "fault", "where"),
    [
        (1, "ip link set eth0 down", ("vm1", "send", "interface")),
        (2, "ip address flush dev eth0", ("vm2", "receive", "interface")),
        (1, "ip route flush table main", ("vm1", "send", "route")),
        (2, "ip route flush table main", ("vm2", "send", "route")),
        (1, "ip link set eth0 address 02:00:00:00:00:99", ("vm1", "send", "security")),
        (1, "ip neighbor replace {peer} lladdr 02:00:00:00:00:88 dev eth0 nud permanent",
         ("vm1", "send", "cache")),
    ],
)  # fmt: skip
def test_a_fault_in_a_container_is_found(
    loose: Cluster, number: int, fault: str, where: tuple[str, str, str]
) -> None:
    """At its step, on its host, also from the other one."""
    name = f"h{number}"
    words = fault.format(peer=address(loose, "h2")).split()
    assert loose.inside(number, name, *words)[0] == 0
    try:
        for asking in (1, 2):
            found = trace(loose, asking, "h1", "h2", "--no-send")
            assert dropped_at(found) == where
            assert found["verdict"]["hint"]
    finally:  # as an attach makes it
        loose.ok(number, "overlayd", "detach", name)
        loose.ok(number, "overlayd", "attach", name, "--network", "blue", "--hands-off")


def test_lost_packets_are_lost_on_the_way(cluster: Cluster, eventually: Eventually) -> None:
    """A filter between the hosts; the agents know by their probes."""
    rules = (
        "add table inet cut; add chain inet cut in { type filter hook prerouting priority -400; }"
    )
    cluster.ok(2, "nft", f"{rules}; add rule inet cut in udp dport 4789 drop")
    try:
        eventually(
            lambda: (
                dropped_at(trace(cluster, 1, "c1", "c2", "--no-send")) == ("vm1", "send", "path")
            ),
            "the path is known to lose",
        )
        found = trace(cluster, 1, "c1", "c2")
        assert "lost on the way from vm1" in found["verdict"]["text"]
        assert found["attempt"]["answered"] is False
        assert "UDP 4789" in found["verdict"]["hint"]
        # Dropped as it came, behind the interface where the other host sees it.
        assert found["attempt"]["last_seen"] == "as it came to vm2 by eth1: then it was lost on vm2"
    finally:
        cluster.ok(2, "nft", "delete table inet cut")


def test_the_other_host_says_where_a_packet_was_last_seen(cluster: Cluster) -> None:
    """In its container, which does not answer; on its way back, where it is dropped here."""
    drop = "add table inet cut; add chain inet cut in { type filter hook input priority 0; }"
    for number, name, seen in (
        (2, "c2", "as it reached c2 by eth0 on vm2, which did not answer"),
        (1, "c1", "its answer, as it came to vm1 by eth1: then it was lost on vm1"),
    ):
        rule = "add rule inet cut in meta l4proto icmp drop"
        assert cluster.inside(number, name, "nft", f"{drop}; {rule}")[0] == 0
        try:
            found = trace(cluster, 1, "c1", "c2")
            assert found["attempt"]["last_seen"] == seen
        finally:
            assert cluster.inside(number, name, "nft", "delete table inet cut")[0] == 0


def test_unknown_ends_and_networks_are_named(cluster: Cluster) -> None:
    """Before any host is asked."""
    code, _, err = cluster.run(3, "overlayd", "trace", "c1", "nobody")
    assert (code, "there is no container 'nobody'" in err) == (5, True), err
    code, _, err = cluster.run(3, "overlayd", "trace", "q1", "c2")
    assert (code, "q1 and c2 are not on one network" in err) == (6, True), err


def test_a_dead_agent_is_said(cluster: Cluster, eventually: Eventually) -> None:
    """Its host still forwards, so the attempt is answered; last, as nothing starts it again."""
    cluster.ok(3, "sh", "-c", "kill -9 $(pgrep -f '[o]verlay.cli.main agent')")
    eventually(
        lambda: cluster.json(1, "members")["members"][-1]["state"] in ("suspect", "dead"),
        "the agent of vm3 is missed",
    )
    found = trace(cluster, 1, "c1", "c3")
    assert found["verdict"]["outcome"] not in ("ok", "warn")
    unknown = {(leg["node"], each["step"]) for leg in found["legs"] for each in leg["findings"]
               if each["outcome"] == "unknown"}  # fmt: skip
    assert ("vm3", "agent") in unknown
    assert found["attempt"]["answered"] is True
