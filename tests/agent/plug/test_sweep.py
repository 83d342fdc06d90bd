"""Addresses outside that have said nothing are asked for before a container gets them."""

from __future__ import annotations

from overlay import limits
from overlay.core.plug.election import PlugRole
from overlay.core.plug.records import Plug
from overlay.core.protocol.records import Scope
from overlay.model import Endpoint, Ip, mac_for, parse_ip
from tests.agent.plug.bench import BLUE, ETH2, ETH3, MACHINE, PlugBench, far_plug

_TARGET = slice(38, 42)  # of an ARP request


def asked(bench: PlugBench) -> set[Ip]:
    """Return the addresses that were asked for since the last call."""
    found = {Ip(frame[_TARGET]) for frame in bench.questions}
    bench.questions.clear()
    return found


async def until_idle(bench: PlugBench) -> set[Ip]:
    """Return what is asked for until nothing is due."""
    found: set[Ip] = set()
    while True:
        await bench.check(limits.PLUG_POLL_S)
        now = asked(bench)
        assert len(now) <= limits.PLUG_SWEEP_BATCH
        if not now:
            return found
        found |= now


async def test_the_next_addresses_are_asked_for_once_a_minute(bench: PlugBench) -> None:
    """A few at a time, and no others."""
    await bench.opened(ETH2)
    asked(bench)
    await bench.check(limits.PLUG_SWEEP_INTERVAL_S)
    first = asked(bench) | await until_idle(bench)
    assert len(first) == limits.PLUG_SWEEP_NEXT + 1
    assert parse_ip("10.7.0.2") in first

    await bench.check(limits.PLUG_SWEEP_PAUSE_S)
    assert asked(bench) == set()
    await bench.check(limits.PLUG_SWEEP_INTERVAL_S)
    assert asked(bench) | await until_idle(bench) == first


async def test_a_closed_port_asks_nothing(bench: PlugBench) -> None:
    """Its wire is another host's."""
    bench.catalog.far = (far_plug(is_active=True, term=3),)
    await bench.opened(ETH2)

    assert bench.record() == Plug(BLUE, "eth2", is_ready=True)
    assert asked(bench) == set()


async def test_an_address_that_answers_moves_the_line_on(bench: PlugBench) -> None:
    """The one behind it is asked for at once, and it itself again, so that it stays known."""
    await bench.opened(ETH2)
    first = asked(bench) | await until_idle(bench)
    answering = MACHINE._replace(ip=parse_ip("10.7.0.2"))
    bench.guards["plug0"].machines = {answering}
    await bench.check(limits.PLUG_SWEEP_PAUSE_S)
    further = asked(bench) | await until_idle(bench)
    assert len(further - first) == 1
    assert answering.ip in bench.space.occupied(BLUE)

    await bench.check(limits.PLUG_SWEEP_INTERVAL_S)
    assert answering.ip in asked(bench) | await until_idle(bench)


async def test_a_new_container_moves_the_line_on(bench: PlugBench) -> None:
    """Of what was asked for a moment ago, nothing is asked for again."""
    await bench.opened(ETH2)
    first = asked(bench) | await until_idle(bench)
    ip = parse_ip("10.7.0.2")
    endpoint = Endpoint(b"e" * 8, BLUE, "web", mac_for(BLUE, ip), (ip,))
    gossip = bench.site.gossip
    gossip.publish(gossip.commit(Scope(BLUE), [endpoint]))
    await bench.check(limits.PLUG_SWEEP_PAUSE_S)

    (further,) = asked(bench) | await until_idle(bench)
    assert further not in first
    assert further != ip


async def test_a_wire_that_is_plugged_later_is_asked_for_all(bench: PlugBench) -> None:
    """Recent requests on another wire do not count for it."""
    await bench.opened(ETH2)
    first = asked(bench) | await until_idle(bench)
    bench.plugged.put(ETH3)
    await bench.check(limits.PLUG_POLL_S)
    await bench.check(limits.PLUG_LISTEN_S)
    assert bench.role(ETH3) is PlugRole.ACTIVE

    assert asked(bench) | await until_idle(bench) == first
