"""Membership as a whole: the views of several nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.core.protocol.member import Healed, MembershipEvent, Partitioned
from overlay.core.protocol.messages import MemberState, Rumour, Rumours
from overlay.model import NodeId

if TYPE_CHECKING:
    from tests.core.conftest import Net

ALIVE, SUSPECT, DEAD, LEFT = MemberState
EPOCH = 1 << 20


def name(number: int) -> NodeId:
    """Return the identity of the node with that number."""
    return NodeId(number.to_bytes(16, "big"))


def test_members_stay_alive_to_each_other(new_net: type[Net]) -> None:
    """Nodes that know each other probe and consider each other alive."""
    net = new_net(5)
    net.run(30)

    assert net.in_harmony()
    assert all(
        member.rtt_s is not None and 0.002 < member.rtt_s < 0.02
        for host in net.up()
        for member in host.membership.members()
    )


def test_two_nodes_detect_a_crash(new_net: type[Net]) -> None:
    """With no relay and no confirmation, a crash is still detected."""
    net = new_net(2)
    net.run(5)
    net.crash(1)

    assert net.run_until(lambda: net.all_hold(net[1], DEAD), 30)


def test_kill_and_return(new_net: type[Net]) -> None:
    """A killed node becomes dead; after a restart its incarnation is higher."""
    net = new_net(6)
    net.run(3)
    before = net[2].membership.incarnation
    net.crash(2)
    assert net.run_until(lambda: net.all_hold(net[2], DEAD), 30)

    net.restart(2)

    assert net.run_until(lambda: net.all_hold(net[2], ALIVE), 5)
    seen = net[0].membership.member(name(2))
    assert seen is not None
    assert seen.incarnation > before
    assert all(host.membership.partitioned is None for host in net.up())


def test_quick_restart_is_not_noticed(new_net: type[Net]) -> None:
    """A node that restarts within a second is never considered dead."""
    net = new_net(6)
    net.run(3)
    net.crash(2)
    net.run(0.5)
    net.restart(2)
    net.run(30)

    assert net.in_harmony()
    assert not net.deaths([name(2)])


def test_a_leaver_is_not_suspected(new_net: type[Net]) -> None:
    """A node whose card says that it left stays left, whatever is lost."""
    net = new_net(40, loss=0.05)
    net.run(3)
    net.leave(7)

    net.run(1)
    net.crash(7)
    net.run(30)
    assert net.all_hold(net[7], LEFT)


def test_return_after_leave(new_net: type[Net]) -> None:
    """A node that left returns with its next card."""
    net = new_net(6)
    net.run(3)
    net.leave(4)
    net.run(2)
    net.crash(4)
    net.restart(4)
    for host in net.up():
        host.membership.add(name(4), net.now, 2 * EPOCH)

    assert net.run_until(lambda: net.all_hold(net[4], ALIVE), 5)


def test_left_is_final_for_its_incarnation(new_net: type[Net]) -> None:
    """An accusation at the incarnation of a departure changes nothing."""
    net = new_net(3)
    net.run(1)
    net.leave(1)
    net.run(1)
    net.crash(1)
    left = net[0].membership.member(name(1))
    net.run(60)

    assert net[0].membership.member(name(1)) == left
    assert left is not None
    assert left.state == LEFT


def test_a_node_that_missed_a_refutation_asks_for_it(new_net: type[Net]) -> None:
    """One of a hundred receives accusations after they were refuted.

    It keeps them no longer than a refutation takes, not until it happens to probe the suspect.
    """
    net = new_net(100)
    net.run(5.0)
    suspects = range(10, 30)
    for number in suspects:
        for host in net.up():
            if host is net[number]:
                net.do(number, lambda membership: membership.renew(EPOCH + 1))
            elif host is not net[7]:
                host.membership.add(name(number), net.now, EPOCH + 1)
    old = [Rumour(name(number), EPOCH, SUSPECT, name(50)) for number in suspects]
    news = Rumours(tuple(old))
    net.do(7, lambda membership: membership.receive_rumours(news, name(51), net.now))
    assert net.views(net[10]) == {ALIVE, SUSPECT}

    assert net.run_until(net.in_harmony, net.settings.suspicion_multiplier + 1.0)


def test_small_partition_heals(new_net: type[Net]) -> None:
    """A node cut off from a cluster of three becomes dead, then alive again."""
    net = new_net(3)
    net.run(3)
    net.cut = lambda sender, to: name(0) in {sender, to}
    assert net.run_until(lambda: net.all_hold(net[0], DEAD), 30)

    net.cut = lambda _sender, _to: False

    assert net.run_until(net.in_harmony, 2 * net.settings.dead_probe_interval_s)


def test_minority_freezes(new_net: type[Net]) -> None:
    """With 12 of 40 on its side, it declares nobody dead and heals soon."""
    net = new_net(40, loss=0.01)
    net.run(3)
    minority = {name(number) for number in range(12)}
    net.cut = lambda sender, to: (sender in minority) != (to in minority)
    net.run(60)

    for host in (net[0], net[11]):
        assert host.membership.partitioned == (12, 40)
        assert host.membership.count(DEAD) == 0
    assert net[20].membership.partitioned is None
    assert net[20].membership.count(DEAD) == 12

    net.cut = lambda _sender, _to: False
    assert net.run_until(net.in_harmony, 10)
    net.run(10)
    events = [event for _, event in net[0].events]
    assert [Partitioned, Healed] == [type(event) for event in events if is_about_us(event)]


def is_about_us(event: MembershipEvent) -> bool:
    """Return whether an event is about the observer itself."""
    return isinstance(event, Partitioned | Healed)


def test_frozen_node_accuses_nobody(new_net: type[Net]) -> None:
    """While partitioned, a node gossips no suspicion of its own."""
    net = new_net(12)
    net.run(3)
    alone = name(0)
    net.cut = lambda sender, to: alone in {sender, to}
    assert net.run_until(lambda: net[0].membership.partitioned is not None, 60)
    net.run(5)
    start = len(net.codec.table)
    net.run(30)

    accused = {
        rumour.node_id
        for message in net.codec.table[start:]
        if isinstance(message, Rumours)
        for rumour in message.rumours
        if rumour.accuser == alone and rumour.state == SUSPECT
    }
    told_before = {record.node_id for record in net[0].membership._roster if not record.is_quiet}
    assert accused <= told_before  # the suspect itself is still notified
    assert net[0].membership.partitioned == (1, 12)


def test_one_way_loss_is_bridged(new_net: type[Net]) -> None:
    """Over a broken path, relays keep two nodes alive to each other."""
    net = new_net(8)
    pair = {name(0), name(1)}
    net.cut = lambda sender, to: {sender, to} == pair
    net.run(300)

    assert not net.deaths(pair)


def test_power_loss_of_all(new_net: type[Net]) -> None:
    """A whole cluster that was down recovers in any order of start."""
    net = new_net(9)
    net.run(5)
    for number in range(9):
        net.crash(number)
    net.run(10)
    for number in (8, 1, 7, 2, 6, 3, 5, 4, 0):
        net.restart(number)
        net.run(3)

    assert net.run_until(net.in_harmony, 30)


def test_slow_nodes_kill_nobody(new_net: type[Net]) -> None:
    """Nodes with messages late by seconds never make a healthy one dead."""
    net = new_net(30, loss=0.05)
    net.slow_s = {name(0): 2.0, name(1): 3.0}
    net.run(300)

    assert not net.deaths([name(number) for number in range(2, 30)])


def test_stalled_node_kills_nobody(new_net: type[Net]) -> None:
    """A node stopped for two minutes blames its own lag, not the others."""
    net = new_net(10)
    net.run(5)
    net[0].is_up = False
    net.run(120)
    net[0].is_up = True
    net[0].armed = None
    net.do(0, lambda membership: membership.observe_lag(120, net.now))
    net.do(0, lambda membership: membership.handle_timer(net.now))

    assert net.run_until(net.in_harmony, 30)
    net.run(30)
    assert not [death for death in net.deaths(net.hosts) if death[1] == name(0)]


def test_a_newcomer_learns_which_members_are_gone(new_net: type[Net]) -> None:
    """Deaths reach a newcomer to which the dead seemed alive; departures, too."""
    net = new_net(8)
    net.run(2)
    net.leave(6)
    net.run(1)
    net.crash(6)
    net.crash(7)
    assert net.run_until(lambda: net.all_hold(net[7], DEAD), 30)
    net.run(60)
    net.crash(5)
    for host in net.up():
        host.membership.remove(name(5), net.now)

    net.restart(5)
    for host in net.up():
        host.membership.add(name(5), net.now, 2 * EPOCH)

    net[5].membership.mark_left(name(6), EPOCH, net.now)

    assert net.run_until(lambda: net[5].state_of(net[7]) == DEAD, 3)
    net.run(10)
    assert net[5].state_of(net[6]) == LEFT


def test_traffic_is_even(new_net: type[Net]) -> None:
    """In a quiet cluster of 100, below a kilobyte per node and second."""
    net = new_net(100)
    net.run(20)

    assert net.sent_bytes / 100 / 20 < 300
