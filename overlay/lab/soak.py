"""`overlayd lab soak`: churn on real agents, then check for leaks.

Owns: the churn, drawn from a seed, and the comparison of memory, descriptors, namespaces, links and
rows before and after it. At the end of every round all hosts must be equal and match their kernels.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from overlay.errors import OverlayError
from overlay.lab.driver import AgentDriver, ApiRefusedError, endpoints, wait_until
from overlay.lab.fixtures import LabCluster, attach, lab_cluster

HOSTS = 3
_ROUND_COUNT = 40  # steps between checks
_ENDPOINTS_MAX = 24
_SETTLE_S = 90.0
_MEMORY_GROWTH_MAX = 1.25  # of the resident size after the first round
_DESCRIPTORS_SLACK = 4  # an API connection and a timer may be open at that moment


@dataclass(frozen=True, slots=True)
class ResourceUsage:
    """The resources that one host uses with only its own container."""

    resident_bytes: int
    descriptors: int
    namespaces: int
    links: int
    rows: int

    def __str__(self) -> str:
        return (
            f"{self.resident_bytes / 2**20:.0f} MiB, {self.descriptors} descriptors, "
            f"{self.namespaces} namespaces, {self.links} links, {self.rows} rows"
        )


class Soak:
    """The churn on one cluster."""

    def __init__(self, cluster: LabCluster, rng: random.Random) -> None:
        self._cluster = cluster
        self._rng = rng
        self._attached: dict[str, AgentDriver] = {}
        self._count = 0
        self.steps = 0
        self.restarts = 0
        self.slowest = (0.0, "nothing")  # the longest wait in seconds, and its reason

    def round(self) -> None:
        """Run some steps, then undo them and wait until all hosts are equal."""
        for _ in range(_ROUND_COUNT):
            self._step()
            self.steps += 1
        self._wait(self._cluster.all_healthy, "all hosts equal after a round")
        for name in list(self._attached):
            self._remove(name)
        self._wait(self._is_empty, "all hosts equal with everything detached")

    def _wait(self, condition: Callable[[], bool], awaited: str) -> None:
        took_s = wait_until(condition, awaited, _SETTLE_S)
        self.slowest = max(self.slowest, (took_s, awaited))

    def _is_empty(self) -> bool:
        """Return whether all hosts agree on having only their own containers."""
        return self._cluster.all_healthy() and all(
            len(endpoints(driver)) == HOSTS for driver in self._cluster.drivers
        )

    def _step(self) -> None:
        kind = self._rng.choices(("add", "remove", "network", "restart"), (10, 8, 2, 1))[0]
        host = self._rng.choice(self._cluster.drivers)
        if kind == "restart":
            host.end(self._rng.choice((signal.SIGTERM, signal.SIGKILL)))
            host.start()
            self.restarts += 1
        elif kind == "network":
            host.post("/v1/networks", name="brief", subnets=[{"subnet": "10.99.0.0/24"}])
            host.call("DELETE", "/v1/networks/brief")
        elif kind == "remove" and self._attached:
            self._remove(self._rng.choice(sorted(self._attached)))
        elif len(self._attached) < _ENDPOINTS_MAX:
            self._add(host)

    def _add(self, host: AgentDriver) -> None:
        self._count += 1
        name = f"s{self._count}"
        host.run("ip", "netns", "add", name)
        self._attached[name] = host
        self._wait(lambda: _attached(host, name), f"{name} attached on {host.host.name}")

    def _remove(self, name: str) -> None:
        host = self._attached.pop(name)
        if self._rng.random() < 0.7:
            host.post("/v1/detach", target=f"netns:{name}")
        host.run("ip", "netns", "del", name)  # without a detach, the container just ends

    def figures(self) -> list[ResourceUsage]:
        """Return the present resource usage of each host."""
        return [_usage(driver) for driver in self._cluster.drivers]


def _attached(host: AgentDriver, name: str) -> bool:
    """Attach.

    Returns False if the agent refuses, as one without contact to its peers does.
    """
    try:
        attach(host, name)
    except ApiRefusedError:
        return False
    return True


def _usage(driver: AgentDriver) -> ResourceUsage:
    proc = Path(f"/proc/{driver.pid()}")
    pages = int((proc / "statm").read_text(encoding="ascii").split()[1])
    names = driver.run("sh", "-c", "ls /run/netns").split()
    links = sum(driver.run("ip", "-n", name, "-o", "link").count("\n") for name in names)
    networks = driver.get("/v1/status")["networks"]
    return ResourceUsage(
        resident_bytes=pages * 4096,
        descriptors=len(list((proc / "fd").iterdir())),
        namespaces=len(names),
        links=links,
        rows=sum(int(each["rows"]["actual"]) for each in networks),
    )


def left_behind(before: ResourceUsage, after: ResourceUsage) -> list[str]:
    """Return descriptions of the resources that were not released."""
    leaks = []
    if after.resident_bytes > before.resident_bytes * _MEMORY_GROWTH_MAX:
        leaks.append("memory has grown")
    if after.descriptors > before.descriptors + _DESCRIPTORS_SLACK:
        leaks.append("descriptors are left open")
    leaks += [
        f"{what} are left"
        for what in ("namespaces", "links", "rows")
        if getattr(after, what) != getattr(before, what)
    ]
    return leaks


def soak(duration_s: float, seed: int, tell: Callable[[str], None]) -> int:
    """Run the churn for a while.

    Returns 1 if a resource was not released, else 0.
    """
    tell(f"seed {seed}, {duration_s:.0f} s on {HOSTS} hosts")
    with lab_cluster(HOSTS) as cluster:
        run = Soak(cluster, random.Random(seed))
        run.round()  # warm-up: one-time imports and allocations are done afterwards
        before = run.figures()
        started = time.monotonic()
        try:
            while time.monotonic() - started < duration_s:
                run.round()
                shown = "; ".join(str(each) for each in run.figures())
                tell(f"{time.monotonic() - started:6.0f} s: {run.steps} steps, {shown}")
        except OverlayError as error:
            tell(f"failed with seed {seed}: {error}")
            return 1
        after = run.figures()
    failed = False
    for number, (first, last) in enumerate(zip(before, after, strict=True), start=1):
        leaks = left_behind(first, last)
        failed = failed or bool(leaks)
        tell(f"vm{number} before: {first}\n    after:  {last}   {'; '.join(leaks) or 'as before'}")
    tell(f"longest wait: {run.slowest[0]:.1f} s for {run.slowest[1]}")
    tell(f"{run.steps} steps, {run.restarts} restarts: {'FAILED' if failed else 'all as before'}")
    return int(failed)
