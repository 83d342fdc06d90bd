"""Rotations of the cluster key, by the same code that the agent runs."""

from __future__ import annotations

import pytest
from overlay import limits
from overlay.core.keys.rotation import Ring, Rotation, States
from overlay.core.protocol.records import KeyId
from overlay.sim.environment.network import Cut, Weather
from overlay.sim.host.disk import FIRST_KEY
from overlay.sim.host.host import Host
from overlay.sim.host.key_invariants import KeysBrokenError
from overlay.sim.report.cluster import Cluster
from overlay.sim.run import Run
from overlay.sim.scenario import Scenario
from overlay.wire.handshake.first_contact import UNKNOWN_GENERATION
from overlay.wire.session.link import Link, Session
from tests.sim.test_seeds import require_held

COUNT = 8
ROTATION_S = limits.KEY_REST_S + 10.0


@pytest.fixture
def cluster() -> Cluster:
    """Return a cluster that has run for a while, in bad weather."""
    made = Cluster(COUNT, Weather(loss=0.1, latency_s=0.005, jitter_s=0.02, duplicate=0.05))
    made.run(10.0)
    return made


def make(host: Host) -> None:
    """Let a host create a key, as `overlayd key rotate` does."""
    assert host.keys is not None
    host.keys.make()


def cut_off(cluster: Cluster, side: list[Host]) -> None:
    """Cut some hosts off from all others."""
    near = frozenset(host.address for host in side)
    far = frozenset(host.address for host in cluster.hosts) - near
    cluster.wires.cuts += [Cut(near, far), Cut(far, near)]


def rings(hosts: list[Host]) -> set[Ring]:
    """Return the different rings on some hosts' disks."""
    return {host.disk.ring for host in hosts}


def unknown(cluster: Cluster) -> int:
    """Return how many datagrams were dropped because of an unknown key."""
    return sum(host.drops[UNKNOWN_GENERATION] for host in cluster.hosts)


def test_a_rotation_loses_no_datagram(cluster: Cluster) -> None:
    """All members end with only the new key, and no datagram is lost."""
    make(cluster.hosts[0])
    cluster.run(5.0)
    assert {ring.sealing.generation for ring in rings(cluster.hosts)} == {1}
    assert {len(ring.held) for ring in rings(cluster.hosts)} == {2}
    cluster.run(ROTATION_S)

    [ring] = rings(cluster.hosts)
    assert (len(ring.held), ring.sealing.generation) == (1, 1)
    assert unknown(cluster) == 0


def test_keys_created_on_both_sides_of_a_split_are_merged(cluster: Cluster) -> None:
    """Neither half uses its key while the other may be alive.

    After healing, all use the greater key and drop the other.
    """
    one, other = cluster.hosts[:4], cluster.hosts[4:]  # holders of the authority in both
    cut_off(cluster, one)
    cluster.run(20.0)
    make(one[2])
    make(other[2])
    cluster.run(ROTATION_S)
    [ring], [ring_beyond] = rings(one), rings(other)
    assert ring.newest.generation == ring_beyond.newest.generation == 1
    assert ring.newest != ring_beyond.newest
    assert ring.sealing == ring_beyond.sealing == FIRST_KEY
    cluster.wires.cuts.clear()
    cluster.run(2 * ROTATION_S)

    greater = max(ring.newest, ring_beyond.newest)
    assert rings(cluster.hosts) == {Ring(frozenset({greater}), greater)}
    assert unknown(cluster) == 0


def test_an_isolated_minority_creates_its_own_key(cluster: Cluster) -> None:
    """The majority considers it dead and rotates without it.

    After healing, all use one key.
    """
    few, many = cluster.hosts[6:], cluster.hosts[:6]
    cut_off(cluster, few)
    cluster.run(20.0)
    make(few[0])
    make(many[0])
    cluster.run(ROTATION_S)
    [ring] = rings(many)
    assert (ring.sealing.generation, len(ring.held)) == (1, 1)
    cluster.wires.cuts.clear()
    cluster.run(2 * ROTATION_S)

    assert len(rings(cluster.hosts)) == 1
    assert cluster.hosts[0].disk.ring.sealing >= ring.sealing


