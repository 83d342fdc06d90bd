"""The authority of simulated agents: lost holders are replaced, wherever one is left."""

from __future__ import annotations

import pytest
from overlay import limits
from overlay.core.protocol.records import CLUSTER_SCOPE
from overlay.sim.environment.network import Cut, Weather
from overlay.sim.host.authority import WANTED
from overlay.sim.host.host import Host
from overlay.sim.report.cluster import Cluster

COUNT = 6
DETECTED_S = 30.0  # until silent members count as suspect or dead
SHARED_S = 20.0  # until a new holder has confirmed, in bad weather


@pytest.fixture
def cluster() -> Cluster:
    """Return a cluster whose first host held the authority alone, in bad weather."""
    weather = Weather(loss=0.1, latency_s=0.005, jitter_s=0.02, duplicate=0.05)
    made = Cluster(COUNT, weather, holders=1)
    made.run(SHARED_S)
    return made


def holders(hosts: list[Host]) -> list[Host]:
    """Return the running hosts that hold the authority."""
    return [host for host in hosts if host.node is not None and host.is_holder]


def known(host: Host) -> set[bytes]:
    """Return the holders that a host knows by their records."""
    assert host.node is not None
    return {origin for origin, _ in host.node.store.values(CLUSTER_SCOPE, "holder")}


def cut_off(cluster: Cluster, side: list[Host]) -> None:
    """Cut some hosts off from all others."""
    near = frozenset(host.address for host in side)
    far = frozenset(host.address for host in cluster.hosts) - near
    cluster.wires.cuts += [Cut(near, far), Cut(far, near)]


def test_three_hosts_come_to_hold_it(cluster: Cluster) -> None:
    """All hosts know the same three, and that does not change."""
    first = holders(cluster.hosts)
    assert len(first) == WANTED
    cluster.run(1.2 * limits.HOLDER_LOST_S)

    assert holders(cluster.hosts) == first
    assert all(known(host) == {each.node_id for each in first} for host in cluster.hosts)


def test_a_short_absence_makes_no_new_holder(cluster: Cluster) -> None:
    """A holder that reboots is not replaced, not even if it does so again and again."""
    first = holders(cluster.hosts)
    for _ in range(3):
        first[1].stop()
        cluster.run(limits.HOLDER_LOST_S / 3)
        first[1].start()
        cluster.run(limits.HOLDER_LOST_S / 6)

    assert holders(cluster.hosts) == first


def test_holders_lost_one_after_the_other_are_replaced(cluster: Cluster) -> None:
    """Of six hosts three are lost for good; at each moment some host holds the authority."""
    for lost in range(1, COUNT - WANTED + 1):
        holders(cluster.hosts)[0].stop()
        assert len(holders(cluster.hosts)) == WANTED - 1
        cluster.run(DETECTED_S + limits.HOLDER_LOST_S + SHARED_S)
        assert len(holders(cluster.hosts)) == WANTED, f"after {lost} losses"


def test_two_holders_lost_at_once_are_replaced_sooner(cluster: Cluster) -> None:
    """The one that is left does not wait for ten minutes."""
    for host in holders(cluster.hosts)[:2]:
        host.stop()
    cluster.run(DETECTED_S + limits.LAST_HOLDER_LOST_S + SHARED_S)

    assert len(holders(cluster.hosts)) == WANTED


@pytest.mark.parametrize("size", [2, 3, 4])
def test_a_side_of_a_partition_with_a_holder_keeps_it(cluster: Cluster, size: int) -> None:
    """It shares the authority, also as a minority, so that it may lose that holder.

    After the partition heals nobody has lost it, and all know all holders.
    """
    one, *others = holders(cluster.hosts)
    rest = [host for host in cluster.hosts if host not in (one, *others)]
    side = [one, *rest[: size - 1]]
    cut_off(cluster, side)
    cluster.run(DETECTED_S + limits.LAST_HOLDER_LOST_S + SHARED_S)
    assert len(holders(side)) == min(WANTED, size)
    one.stop()
    cluster.run(SHARED_S)
    assert holders(side)
    cluster.wires.cuts.clear()
    one.start()
    cluster.run(2 * SHARED_S)

    all_holders = {host.node_id for host in holders(cluster.hosts)}
    assert {one.node_id, *(host.node_id for host in others)} <= all_holders
    assert all(known(host) == all_holders for host in cluster.hosts)


def test_a_disk_from_before_it_became_a_holder(cluster: Cluster) -> None:
    """It has the record, from its peers, but not the key: it is given the key again."""
    host = holders(cluster.hosts)[-1]
    host.stop()
    host.disk.holds_authority = False
    host.start()
    cluster.run(SHARED_S)

    assert len(holders(cluster.hosts)) == WANTED
    for each in cluster.hosts:
        assert known(each) == {one.node_id for one in holders(cluster.hosts)}
