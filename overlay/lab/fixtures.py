"""A cluster for fault tests: hosts with one container each.

Owns: the usual set-up and the usual checks.
Does not: know the faults.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from overlay import limits
from overlay.lab import lab
from overlay.lab.driver import (
    AgentDriver,
    connect,
    differences,
    end_all,
    endpoints,
    join_all,
    wait_until,
)
from overlay.lab.flow import PORT, ContainerLocation, Flow, FlowResult

_TABLE = "inet lab"


class LabCluster:
    """Joined hosts 1..n, each with container c1..cn on network blue."""

    def __init__(self, drivers: list[AgentDriver]) -> None:
        self.drivers = drivers
        self.addresses: dict[int, str] = {}

    def populate(self) -> None:
        """Create the network and the containers."""
        self.drivers[0].post("/v1/networks", name="blue", subnets=[{"subnet": "10.32.0.0/16"}])
        for each in self.drivers:
            each.run("ip", "netns", "add", f"c{each.number}")
            self.addresses[each.number] = attach(each, f"c{each.number}")
        # An attach waits a second for the other hosts, which is little on a loaded machine.
        wait_until(self.all_equal, "all hosts know all containers")

    def host(self, number: int) -> AgentDriver:
        """Return a host, counted from 1."""
        return self.drivers[number - 1]

    def place(self, number: int) -> ContainerLocation:
        """Return a host's container."""
        return ContainerLocation(self.host(number), f"c{number}")

    def flow(self, source: int, target: int, port: int = PORT) -> Flow:
        """Return a flow between two hosts' containers."""
        return Flow(self.place(source), self.place(target), self.addresses[target], port=port)

    @contextlib.contextmanager
    def both_ways(self) -> Iterator[list[FlowResult]]:
        """Send packets both ways between c1 and c2 during the block.

        The yielded list holds the two results afterwards.
        """
        verdicts: list[FlowResult] = []
        with self.flow(1, 2) as there, self.flow(2, 1, PORT + 1) as back:
            yield verdicts
        for each in (there, back):
            assert each.verdict is not None, "a flow that ended has its verdict"
            verdicts.append(each.verdict)

    def all_equal(self) -> bool:
        """Return whether all hosts agree and their kernels match."""
        first = endpoints(self.drivers[0])
        return all(endpoints(each) == first and not differences(each) for each in self.drivers)

    def alive(self) -> bool:
        """Return whether every host considers every other one alive."""
        return all(
            each["state"] == "alive"
            for driver in self.drivers
            for each in driver.get("/v1/members")["members"]
        )

    def all_healthy(self) -> bool:
        """Return whether all hosts are alive and equal.

        Returns False if an agent does not respond.
        """
        with contextlib.suppress(OSError):
            return self.alive() and self.all_equal()
        return False


def attach(driver: AgentDriver, namespace: str, **options: object) -> str:
    """Attach a namespace to network blue; return its address."""
    answer = driver.post("/v1/endpoints", target=f"netns:{namespace}", networks=["blue"], **options)
    return str(answer["endpoints"][0]["ip"])


def cut_gossip(driver: AgentDriver, statement: str = "drop", direction: str = "input") -> None:
    """Apply an nftables statement to gossip packets on a host.

    Forwarding is unaffected.
    """
    rule = f"udp dport {limits.GOSSIP_PORT_DEFAULT} {statement}"
    chain = f"type filter hook {direction} priority 0; {rule};"
    driver.run("nft", f"table {_TABLE} {{ chain {direction} {{ {chain} }}; }}")


def heal(driver: AgentDriver) -> None:
    """Delete the rules of `cut_gossip`."""
    driver.run("sh", "-c", f"nft delete table {_TABLE} 2>/dev/null || true")


@contextlib.contextmanager
def lab_cluster(count: int, *, populated: bool = True) -> Iterator[LabCluster]:
    """Create a cluster for the duration of a block."""
    drivers: list[AgentDriver] = []
    try:
        drivers = connect(lab.make(count))
        made = LabCluster(drivers)
        if populated:
            join_all(drivers)
            made.populate()
        yield made
    finally:
        end_all(drivers)
