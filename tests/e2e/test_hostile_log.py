"""A member that writes very many records, and is then forgotten, starves no other agent."""

from __future__ import annotations

import itertools
import os
import re
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from overlay import limits
from overlay.lab.driver import AgentDriver, wait_until
from overlay.lab.fixtures import LabCluster, attach

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]
ROOT = Path(__file__).parent.parent.parent
UNIT = (ROOT / "deploy" / "overlayd.service").read_text(encoding="utf-8")
WATCHDOG_S = int(re.findall(r"^WatchdogSec=(\d+)$", UNIT, re.MULTILINE)[0])
NOTIFIED_S = 1.0  # as if the unit's limit were two seconds
WRITTEN = 20_000
# Python imports a module of this name at its start: this agent writes many networks for one.
HOSTILE = f"""
from overlay.agent.networks import definition
from overlay.core.protocol.records import CLUSTER_SCOPE
from overlay.model import Ip, Network, Subnet, Vni

honest = definition.create

def subnet(number):
    base = 0x64400000 + (number << 2)
    return Subnet(Ip(base.to_bytes(4, "big")), 30, Ip((base + 1).to_bytes(4, "big")))

def create(gossip, directory, spec, constraints):
    made = honest(gossip, directory, spec, constraints)
    if spec.name == "flood":
        for at in range(0, {WRITTEN}, 200):
            gossip.publish(gossip.commit(CLUSTER_SCOPE, [
                Network(Vni(1_000_000 + each), f"x{{each}}", (subnet(each),), gossip.node_id)
                for each in range(at, at + 200)
            ]))
    return made

definition.create = create
"""
COUNT = """
import sqlite3
state = sqlite3.connect("file:/var/lib/overlayd/state.db?mode=ro", uri=True)
print(*state.execute("SELECT count(*) FROM segment GROUP BY origin, scope ORDER BY 1 DESC LIMIT 1"
).fetchone())
"""


class ServiceManager:
    """Receives what an agent sends to systemd's watchdog."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: list[float] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while data := self._socket.recv(4096):
            if b"WATCHDOG=1" in data.splitlines():
                self.heard.append(time.monotonic())

    def close(self) -> None:
        """Stop listening."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"", str(self.path))
        self._thread.join()
        self._socket.close()

    def longest_silence_s(self) -> float:
        """Return the longest time without a notification until now, in seconds."""
        times = [*self.heard, time.monotonic()]
        return max(after - before for before, after in itertools.pairwise(times))


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceManager]:
    """Return what vm1's agent takes for systemd."""
    made = ServiceManager(tmp_path_factory.mktemp("systemd") / "notify")
    yield made
    made.close()


@pytest.fixture(scope="module")
def hostile(
    three: LabCluster, manager: ServiceManager, tmp_path_factory: pytest.TempPathFactory
) -> AgentDriver:
    """Return vm3, whose agent writes without bounds; vm1's is under a watchdog."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "sitecustomize.py").write_text(HOSTILE, encoding="utf-8")
    first, last = three.host(1), three.host(3)
    first.end()
    usec = str(int(2e6 * NOTIFIED_S))
    first.start(NOTIFY_SOCKET=str(manager.path), WATCHDOG_USEC=usec)
    last.end()
    last.start(PYTHONPATH=os.pathsep.join([str(folder), str(ROOT)]))
    wait_until(three.all_healthy, "all are back")
    return last


def segments_of_the_largest_log(driver: AgentDriver) -> int:
    """Return of how many segments the largest log in a host's state file consists."""
    return int(driver.run("python3", "-c", COUNT))


def wait_for_surplus(driver: AgentDriver) -> None:
    """Wait until a host's status names the member whose records do not all count."""
    told = "vm3 has written more network records than count: the surplus is ignored"

    def is_told() -> bool:
        return told in {each["text"] for each in driver.get("/v1/status")["health"]}

    wait_until(is_told, f"{driver.host.name} names it", 120.0)


def test_a_hostile_log_starves_no_watchdog(
    three: LabCluster, hostile: AgentDriver, manager: ServiceManager
) -> None:
    """Neither while it is written, nor once its writer is forgotten, nor at later changes."""
    first, second = three.host(1), three.host(2)
    flood = {"name": "flood", "subnets": [{"subnet": "10.99.0.0/16"}]}
    hostile.call("POST", "/v1/networks", flood, timeout_s=120.0)
    written = segments_of_the_largest_log(hostile)
    assert written > WRITTEN / limits.ENTRIES_PER_SEGMENT_MAX
    for driver in (first, second):
        wait_for_surplus(driver)
        wait_until(
            lambda driver=driver: segments_of_the_largest_log(driver) >= written,  # type: ignore[misc]
            f"{driver.host.name} has all of it",
            120.0,
        )
    assert len(first.get("/v1/networks")["networks"]) <= limits.NETWORKS_PER_NODE_MAX + 1

    forget = {"node": "vm3", "ban": True, "remove_networks": True}
    first.call("POST", "/v1/forget", forget, timeout_s=WATCHDOG_S)
    wait_until(
        lambda: [each["name"] for each in second.get("/v1/networks")["networks"]] == ["blue"],
        "vm2 has only the network of others",
        60.0,
    )
    second.run("ip", "netns", "add", "later")
    attach(second, "later")
    first.post("/v1/networks", name="after", subnets=[{"subnet": "10.98.0.0/16"}])

    silence_s = manager.longest_silence_s()
    print(f"{written} segments; longest silence: {silence_s:.1f} s")  # noqa: T201 - shown with -s
    assert len(manager.heard) > 2, "it reported all the time"
    assert silence_s < WATCHDOG_S
