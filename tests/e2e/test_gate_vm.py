"""The gate where its programs need tc's hooks: before Linux 6.6, as on Debian 12.

Run by `make vm-test`; `kernel/gate` has the programs there, `test_gate` the rest.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from overlay.kernel.bpf.hooks.tcx import has_tcx
from overlay.lab import lab
from overlay.lab.driver import connect, end_all, join_all
from tests.e2e.test_gate import (
    ECHO,
    KILL,
    TRACKED,
    VM1,
    VM1_OUT,
    Held,
    is_gated,
    switch,
    without_gate,
)
from tests.e2e.world import MAKE_WORLD, WORLD, ips_of, netns, seen_as, serve

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.vm,
    pytest.mark.skipif(has_tcx(), reason="this kernel has tcx; make vm-test has none"),
]
STOPS = "before Linux 6.6 interfaces drop packets"
PATIENCE_S = 300.0  # an emulated machine is ten times slower


@pytest.fixture(scope="module")
def pair(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Two members that expose a network, with a container each; vm1 is on the internet.

    Port 8080 of vm1 leads to its container.
    """
    make = request.getfixturevalue("cluster_of")
    hosts = lab.make(2)
    drivers = connect(hosts)
    try:
        join_all(drivers)  # the first agent takes minutes to be read from an emulated disk
        lab.populate(hosts)
        made = make(hosts)
        made.ok(1, "sh", "-c", MAKE_WORLD)
        (inside,) = ips_of(made, 1, "c1")
        serve(made, 1, netns("c1"), inside, 80)
        serve(made, 1, netns("world"), WORLD, 9000)
        echo = shlex.join([*netns("world"), "python3", "-c", ECHO, WORLD, "9001"])
        made.ok(1, "sh", "-c", f"{echo} >/run/echo 2>&1 &")
        made.ok(1, "overlayd", "publish", "c1", "8080:80")
        yield made
    finally:
        end_all(drivers)


def ways(pair: Cluster) -> list[str]:
    """Return what each end sees: out, in, and from the host itself."""
    return [
        seen_as(pair, 1, netns("c1"), WORLD, 9000),
        seen_as(pair, 1, netns("world"), VM1_OUT, 8080),
        seen_as(pair, 2, [], VM1, 8080),
    ]


WAYS = [VM1_OUT, WORLD, "192.168.56.12"]


def with_hooks(pair: Cluster) -> list[str]:
    """Return vm1's interfaces that have tc's hooks."""
    queues = pair.ok(1, "tc", "qdisc").splitlines()
    return [line.split()[4] for line in queues if "clsact" in line]


def test_by_default_there_is_none(pair: Cluster, eventually: Callable[..., None]) -> None:
    """The status says why, no interface is stopped for it, and it is no fault."""
    eventually(lambda: ways(pair) == WAYS, "ways out and in", PATIENCE_S)
    eventually(lambda: without_gate(pair).startswith(STOPS), "the reason", PATIENCE_S)
    assert not is_gated(pair)
    assert with_hooks(pair) == []


def test_it_can_be_switched_on(pair: Cluster, eventually: Callable[..., None]) -> None:
    """The host's own traffic is tracked no more, and an agent's end breaks no connection."""
    switch(pair, "on")
    eventually(lambda: is_gated(pair), "the gate", PATIENCE_S)
    eventually(
        lambda: "type nat" not in pair.ok(1, "nft", "list", "ruleset"), "no hooks", PATIENCE_S
    )
    assert {"wan0", "eth1", "lo"} < {*with_hooks(pair)}
    before = int(pair.ok(1, "cat", TRACKED))
    assert ways(pair) == WAYS
    assert seen_as(pair, 1, [], WORLD, 9000) == VM1_OUT
    assert int(pair.ok(1, "cat", TRACKED)) <= before
    held = Held(pair, "held", netns("c1"), WORLD, 9001)
    eventually(lambda: held.answers > 0, "a connection", PATIENCE_S)
    pair.ok(1, "bash", "-c", KILL)
    assert ways(pair) == WAYS
    pair.ok(1, "overlayd", "join")
    eventually(lambda: is_gated(pair) and pair.differences(1) == [], "the gate", PATIENCE_S)
    was = held.answers
    eventually(lambda: held.answers > was, "the connection of before", PATIENCE_S)
    held.end()


def test_switched_off_it_leaves_nothing(pair: Cluster, eventually: Callable[..., None]) -> None:
    """No hooks on the interfaces; the host translates."""
    switch(pair, "off")
    eventually(lambda: pair.differences(1) == [], "the host translates", PATIENCE_S)
    assert with_hooks(pair) == []
    assert ways(pair) == WAYS
