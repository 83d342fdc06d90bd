"""`overlayd lab soak`: churn on real agents for as long as asked, and what it left behind.

Owns: the churn, drawn from a seed, and the comparison of memory, descriptors, namespaces and
rows before and after it. Every round ends with all hosts equal to each other and to their
kernels.
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
_ROUND_COUNT = 40  # steps between two checks
_ENDPOINTS_MAX = 24
_SETTLE_S = 90.0
_MEMORY_GROWTH_MAX = 1.25  # of the resident size after the first round
_DESCRIPTORS_SLACK = 4  # an API connection and a timer may be open in the moment of counting


@dataclass(frozen=True, slots=True)
class ResourceUsage:
    """What one host holds, with nothing attached but its own container."""

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
    """One churn over a scene."""

    def __init__(self, made: LabCluster, rng: random.Random) -> None:
        self._scene = made
        self._rng = rng
        self._attached: dict[str, AgentDriver] = {}
        self._count = 0
        self.steps = 0
        self.restarts = 0
        self.slowest = (0.0, "nothing")  # seconds waited, and for what

    def round(self) -> None:
        """Make some steps, then take all back and wait until everything is equal."""
        for _ in range(_ROUND_COUNT):
            self._step()
            self.steps += 1
        self._wait(self._scene.all_healthy, "all hosts equal after a round")
        for name in list(self._attached):
            self._remove(name)
        self._wait(self._empty, "all hosts equal with all taken back")

    def _wait(self, condition: Callable[[], bool], told: str) -> None:
        took_s = wait_until(condition, told, _SETTLE_S)
        self.slowest = max(self.slowest, (took_s, told))

    def _empty(self) -> bool:
        """Say whether all is well with nothing but the hosts' own containers."""
        return self._scene.all_healthy() and all(
            len(endpoints(driver)) == HOSTS for driver in self._scene.drivers
        )

    def _step(self) -> None:
        kind = self._rng.choices(("add", "remove", "network", "restart"), (10, 8, 2, 1))[0]
        host = self._rng.choice(self._scene.drivers)
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
        host.run("ip", "netns", "del", name)  # or it just ends

    def figures(self) -> list[ResourceUsage]:
        """Return what each host holds now."""
        return [_figures(driver) for driver in self._scene.drivers]


def _attached(host: AgentDriver, name: str) -> bool:
    """Attach; an agent that has just started may have to hear from its peers first."""
    try:
        attach(host, name)
    except ApiRefusedError:
        return False
    return True


def _figures(driver: AgentDriver) -> ResourceUsage:
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
    """Return what did not return to where it was, as texts."""
    faults = []
    if after.resident_bytes > before.resident_bytes * _MEMORY_GROWTH_MAX:
        faults.append("memory has grown")
    if after.descriptors > before.descriptors + _DESCRIPTORS_SLACK:
        faults.append("descriptors are left open")
    faults += [
        f"{what} are left"
        for what in ("namespaces", "links", "rows")
        if getattr(after, what) != getattr(before, what)
    ]
    return faults


def soak(duration_s: float, seed: int, tell: Callable[[str], None]) -> int:
    """Churn for a while; return 0 if every figure returned to where it was, else 1."""
    tell(f"seed {seed}, {duration_s:.0f} s on {HOSTS} hosts")
    with lab_cluster(HOSTS) as made:
        run = Soak(made, random.Random(seed))
        run.round()  # warm: what is imported and allocated once is there now
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
        faults = left_behind(first, last)
        failed = failed or bool(faults)
        tell(f"vm{number} before: {first}\n    after:  {last}   {'; '.join(faults) or 'as before'}")
    tell(f"longest wait: {run.slowest[0]:.1f} s for {run.slowest[1]}")
    tell(f"{run.steps} steps, {run.restarts} restarts: {'FAILED' if failed else 'all as before'}")
    return int(failed)