@pytest.mark.parametrize("how", ["cut off", "asleep", "off"])
def test_a_member_returns_after_missing_several_rotations(cluster: Cluster, how: str) -> None:
    """It holds no key in use.

    Its hello reports that, and it receives the present one. Datagrams that it could not open
    meanwhile were dropped for that reason.
    """
    away, others = cluster.hosts[-1], cluster.hosts[:-1]
    if how == "cut off":
        cut_off(cluster, [away])
    elif how == "asleep":
        away.stall(cluster.schedule.now + 1000.0)
    else:
        away.stop()
    cluster.run(20.0)
    for _ in range(3):
        make(cluster.hosts[0])
        cluster.run(ROTATION_S)
    [ring] = rings(others)
    assert (ring.sealing.generation, len(ring.held)) == (3, 1)
    assert away.disk.ring.held.isdisjoint(ring.held)
    cluster.wires.cuts.clear()
    away.end_faults()
    if away.node is None:
        away.start()
    cluster.run(2 * ROTATION_S)

    assert rings(cluster.hosts) == {ring}
    dropped = unknown(cluster)
    cluster.run(20.0)
    assert unknown(cluster) == dropped


def test_a_host_can_join_during_a_rotation(cluster: Cluster) -> None:
    """It starts with the key in use and receives the next one in time."""
    make(cluster.hosts[0])
    host = cluster.newcomer(cluster.hosts[3], cluster.vni_of(cluster.hosts[3]))
    cluster.run(ROTATION_S)

    assert host.disk.ring.sealing.generation == 1
    assert len(rings(cluster.hosts)) == 1
    assert unknown(cluster) == 0


def test_a_killed_agent_continues_from_its_disk(cluster: Cluster) -> None:
    """Killed between the two steps of a rotation, it returns with both keys."""
    host = cluster.hosts[5]
    make(cluster.hosts[0])
    cluster.run(3.0)
    host.stop()
    ring = host.disk.ring
    host.start()
    assert host.keys is not None

    assert len(ring.held) == 2
    assert host.keys.driver.rotation.ring == ring
    cluster.run(2 * ROTATION_S)
    assert rings(cluster.hosts) == {Ring(frozenset({ring.newest}), ring.newest)}


# --- detecting errors -------------------------------------------------------------------------

LIVELY = Scenario(nodes=6, seed=4, rotations=4, absences=1, tampers=0, churn=1.0, duration=60.0)


def test_using_a_key_too_early_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a rule that never waits, the run fails and prints its command."""
    rule = Rotation.next_ring

    def hasty(self: Rotation, _others: States, now: float) -> Ring:
        return rule(self, {}, now)

    monkeypatch.setattr(Rotation, "next_ring", hasty)
    outcome = Run(LIVELY).to_end()

    assert "which h" in outcome.failures[0]
    assert "does not hold" in outcome.failures[0]
    assert "repeat it: overlayd sim --nodes 6 --seed 4" in outcome.failed_text()


def test_dropping_a_key_too_early_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key with which another live member seals is still needed."""

    def idle(self: Rotation, _others: States) -> list[KeyId]:
        return sorted(self.ring.held - {self.ring.newest})

    monkeypatch.setattr(Rotation, "_unused_keys", idle)
    monkeypatch.setattr(limits, "KEY_REST_S", 0.0)

    assert "seals with" in Run(LIVELY).to_end().failures[0]


def test_sealing_with_a_former_key_for_too_long_is_detected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A datagram whose session ended with its cluster key, without excuse, ends the run."""

    def never(_session: Session, _ring: Ring) -> bool:
        return False

    monkeypatch.setattr(Link, "is_older", staticmethod(never))
    outcome = Run(LIVELY).to_end()

    assert "under which" in outcome.failures[0]
    assert KeysBrokenError.__name__ in outcome.failures[0]


# --- storms -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(1, 5))
def test_storms_of_rotations(seed: int) -> None:
    """Keys are rotated in several ways during all kinds of faults.

    These include absences longer than a rotation, cuts, crashes, old disks and newcomers; at the
    end all members hold only one key.
    """
    require_held(
        Scenario(
            nodes=3 + 2 * seed,
            seed=seed,
            rotations=5,
            key_interval=15.0 if seed % 2 else 0.0,
            absences=2,
            newcomers=2,
            crashes=6,
            tampers=0,
            churn=1.0,
            duration=60.0,
        )
    )
