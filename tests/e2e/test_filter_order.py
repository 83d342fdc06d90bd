"""The order in which a host admits and drops a member, by the agent's crash points."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from overlay.failpoint import VARIABLE
from overlay.lab import host_process, lab
from overlay.lab.driver import AgentDriver, connect, end_all, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
PLAN, PASSED = "/run/plan", "/run/plan.passed"
FILTER, ROW_PUT, ROW_DELETED = (
    "nftables.batch",
    "netlink.new-neighbour",
    "netlink.delete-neighbour",
)


@pytest.fixture
def two() -> Iterator[list[AgentDriver]]:
    """Return two hosts; the first has a cluster with a container, and records its steps."""
    assert not host_process.running(), "a lab is up on this machine: overlayd lab down"
    drivers: list[AgentDriver] = []
    try:
        drivers = connect(lab.make(2))
        drivers[0].start(**{VARIABLE: PLAN})
        drivers[1].start()
        drivers[0].post("/v1/join")
        drivers[0].post("/v1/networks", name="blue", subnets=[{"subnet": "10.32.0.0/16"}])
        drivers[0].post("/v1/containers", name="c1", networks=["blue"])
        yield drivers
    finally:
        end_all(drivers)


def test_the_filter_changes_before_added_and_after_removed_rows(
    two: list[AgentDriver],
) -> None:
    """A new member's VTEP is admitted before rows for it; a former one is dropped after them."""
    one, other = two

    def passed() -> list[str]:
        return one.run("sh", "-c", f"cat {PASSED} 2>/dev/null || true").split()

    one.run("sh", "-c", f"echo trace >{PLAN}")
    token = one.get("/v1/token")["token"]
    other.post("/v1/join", peers=[one.address], token=token)
    wait_until(lambda: bool(other.get("/v1/networks")["networks"]), "the network, on the other")
    other.post("/v1/containers", name="c2", networks=["blue"])
    wait_until(lambda: ROW_PUT in passed(), "rows for the other's container")
    coming = passed()
    one.run("rm", PASSED)
    other.post("/v1/leave")
    wait_until(lambda: other.address not in one.run("nft", "list", "ruleset"), "the leaver is out")
    going = passed()

    assert coming.index(FILTER) < coming.index(ROW_PUT)
    assert ROW_DELETED in going
    assert len(going) - going[::-1].index(FILTER) > len(going) - going[::-1].index(ROW_DELETED)
