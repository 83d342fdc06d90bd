"""Containers that Docker starts are assigned as soon as their namespace is complete."""

from __future__ import annotations

import asyncio
import collections
import errno
import socket
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from overlay import limits
from overlay.agent.plugins.docker.arrivals import ContainerArrivals, interface_name
from overlay.agent.runtimes.targets import Target
from overlay.errors import OverlayError
from overlay.kernel import netns

ENDPOINT, OTHER = "e" * 64, "f" * 64
PLACE, ELSEWHERE = "/var/run/docker/netns/1", "/var/run/docker/netns/2"


class FakeHost:
    """Docker's endpoints and namespaces, and who looked for them how often."""

    def __init__(self) -> None:
        self.attachments: dict[str, Any] = {
            each: SimpleNamespace(netns_identity=(0, 7)) for each in (ENDPOINT, OTHER)
        }
        self.namespaces: dict[str, int | None] = {}  # None: a file where nothing is mounted yet
        self.moved: set[str] = set()  # interfaces that Docker has taken
        self.up: set[str] = set()
        self.failures = 0
        self.looks: collections.Counter[str] = collections.Counter()
        self.assigned: list[tuple[str, str, tuple[int, int]]] = []

    def find(self, endpoint: str) -> Any:
        """Return the attachment of an endpoint."""
        return self.attachments.get(endpoint)

    def index(self, ifname: str) -> int:
        """Return the index of an interface of the host."""
        self.looks[ifname] += 1
        if ifname in self.moved:
            raise OSError(errno.ENODEV, ifname)
        return 3

    def open(self, path: str) -> int | None:
        """Return the descriptor of a namespace."""
        self.looks[path] += 1
        if path not in self.namespaces:
            raise FileNotFoundError(path)
        return self.namespaces[path]

    async def assign(self, endpoint: str, target: Target, *, when_up: bool) -> bool:
        """Assign an endpoint, if its interface is up."""
        self.looks[endpoint] += 1
        if self.looks[endpoint] <= self.failures:
            raise OverlayError("the disk is full")
        is_up = when_up and endpoint in self.up
        if is_up:
            self.assigned.append((endpoint, target.netns_path, target.identity))
        return is_up

    async def looked(self, what: str, times: int = 3) -> None:
        """Return once a path or an endpoint was looked at some more times."""
        wanted = self.looks[what] + times
        async with asyncio.timeout(30):
            while self.looks[what] < wanted:  # noqa: ASYNC110 - looks are counted in system calls
                await asyncio.sleep(limits.DOCKER_ARRIVAL_POLL_S)


@pytest_asyncio.fixture
async def host(monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """Return the host, of whose endpoints two wait for their containers."""
    made = FakeHost()
    monkeypatch.setattr(netns, "open_if_namespace", made.open)
    monkeypatch.setattr(socket, "if_nametoindex", made.index)
    monkeypatch.setattr(netns, "identity", lambda descriptor: (4, descriptor))
    monkeypatch.setattr(Target, "close", lambda _: None)
    return made


@pytest_asyncio.fixture
async def arrivals(host: FakeHost) -> AsyncIterator[ContainerArrivals]:
    """Return the component, which runs."""
    made = ContainerArrivals(host)  # type: ignore[arg-type]
    running = asyncio.create_task(made.run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_it_is_assigned_once_its_interface_is_up(
    arrivals: ContainerArrivals, host: FakeHost
) -> None:
    """Not before Docker has taken it; a failure in between ends nothing."""
    host.failures = 1
    arrivals.expect(ENDPOINT, PLACE)
    await host.looked(interface_name(ENDPOINT))
    assert host.looks[PLACE] == 0

    host.moved.add(interface_name(ENDPOINT))
    await host.looked(PLACE)
    host.namespaces[PLACE] = None
    await host.looked(PLACE)
    assert host.looks[ENDPOINT] == 0

    host.namespaces[PLACE] = 9
    await host.looked(ENDPOINT)
    assert host.assigned == []
    host.up.add(ENDPOINT)
    await host.looked(ENDPOINT, 1)
    looks = host.looks[ENDPOINT]
    arrivals.expect(OTHER, ELSEWHERE)
    await host.looked(interface_name(OTHER))
    assert host.assigned == [(ENDPOINT, PLACE, (4, 9))]
    assert host.looks[ENDPOINT] == looks


async def test_one_that_never_comes_is_given_up(
    arrivals: ContainerArrivals, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a bounded time, after its detach, and where an event of Docker's was quicker."""
    host.attachments[ENDPOINT].netns_identity = (4, 9)
    arrivals.expect(ENDPOINT, PLACE)
    arrivals.expect("d" * 64, PLACE)  # detached
    arrivals.expect(OTHER, ELSEWHERE)
    await host.looked(interface_name(OTHER))
    assert host.looks[interface_name(ENDPOINT)] == 0

    host.attachments[ENDPOINT].netns_identity = (0, 7)
    arrivals.expect(ENDPOINT, PLACE)
    await host.looked(interface_name(ENDPOINT))
    monkeypatch.setattr(limits, "DOCKER_ARRIVAL_MAX_S", 0.0)
    async with asyncio.timeout(30):
        while arrivals.is_expected(ENDPOINT):  # noqa: ASYNC110 - it has no signal
            await asyncio.sleep(limits.DOCKER_ARRIVAL_POLL_S)
