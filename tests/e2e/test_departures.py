"""Hosts that leave, and networks in which no other host participated: nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from overlay.lab.driver import AgentDriver, ApiRefusedError, differences, join_all, wait_until
from overlay.lab.fixtures import LabCluster, cut_gossip, heal, lab_cluster

CONFLICT = 409
ALL_ALIVE = {"alive": 3, "suspect": 0, "dead": 0}
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def three() -> Iterator[LabCluster]:
    """Three joined hosts that all hold the authority, without networks."""
    with lab_cluster(3, populated=False) as made:
        join_all(made.drivers)
        for name in ("vm2", "vm3"):
            made.host(1).post("/v1/promote", node=name)
        yield made


def create(three: LabCluster, number: int, name: str, subnet: str) -> None:
    """Make a network on a host; return when all know it."""
    three.host(number).post("/v1/networks", name=name, subnets=[{"subnet": subnet}])
    for driver in three.drivers:
        wait_until(lambda driver=driver: name in known(driver), f"{name} known")  # type: ignore[misc]


def known(driver: AgentDriver) -> list[str]:
    """Return the names of the networks that a host knows."""
    return [each["name"] for each in driver.get("/v1/networks")["networks"]]


def rejoin(three: LabCluster, number: int, by: int) -> None:
    """Make a host that left a member again."""
    token = three.host(by).get("/v1/token")["token"]
    three.host(number).post("/v1/join", peers=[three.host(by).address], token=token)
    for driver in three.drivers:
        wait_until(lambda driver=driver: counted(driver) == ALL_ALIVE, "all know all")  # type: ignore[misc]
    three.host(by).post("/v1/promote", node=f"vm{number}")


def counted(driver: AgentDriver) -> dict[str, int]:
    """Return how many members a host has in each state, less those that left."""
    counts: dict[str, int] = driver.get("/v1/status")["cluster"]["members"]
    return {state: count for state, count in counts.items() if state != "left"}


def add(driver: AgentDriver, name: str, network: str) -> str:
    """Make a container; return its address."""
    made = driver.post("/v1/containers", name=name, networks=[network])
    return str(made["endpoints"][0]["ip"])


def removed(driver: AgentDriver, name: str) -> bool:
    """Remove a network as soon as it is known there that nothing is attached to it any more."""
    try:
        driver.call("DELETE", f"/v1/networks/{name}")
    except ApiRefusedError as error:
        if error.status == CONFLICT:
            return False
        raise
    return True


def shown_endpoints(driver: AgentDriver, network: str) -> list[tuple[str, str]]:
    """Return the name and node of each endpoint that a host knows of on a network."""
    found = driver.get(f"/v1/endpoints?network={network}")["endpoints"]
    return [(each["name"], each["node"]) for each in found]


def test_a_network_in_use_elsewhere_is_not_removed(three: LabCluster) -> None:
    """A host without an endpoint on it cannot remove it either: it knows of those of others."""
    create(three, 1, "used", "10.71.0.0/24")
    add(three.host(2), "busy", "used")

    with pytest.raises(ApiRefusedError, match="busy on vm2"):
        three.host(3).call("DELETE", "/v1/networks/used")

    assert "used" in known(three.host(3))
    wait_until(
        lambda: shown_endpoints(three.host(3), "used") == [("busy", "vm2")], "vm3 knows of it"
    )
    three.host(2).call("DELETE", "/v1/containers/busy")
    wait_until(lambda: removed(three.host(3), "used"), "it can be removed")
    wait_until(lambda: not any(map(known, three.drivers)), "removed everywhere")


@pytest.mark.parametrize("subnet", ["10.72.0.0/24", "fd72::/64"])
def test_the_space_of_a_departed_creator_is_reclaimed(three: LabCluster, subnet: str) -> None:
    """Without participants, the next nodes that need an address get the space."""
    create(three, 3, "orphan", subnet)
    three.host(3).post("/v1/leave")
    rejoin(three, 3, by=1)

    first = add(three.host(2), "first", "orphan")
    second = add(three.host(3), "second", "orphan")

    assert first != second
    wait_until(lambda: not any(map(differences, three.drivers)), "kernels as desired")
    three.host(2).call("DELETE", "/v1/containers/first")
    three.host(3).call("DELETE", "/v1/containers/second")
    wait_until(lambda: removed(three.host(1), "orphan"), "it can be removed")


def test_reclaiming_nodes_may_leave_in_turn(three: LabCluster) -> None:
    """Each had the whole space for itself, without other participants."""
    create(three, 3, "passed", "10.75.0.0/24")
    three.host(3).post("/v1/leave")
    rejoin(three, 3, by=1)
    for number in (1, 2, 3, 1):
        assert add(three.host(number), "last", "passed").startswith("10.75.0.")
        three.host(number).call("DELETE", "/v1/containers/last")
        three.host(number).post("/v1/leave")
        rejoin(three, number, by=number % 3 + 1)
    wait_until(lambda: removed(three.host(2), "passed"), "it can be removed")


def test_endpoints_on_a_removed_network_are_detached(three: LabCluster) -> None:
    """They were attached during a partition; an agent that starts later detaches them too."""
    one, two = three.host(1), three.host(2)
    for restart in (False, True):
        create(three, 1, "cut", "10.76.0.0/24")
        add(two, "first", "cut")  # which gives vm2 addresses of its own
        two.call("DELETE", "/v1/containers/first")
        wait_until(lambda: not one.get("/v1/endpoints?network=cut")["endpoints"], "gone")
        for driver in (one, two):
            cut_gossip(driver)
        try:
            add(two, "late", "cut")
            one.call("DELETE", "/v1/networks/cut")
            if restart:
                two.end()
        finally:
            for driver in (one, two):
                heal(driver)
        if restart:
            two.start()

        wait_until(lambda: "cut" not in known(two), "removed there too", 60.0)
        wait_until(lambda: not attached(two, "late"), "detached", 60.0)
        wait_until(lambda: "ov-" not in two.run("ls", "/run/netns"), "its sandbox is gone", 60.0)
        two.call("DELETE", "/v1/containers/late")


def attached(driver: AgentDriver, name: str) -> list[object]:
    """Return the networks that a container is attached to."""
    shown = driver.get("/v1/containers")["containers"]
    return [end for each in shown if each["name"] == name for end in each["endpoints"]]


def test_the_reclaiming_node_grants_unused_addresses(three: LabCluster) -> None:
    """A third host gets addresses that the reclaiming node never used."""
    create(three, 3, "left", "10.73.0.0/24")
    three.host(3).end()
    states = [
        each["id"] for each in three.host(1).get("/v1/members")["members"] if each["name"] == "vm3"
    ]
    wait_until(lambda: forgotten(three.host(1), states[0]), "vm3 forgotten", 60.0)

    assert add(three.host(2), "late", "left").startswith("10.73.0.")


def forgotten(driver: AgentDriver, node: str) -> bool:
    """Forget a node once it is declared dead; return whether that succeeded."""
    try:
        driver.post("/v1/forget", node=node)
    except ApiRefusedError:
        return False
    return True


def scopes(driver: AgentDriver) -> set[str]:
    """Return the scopes of the logs that a host holds."""
    return {
        str(log["scope"])
        for member in driver.get("/v1/members")["members"]
        for log in member["logs"]["versions"]
    }


def test_a_reused_vni_inherits_nothing(three: LabCluster) -> None:
    """Neither custom records nor participating hosts of the removed network remain."""
    one, two = three.host(1), three.host(2)
    for _ in range(2):
        one.post("/v1/networks", name="again", vni=4242, subnets=[{"subnet": "10.74.0.0/24"}])
        wait_until(lambda: "again" in known(two), "known")
        add(two, "brief", "again")
        assert [each["name"] for each in two.get("/v1/dns?network=again")["names"]] == ["brief"]
        two.post("/v1/dns", network="again", name="database", ips=["192.0.2.1"])
        two.call("DELETE", "/v1/containers/brief")
        wait_until(lambda: removed(one, "again"), "removed")
        for driver in (one, two):
            wait_until(lambda driver=driver: "again" not in known(driver), "gone")  # type: ignore[misc]
            wait_until(lambda driver=driver: not any("4242" in s for s in scopes(driver)), "done")  # type: ignore[misc]


def test_a_network_recreated_under_its_vni_is_kept(three: LabCluster) -> None:
    """The creator waits until the remover knows the end of the former network.

    Otherwise the remover's request would remove the new network too.
    """
    one, two = three.host(1), three.host(2)
    wish = {"name": "twice", "vni": 4343, "subnets": [{"subnet": "10.77.0.0/24"}]}

    def made() -> bool:
        try:
            return bool(one.post("/v1/networks", **wish)["created"])
        except ApiRefusedError as error:
            if "vm2 removed" not in error.answer["why"]:
                raise
            return False

    assert made()
    wait_until(lambda: "twice" in known(two), "known")
    cut_gossip(two)
    try:
        two.call("DELETE", "/v1/networks/twice")
        wait_until(lambda: "twice" not in known(one), "one has heard of it")
        assert not made()
    finally:
        heal(two)
    wait_until(made, "the number is free")
    for driver in (one, two):
        wait_until(lambda driver=driver: "twice" in known(driver), "known again")  # type: ignore[misc]
        add(driver, f"stays{driver.number}", "twice")
    assert "twice" in known(one)
    assert "twice" in known(two)
    for driver in (one, two):
        driver.call("DELETE", f"/v1/containers/stays{driver.number}")
    wait_until(lambda: removed(one, "twice"), "it can be removed")
