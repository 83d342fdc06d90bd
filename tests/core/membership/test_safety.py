"""Safety of membership, as properties over seeds, losses and delays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from overlay.core.protocol.messages import MemberState
from overlay.model import NodeId

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.core.conftest import Net

DEAD = MemberState.DEAD


def name(number: int) -> NodeId:
    """Return the identity of the node with that number."""
    return NodeId(number.to_bytes(16, "big"))


def between(side: set[NodeId]) -> Callable[[NodeId, NodeId], bool]:
    """Return a partition between one side and the rest."""
    return lambda sender, to: (sender in side) != (to in side)


storms = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@storms
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(2, 12),
    loss=st.sampled_from([0.0, 0.05, 0.2]),
    delay_s=st.sampled_from([0.001, 0.05, 0.15]),
)
def test_no_healthy_node_is_held_dead(
    new_net: type[Net], seed: int, count: int, loss: float, delay_s: float
) -> None:
    """With steady loss and delay only, no healthy node is declared dead."""
    net = new_net(count, seed=seed, loss=loss, delay_s=delay_s)
    net.run(120)

    assert not net.deaths(net.hosts)


@storms
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(2, 12),
    loss=st.sampled_from([0.0, 0.05, 0.2]),
    down=st.integers(1, 3),
)
def test_crash_is_detected_by_all(
    new_net: type[Net], seed: int, count: int, loss: float, down: int
) -> None:
    """Crashes that leave most members standing are detected by every survivor."""
    net = new_net(count, seed=seed, loss=loss)
    net.run(5)
    crashed = range(min(down, count - 1, max(1, count // 4)))
    for number in crashed:
        net.crash(number)

    def all_know() -> bool:
        return all(net.all_hold(net[number], DEAD) for number in crashed)

    assert net.run_until(all_know, 90)


@storms
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(2, 12),
    steps=st.lists(
        st.tuples(st.sampled_from(["cut", "crash", "slow", "lossy"]), st.integers(0, 11)),
        min_size=1,
        max_size=5,
    ),
)
def test_calm_after_any_storm(
    new_net: type[Net], seed: int, count: int, steps: list[tuple[str, int]]
) -> None:
    """After cuts, crashes, slowness and loss, all become alive and stay so."""
    net = new_net(count, seed=seed, loss=0.02)
    net.run(2)
    for kind, number in steps:
        node = name(number % count)
        match kind:
            case "cut":
                net.cut = between({name(each) for each in range(1 + number % count)})
            case "crash":
                net.crash(number % count)
            case "slow":
                net.slow_s[node] = 2.0
            case _:
                net.loss = 0.4
        net.run(net.rng.uniform(1, 40))

    net.cut = lambda _sender, _to: False
    net.slow_s, net.loss = {}, 0.0
    for number in range(count):
        if not net[number].is_up:
            net.restart(number)
    assert net.run_until(net.in_harmony, 60)
    net.run(10)  # datagrams in transit still arrive
    calm = net.now
    net.run(60)

    assert net.in_harmony()
    assert not [death for death in net.deaths(net.hosts) if death[0] > calm]
    assert all(host.membership.partitioned is None for host in net.up())
