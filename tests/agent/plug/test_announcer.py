"""A host's records of its plugs: what is unplugged leaves nothing behind."""

from __future__ import annotations

from overlay import limits
from overlay.core.declared.kinds import PLUG_KIND
from overlay.core.plug.records import Machine, MachinesSeen, Plug
from overlay.model import Ip, Mac
from tests.agent.plug.bench import BLUE, ETH2, ETH3, FAR, RED, PlugBench


def machine(number: int) -> Machine:
    """Return one of many machines."""
    return Machine(Mac(b"\x52\x54" + number.to_bytes(4, "big")), Ip(number.to_bytes(4, "big")))


def machines_of(bench: PlugBench) -> set[Machine]:
    """Return what this host has published of machines on blue."""
    return {
        each
        for record in bench.own_records()
        if isinstance(record, MachinesSeen) and record.vni == BLUE
        for each in record.machines
    }


async def test_machines_replace_those_of_before(bench: PlugBench) -> None:
    """Also where a whole record becomes empty; other networks keep theirs."""
    announcer = bench.controller.announcer
    many = {machine(number) for number in range(1, 200)}
    announcer.announce_machines(RED, [machine(7)])
    announcer.announce_machines(BLUE, many)
    assert machines_of(bench) == many

    announcer.announce_machines(BLUE, [machine(3)])
    assert machines_of(bench) == {machine(3)}
    announcer.announce_machines(BLUE, [])
    assert machines_of(bench) == set()
    assert [each.vni for each in bench.own_records()] == [RED]


async def test_one_machine_more_changes_one_record(bench: PlugBench) -> None:
    """Others are not written again: each write goes to every host."""
    announcer, written = bench.controller.announcer, list[str]()
    announcer.announce_machines(BLUE, [machine(number) for number in range(1, 100)])
    put = bench.declared.put

    def note(kind: int, name: str, body: bytes) -> None:
        written.append(name)
        put(kind, name, body)

    bench.declared.put = note  # type: ignore[method-assign]
    announcer.announce_machines(BLUE, [machine(number) for number in range(1, 101)])
    assert len(written) == 1


async def test_more_machines_than_fit_are_left_out(bench: PlugBench) -> None:
    """The records of a network are bounded, whatever is outside."""
    count = 4 * limits.PLUG_ADDRESSES_MAX
    bench.controller.announcer.announce_machines(BLUE, map(machine, range(1, count)))

    assert len(bench.own_records()) == limits.PLUG_BUCKETS
    assert 1000 < len(machines_of(bench)) < count


async def test_what_is_unplugged_is_withdrawn(bench: PlugBench) -> None:
    """A plug with its segment; machines with the last plug of their network."""
    announcer = bench.controller.announcer
    for plug in (ETH2, ETH3):
        announcer.announce(Plug(plug.vni, plug.interface, plug.segment))
    announcer.announce_machines(BLUE, [machine(1)])
    announcer.withdraw(kept=[ETH3])
    assert bench.record("default") is None
    assert bench.record("hall") is not None
    assert machines_of(bench) == {machine(1)}

    announcer.withdraw()
    assert bench.own_records() == []


async def test_a_record_under_anothers_name_counts_for_nothing(bench: PlugBench) -> None:
    """It is none of a plug, and none of what this host has said."""
    far = Plug(BLUE, "eth9").object_name(FAR)
    bench.declared.put(PLUG_KIND, far, Plug(BLUE, "eth9").body())
    assert bench.own_records() == [None]
    assert bench.catalog.plugs(BLUE) == []

    bench.controller.announcer.withdraw()
    assert bench.own_records() == []
