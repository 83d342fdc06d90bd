"""Largest permitted state, and damaged state: everything is back after a restart."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest
from overlay import limits
from overlay.errors import OverlayError
from overlay.lab.driver import AgentDriver, ApiRefusedError, lasting, wait_until
from overlay.lab.fixtures import LabCluster, lab_cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
# Cuts the end off one segment: of the node whose id is given, or of another.
DAMAGE = """
import json, sqlite3, sys
base = sqlite3.connect("/var/lib/overlayd/state.db")
rows = base.execute("SELECT origin, scope, upto, raw FROM segment ORDER BY scope").fetchall()
own = bytes.fromhex(sys.argv[1])
row = next(row for row in rows if (row[0][:4] == own) == (sys.argv[2] == "own"))
where = "origin=? AND scope=? AND upto=?"
base.execute(f"UPDATE segment SET raw=? WHERE {where}", (row[3][:-3], *row[:3]))
base.commit()
"""


# Opens the given number of event streams and exits.
FOLLOW = """
import socket, sys
REQUEST = b"GET /v1/events?follow=1&since=9e9 HTTP/1.1\\r\\nHost: overlayd\\r\\n\\r\\n"
for _ in range(int(sys.argv[1])):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect("/run/overlayd/api.sock")
        connection.sendall(REQUEST)
        answer = connection.recv(15)
        if answer != b"HTTP/1.1 200 OK": sys.exit(answer)
"""


def faults(driver: AgentDriver) -> list[str]:
    """Return what keeps a host's published ports from being answered."""
    shown = driver.get("/v1/published")["published"]
    return [each["fault"] for each in shown if each["fault"]]


@pytest.fixture(scope="module")
def pair() -> Iterator[LabCluster]:
    """Two joined hosts with a container each on network blue."""
    with lab_cluster(2) as made:
        yield made


def names(driver: AgentDriver) -> set[str]:
    """Return the names that a host tells its containers."""
    return {str(each["name"]) for each in driver.get("/v1/dns?network=blue")["names"]}


def test_the_most_names_survive_a_power_cut(pair: LabCluster) -> None:
    """Every name has its longest addresses, and both hosts lose power at once."""
    one = pair.host(1)
    given = {f"{'g' * 60}{number:03}" for number in range(limits.CUSTOM_RECORDS_MAX)}
    for number, name in enumerate(sorted(given)):
        ips = [f"fd99::{number:x}:{each:x}" for each in range(1, limits.CUSTOM_RECORD_IPS_MAX + 1)]
        one.post("/v1/dns", network="blue", name=name, ips=ips)
    with pytest.raises(ApiRefusedError, match="the limit"):
        one.post("/v1/dns", network="blue", name="more", ips=["192.0.2.1"])
    wait_until(lambda: names(pair.host(2)) == given | {"c1", "c2"}, "all names there")
    for driver in pair.drivers:
        driver.end()
    for driver in pair.drivers:
        driver.start()

    wait_until(pair.all_healthy, "all well")
    assert names(pair.host(1)) == given | {"c1", "c2"}
    # What a second had not passed since to write others' records to disk, is fetched again.
    wait_until(lambda: names(pair.host(2)) == given | {"c1", "c2"}, "all names there again")


def test_the_most_published_ports_survive_a_restart(pair: LabCluster) -> None:
    """TCP and UDP ports work within a request's time limit, and follow a name soon."""
    one, half = pair.host(1), limits.PUBLISHED_PORTS_MAX // 2
    ports = [f"{20_000 + n}:{80 + n}{end}" for n in range(half) for end in ("", "/udp")]
    one.post("/v1/published", name="c1", network="blue", ports=ports)
    one.end()
    one.start()

    wait_until(pair.all_healthy, "all well")
    shown = one.get("/v1/published")["published"]
    assert len(shown) == limits.PUBLISHED_PORTS_MAX
    assert lasting(lambda: faults(one)) == []
    one.post("/v1/unpublish", name="c1")


def test_closed_event_streams_free_their_slots(pair: LabCluster) -> None:
    """Without any event, the slots of closed connections are soon free."""
    one = pair.host(1)
    follow = ("python3", "-c", FOLLOW, str(limits.API_CLIENTS_MAX - 6))

    def again() -> bool:
        with contextlib.suppress(OverlayError):
            one.run(*follow)
            return True
        # Those of the failed try are noticed to be gone only at the next check.
        time.sleep(2 * limits.FOLLOWER_CHECK_INTERVAL_S)
        return False

    def count() -> int:
        counts: list[int] = []

        def ask() -> bool:
            with contextlib.suppress(OverlayError):
                counts.append(len(one.get("/v1/events")["events"]))
            return bool(counts)

        # The readers that just went may still hold every place.
        wait_until(ask, "room for one request", limits.API_REQUEST_TIMEOUT_S / 2)
        return counts[-1]

    for _ in range(5):  # an event would end those that went
        before = count()
        wait_until(again, "room", limits.API_REQUEST_TIMEOUT_S / 2)
        wait_until(again, "room for as many more", limits.API_REQUEST_TIMEOUT_S / 2)
        if count() == before:
            return
    pytest.fail("something happens all the time: nothing was shown")


def test_unreadable_records_of_others_are_fetched_again(pair: LabCluster) -> None:
    """The agent starts without them and reports it."""
    two = pair.host(2)
    own = two.get("/v1/status")["node"]["id"].removeprefix("n-")
    before = names(two)
    two.end()
    two.run("python3", "-c", DAMAGE, own, "others")
    two.start()

    wait_until(pair.all_healthy, "all well")
    wait_until(lambda: names(two) == before, "the records of others")
    assert "unreadable records" in two.log_tail()


def test_damaged_own_records_come_back_from_peers(pair: LabCluster) -> None:
    """The agent starts without them, waits for its peer's copy, and reports it."""
    two = pair.host(2)
    own = two.get("/v1/status")["node"]["id"].removeprefix("n-")
    before = names(two)
    two.end()
    two.run("python3", "-c", DAMAGE, own, "own")
    two.start()

    wait_until(pair.all_healthy, "all well")
    wait_until(lambda: bool(two.get("/v1/status")["recovery"]), "recovered")
    wait_until(lambda: names(two) == before, "all names there again")
    ping = ("ip", "netns", "exec", "c1", "ping", "-c1", "-W2", pair.addresses[2])
    assert "1 received" in pair.host(1).run(*ping)
