"""Fixtures: real hosts with real agents, whose logs are attached to every failure."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from overlay.errors import DegradedError
from overlay.lab import host_process, lab
from overlay.lab.driver import WAIT_S, catch_up, lasting
from overlay.lab.fixtures import LabCluster, lab_cluster
from overlay.lab.host_process import HostProcess
from tests.e2e import data_paths
from tests.e2e.data_paths import PathWatch
from tests.e2e.docker_engine import build_image
from tests.e2e.longest import rank

ROOT = Path(__file__).parent.parent.parent
UNCONFIRMED = re.compile(r"not yet confirmed by ([\w-]+(?:, [\w-]+)*)")  # what an attach warns of
ADDRESS = re.compile(r"[\da-f:.]+(?=\s)")  # the first word that it prints
TABLE = re.compile(r"(?<=<!-- chaos -->\n).*?(?=<!-- /chaos -->)", re.DOTALL)


class FailedCommandError(AssertionError):
    """A command failed that must succeed: at once, or by the end where that is waited for."""


class Cluster:
    """The hosts of a lab, controlled through the command line only."""

    def __init__(self, hosts: list[HostProcess]) -> None:
        self.hosts = hosts

    def run(self, number: int, *command: str, stdin: str | None = None) -> tuple[int, str, str]:
        """Run a command on host vm`number`; return exit code, stdout and stderr."""
        done = host_process.run(self.hosts[number - 1], *command, stdin=stdin)
        return done.returncode, done.stdout, done.stderr

    def ok(self, number: int, *command: str) -> str:
        """Run a command that must succeed; return its stdout."""
        code, out, err = self.run(number, *command)
        if code != 0:
            raise FailedCommandError(f"vm{number}: {' '.join(command)}: {out}{err}")
        if (unconfirmed := UNCONFIRMED.search(err)) and (ip := ADDRESS.match(out)):
            catch_up(unconfirmed[1].split(", "), ip[0])
        return out

    def json(self, number: int, *verb: str) -> dict[str, Any]:
        """Run a reading verb; return its JSON, also where it tells of something wrong."""
        code, out, err = self.run(number, "overlayd", *verb, "--json")
        if code not in (0, DegradedError.exit_code):
            raise FailedCommandError(f"vm{number}: {' '.join(verb)}: {out}{err}")
        found: dict[str, Any] = json.loads(out)
        return found

    def differences(self, number: int) -> list[str]:
        """Return what `verify` finds on a host, and goes on finding."""
        return lasting(lambda: [e["text"] for e in self.json(number, "verify")["differences"]])

    def complaints(self, number: int) -> list[str]:
        """Return what a host's status complains of, and goes on complaining of."""
        return lasting(lambda: [e["text"] for e in self.json(number, "status")["health"]])

    def events(self, number: int) -> list[dict[str, Any]]:
        """Return the events of host vm`number`."""
        lines = self.ok(number, "overlayd", "events", "--json").splitlines()
        return [json.loads(line) for line in lines]

    def inside(self, number: int, container: str, *command: str) -> tuple[int, str, str]:
        """Run a command in a bare container."""
        return self.run(number, "ip", "netns", "exec", container, *command)

    def sandbox(self, number: int) -> str:
        """Return the name of a host's one sandbox."""
        names = [line.split()[0] for line in self.ok(number, "ip", "netns").splitlines()]
        (found,) = [name for name in names if name.startswith("ov-")]
        return found

    def attach(self, number: int, name: str, *options: str, network: str = "blue") -> str:
        """Make a namespace and attach it; return its address."""
        self.ok(number, "ip", "netns", "add", name)
        return self.ok(number, "overlayd", "attach", name, "--network", network, *options).strip()


def wait_until(condition: Callable[[], bool], told: str, timeout_s: float = WAIT_S) -> None:
    """Poll until a condition holds; on a timeout, fail with its description.

    A look whose command fails is repeated as well: its file, or its agent, may not be there yet.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        failed = None
        try:
            if condition():
                return
        except FailedCommandError as error:
            failed = error
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {timeout_s} s in vain: {told}") from failed
        time.sleep(0.02)


@pytest.fixture(scope="session")
def eventually() -> Callable[..., None]:
    """Return the polling helper."""
    return wait_until


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a container image that contains only busybox, for Docker and Podman to import."""
    return build_image(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="session")
def cluster_of() -> type[Cluster]:
    """Return the class that controls hosts which a test created itself."""
    return Cluster


@pytest.fixture(scope="session")
def new_cluster() -> type[Cluster]:
    """Return the class, for modules with a lab of another shape."""
    return Cluster


@pytest.fixture(scope="module")
def hosts() -> Iterator[Cluster]:
    """Three hosts on one underlay, with no agent yet."""
    assert not host_process.running(), "a lab is up on this machine: overlayd lab down"
    try:
        yield Cluster(lab.make(3))
    finally:
        host_process.end(host_process.running())


@pytest.fixture(scope="module")
def cluster(hosts: Cluster) -> Cluster:
    """Three joined hosts with network blue and the containers c1, c2 and c3."""
    lab.join(hosts.hosts)
    lab.populate(hosts.hosts)
    return hosts


@pytest.fixture(scope="module")
def three() -> Iterator[LabCluster]:
    """Three joined hosts with a container each, whose agents may be ended."""
    assert not host_process.running(), "a lab is up on this machine: overlayd lab down"
    with lab_cluster(3) as made:
        yield made


@pytest.fixture(scope="session")
def tell() -> Iterator[Callable[[str, str, str], None]]:
    """Record what was promised and measured for a fault; the table is written at the end."""
    rows: list[tuple[str, str, str]] = []

    def note(fault: str, promised: str, measured: str) -> None:
        rows.append((fault, promised, measured))
        print(f"{fault}: {measured}")  # noqa: T201 - asked for

    yield note
    if os.environ.get("OVERLAYD_WRITE_TABLE"):
        lines = ["| fault | promised | measured |", "|---|---|---|"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        document = ROOT / "docs/TESTING.md"
        text = document.read_text(encoding="utf-8")
        document.write_text(TABLE.sub(lambda _: "\n".join(lines) + "\n", text), encoding="utf-8")


@pytest.fixture(scope="module")
def path_watch(request: pytest.FixtureRequest) -> Iterator[PathWatch]:
    """Return what looks at the hosts' data path; in the end, a network must have taken it."""
    watch = PathWatch()
    yield watch
    others = data_paths.WITHOUT_PACKETS + data_paths.OF_PACKAGES
    is_required = watch.wanted and request.node.nodeid not in others
    assert watch.is_taken or not is_required, f"no network was seen on the path {watch.wanted}"


@pytest.fixture(autouse=True)
def taken_path(path_watch: PathWatch) -> Iterator[None]:
    """Check after each test that the hosts take the path which the environment asks for."""
    yield
    if path_watch.wanted:
        path_watch.look()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of the data plane, and put the longest files first.

    The workers keep this order (--no-loadscope-reorder).
    """
    for item in items:
        if item.nodeid.partition("::")[0] in data_paths.FILES:
            item.add_marker(pytest.mark.data_path)
    items.sort(key=lambda item: rank(item.nodeid.partition("::")[0]))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Put the agents' logs beside a failure."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.failed:
        for host in host_process.running():
            if host.name != lab.SWITCH:
                log = host_process.run(host, "tail", "-n", "40", "/run/overlayd/agent.log").stdout
                report.sections.append((f"agent of {host.name}", log))
