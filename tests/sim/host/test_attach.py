"""Attaches and detaches that fail or are killed at any step."""

from __future__ import annotations

import pytest
from overlay.core.protocol.records import Scope
from overlay.errors import OverlayError
from overlay.model import Endpoint, Network, NodeId
from overlay.sim.host.attach import PendingAttach
from overlay.sim.host.host import Host
from overlay.sim.host.kernel import Container
from overlay.sim.run import Run
from overlay.sim.scenario import Scenario
from overlay.sim.world.world import Site

CALM = Scenario(
    nodes=3, seed=3, loss=0.0, partitions=0, crashes=0, clogs=0, stalls=0, moves=0, leaves=0,
    newcomers=0, tampers=0, churn=1.0, networks=1, hosts_per_network=3, duration=3.0,
)  # fmt: skip
NAME = "one-more"
CRASH_POINTS = 4  # of an attach, and of a detach, on a network that the host participates in


class Place:
    """A host of a converged cluster, and a network of that host."""

    def __init__(self) -> None:
        self.run = Run(CALM)
        assert self.run.to_end().held
        self.world = self.run.world
        self.network: Network = self.world.networks[0]
        self.site: Site = next(
            site
            for site in self.world.sites
            if any(c.endpoint.vni == self.network.vni for c in site.host.kernel.containers.values())
        )
        self.host: Host = self.site.host

    def attach(self) -> None:
        """Attach a container, and let the cluster hear of it."""
        request = PendingAttach(self.network, 0, NAME)
        self.host.guarded(self.site.agent.attach, request)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.world.schedule.run_until(self.world.schedule.now + seconds)

    def restart(self) -> None:
        """Start the agent again, and wait until it has tidied up."""
        self.host.start()
        self.wait(30.0)
        assert self.run.convergence.faults() is None

    @property
    def stored(self) -> list[Container]:
        """The container's attachment on disk."""
        return [c for c in self.host.disk.attachments.values() if c.endpoint.name == NAME]

    @property
    def connected(self) -> list[Container]:
        """The container's interface in the kernel."""
        return [c for c in self.host.kernel.containers.values() if c.endpoint.name == NAME]

    def known_on(self, host: Host) -> list[NodeId]:
        """Return the origins of the container's record, as a host knows them."""
        assert host.node is not None
        return [
            origin
            for origin, value in host.node.store.values(Scope(self.network.vni), "endpoint")
            if isinstance(value, Endpoint) and value.name == NAME
        ]

    def known_elsewhere(self) -> bool:
        """Return whether another host has the container's record."""
        return any(self.known_on(h) for h in self.world.hosts if h is not self.host)


@pytest.fixture
def place() -> Place:
    """Return a host on which one more container is to be attached."""
    return Place()


def test_an_attach_reaches_every_host(place: Place) -> None:
    """Disk, kernel and the other hosts have the container."""
    place.attach()
    place.wait(3.0)

    assert len(place.stored) == len(place.connected) == 1
    assert place.known_elsewhere()


def test_an_attach_that_the_kernel_refuses_is_undone(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The endpoint was durable, but no other host ever heard of it."""
    heard: list[bool] = []

    def refuse(*_: object) -> None:
        heard.append(bool(place.stored))
        raise OverlayError("no buffer space")

    monkeypatch.setattr(type(place.host.kernel), "plug", refuse)
    place.attach()
    place.wait(3.0)

    assert heard == [True], "durable before programmed"
    assert not place.stored
    assert not place.connected
    assert not place.known_on(place.host)
    assert not place.known_elsewhere()
    assert place.site.agent.pending == []


@pytest.mark.parametrize("after", range(CRASH_POINTS))
def test_an_attach_killed_at_any_step_is_whole_or_none(place: Place, after: int) -> None:
    """Programmed state is durable, and published state is programmed.

    A restart removes the rest.
    """
    place.host.schedule_crash(after)
    place.attach()
    place.wait(1.0)

    assert place.host.node is None, "it was killed"
    assert len(place.connected) <= len(place.stored)
    assert not place.known_elsewhere() or place.connected
    place.restart()
    assert len(place.connected) == len(place.known_on(place.host)) <= 1


@pytest.mark.parametrize("after", range(CRASH_POINTS))
def test_a_detach_killed_at_any_step_is_finished_or_not_begun(place: Place, after: int) -> None:
    """The kernel never has less than the disk.

    A restart removes from the kernel what the disk lacks.
    """
    place.attach()
    place.wait(3.0)
    place.host.schedule_crash(after)
    place.host.guarded(place.site.agent.detach, place.connected[0])

    assert place.host.node is None, "it was killed"
    assert len(place.stored) <= len(place.connected)
    place.restart()
    assert len(place.connected) == len(place.known_on(place.host)) == len(place.stored)
