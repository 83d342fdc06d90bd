"""`ping` sends real packets, and names the way."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


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


def test_the_host_sends_where_no_container_is(cluster: Cluster) -> None:
    """From its own address on an exposed network; else from the gateway, to its own container."""
    way, _, summary = ping(cluster, 1, "c1", "-c", "1")
    assert (way["source"]["kind"], summary["answered"]) == ("host", 1)

    cluster.ok(1, "overlayd", "network", "create", "quiet", "--internal", "--subnet", "fd71::/64")
    cluster.attach(1, "q1", network="quiet")
    way, _, summary = ping(cluster, 1, "q1", "-c", "1")
    assert (way["source"]["kind"], summary["answered"]) == ("gateway", 1)
    code, _, err = cluster.run(2, "overlayd", "ping", "q1", "-c", "1")
    assert (code, "nothing to send from on network quiet" in err) == (6, True), err


def test_a_source_on_another_host_is_located(cluster: Cluster) -> None:
    """The error names the host; so does a name that nobody has."""
    code, _, err = cluster.run(1, "overlayd", "ping", "c1", "--from", "c2", "-c", "1")
    assert (code, "it is on vm2" in err) == (5, True), err
    code, _, err = cluster.run(1, "overlayd", "ping", "nobody", "-c", "1")
    assert (code, "there is no container 'nobody'" in err) == (5, True), err
