"""A pass over this host's plugs: what the election hears, and in which order things happen."""

from __future__ import annotations

from overlay import limits
from overlay.agent.plug.port import PlugPortState
from overlay.core.plug.election import PlugRole
from overlay.core.plug.probe import probe_mac
from overlay.core.plug.records import MachinesSeen
from overlay.errors import OverlayError
from overlay.model import Vni, parse_ip
from tests.agent.plug.bench import (
    BLUE,
    ETH2,
    ETH3,
    FAR,
    MACHINE,
    RED,
    PlugBench,
    far_plug,
)

ETH7 = ETH2._replace(vni=RED, interface="eth7")


async def test_a_port_opens_after_its_record_says_so(bench: PlugBench) -> None:
    """Other hosts are told first; after a crash in between, the port is closed, not unknown."""
    told: list[bool] = []
    bench.plugged.put(ETH2)
    await bench.check()
    assert bench.role(ETH2) is PlugRole.LISTENING

    def note() -> None:
        record = bench.record()
        told.append(record is not None and record.is_active and record.term == 1)

    bench.guards["plug0"].before_open = note
    await bench.check(limits.PLUG_LISTEN_S)
    assert told == [True]


async def test_a_port_closes_before_its_record_says_so(bench: PlugBench) -> None:
    """Another host that reads the record may open its own at once."""
    await bench.opened(ETH2)
    seen: list[bool] = []
    announce = bench.controller.announcer.announce

    def note(plug: object) -> None:
        seen.append(bench.guards["plug0"].is_port_open)
        announce(plug)  # type: ignore[arg-type]

    bench.controller.announcer.announce = note  # type: ignore[method-assign]
    bench.sandbox.without_carrier.add("plug0")
    await bench.check(0.5)

    assert seen == [False]
    record = bench.record()
    assert record is not None
    assert not record.is_active
    assert not record.is_ready


async def test_only_with_others_a_port_has_a_lease(bench: PlugBench) -> None:
    """Alone on its wire, a host goes on without its agent; else each pass renews the lease."""
    await bench.opened(ETH2)
    assert bench.guards["plug0"].lease_ms == 0

    bench.catalog.far = (far_plug(segment="hall"),)
    await bench.check(0.5)
    assert bench.guards["plug0"].lease_ms == 0

    bench.catalog.far = (far_plug(),)
    await bench.check(0.5)
    assert bench.guards["plug0"].lease_ms == limits.PLUG_LEASE_S * 1000
    record = bench.record()
    assert record is not None
    assert record.is_leased


async def test_another_hosts_active_plug_keeps_this_one_closed(bench: PlugBench) -> None:
    """By its record, as far as its agent lives, and for its lease after that."""
    bench.catalog.far = (far_plug(is_active=True, is_leased=True, term=4),)
    await bench.opened(ETH2)
    assert bench.role(ETH2) is PlugRole.STANDBY
    assert not bench.guards["plug0"].is_port_open

    bench.catalog.is_far_live = False
    await bench.check(0.5)
    await bench.check(limits.PLUG_TAKEOVER_S - 1.0)
    assert bench.role(ETH2) is PlugRole.STANDBY
    await bench.check(1.0)
    assert bench.role(ETH2) is PlugRole.ACTIVE
    record = bench.record()
    assert record is not None
    assert record.term == 5


async def test_a_probe_of_a_known_plug_closes_a_later_one(bench: PlugBench) -> None:
    """Although its segment has another name: the wire is one. Strangers' probes do nothing."""
    await bench.opened(ETH2)
    guard = bench.guards["plug0"]
    guard.heard_macs = {probe_mac(FAR, RED, "default")}
    await bench.check(0.5)
    assert bench.role(ETH2) is PlugRole.ACTIVE

    bench.catalog.far = (far_plug(segment="hall", is_active=True, term=9),)
    guard.heard_macs = {probe_mac(FAR, BLUE, "hall")}
    await bench.check(0.5)
    assert bench.role(ETH2) is PlugRole.STANDBY
    assert "on the same wire" in bench.controller.ports[ETH2].election.standing.why


async def test_an_agent_that_starts_adopts_an_open_port(bench: PlugBench) -> None:
    """It stays open, and its term is the one that the other hosts know."""
    await bench.opened(ETH2)
    bench.log.clear()
    bench.controller.close()
    bench.controller = bench.agent()
    await bench.check(0.1)

    assert bench.role(ETH2) is PlugRole.ACTIVE
    assert bench.log == []
    record = bench.record()
    assert record is not None
    assert record.term == 1


async def test_plugs_on_two_wires_are_both_active(bench: PlugBench) -> None:
    """They open one after the other, so that the second would hear the first."""
    bench.plugged.put(ETH2)
    bench.plugged.put(ETH3)
    await bench.check()
    await bench.check(limits.PLUG_LISTEN_S)
    roles = [bench.role(plug) for plug in (ETH2, ETH3)]
    assert roles == [PlugRole.ACTIVE, PlugRole.LISTENING]

    await bench.check(limits.PLUG_LISTEN_S)
    assert [bench.role(plug) for plug in (ETH2, ETH3)] == 2 * [PlugRole.ACTIVE]
    segments = {bench.record(each).interface for each in ("default", "hall")}  # type: ignore[union-attr]
    assert segments == {"eth2", "eth3"}


async def test_two_plugs_of_a_host_on_one_wire_are_no_loop(bench: PlugBench) -> None:
    """The second hears this host's own probes, and stays closed; `status` says why."""
    bench.plugged.put(ETH2)
    bench.plugged.put(ETH3)
    await bench.check()
    await bench.check(limits.PLUG_LISTEN_S)
    own = bench.site.gossip.node_id
    bench.guards["plug1"].heard_macs = {probe_mac(own, BLUE, "default")}
    await bench.check(10.0)

    assert bench.role(ETH3) is PlugRole.STANDBY
    why = bench.controller.ports[ETH3].election.standing.why
    assert why == "the plug of vm1 by eth2 is active on the same wire"
    assert [each for each in bench.log if each.startswith("open")] == ["open plug0"]


async def test_only_what_is_behind_open_ports_is_published(bench: PlugBench) -> None:
    """Behind a closed one it is another host's, and no address of this host's network counts."""
    await bench.opened(ETH2, ETH3)
    elsewhere = MACHINE._replace(ip=parse_ip("192.0.2.7"))
    gateway = MACHINE._replace(ip=parse_ip("10.7.0.1"))
    bench.guards["plug0"].machines = {MACHINE, elsewhere, gateway}
    await bench.check(1.0)
    assert bench.catalog.outside_ips(BLUE) == {MACHINE.ip}
    (seen,) = [each for each in bench.own_records() if isinstance(each, MachinesSeen)]
    assert seen.machines == (MACHINE,)

    bench.sandbox.without_carrier.add("plug0")
    await bench.check(1.0)
    assert bench.catalog.outside_ips(BLUE) == frozenset()
    assert not [each for each in bench.own_records() if isinstance(each, MachinesSeen)]


async def test_containers_and_gateways_are_protected_on_every_plug(bench: PlugBench) -> None:
    """Nobody outside can send from their addresses."""
    await bench.opened(ETH2, ETH3)

    for guard in bench.guards.values():
        macs, ips = guard.protected
        assert parse_ip("10.7.0.1") in ips
        assert macs


async def test_an_error_of_one_plug_holds_up_no_other(bench: PlugBench) -> None:
    """It is named, and tried again."""
    await bench.opened(ETH2, ETH3)
    bench.guards["plug0"].failure = OSError("no memory")
    await bench.check(0.5)

    (fault,) = bench.controller.faults()
    assert fault.text == "eth2 on network blue is not as it should be: no memory"
    assert bench.role(ETH3) is PlugRole.ACTIVE
    bench.guards["plug0"].failure = None
    await bench.check(0.5)
    assert not list(bench.controller.faults())


async def test_an_unreadable_plug_holds_up_no_other_network(
    bench: PlugBench,
) -> None:
    """The pass fails as a whole, after it has done the rest."""
    opened = bench.controller._read_port

    def refused(plug: object, sandbox: object) -> PlugPortState:
        if plug == ETH2:
            raise OverlayError("no nftables")
        return opened(plug, sandbox)  # type: ignore[arg-type]

    bench.controller._read_port = refused  # type: ignore[method-assign]
    bench.plugged.put(ETH2)
    bench.plugged.put(ETH7)
    await bench.controller.attempt()

    assert bench.role(ETH7) is PlugRole.LISTENING
    assert bench.controller.fault is not None
    assert "no nftables" in bench.controller.fault.text


async def test_plugs_of_a_removed_network_are_given_back(bench: PlugBench) -> None:
    """As far as this node has all records; the records of its plugs go."""
    given_back: list[int] = []

    async def note(vni: int) -> None:
        given_back.append(vni)

    bench.controller.network_removed.connect(note)
    gone = ETH2._replace(vni=Vni(12), interface="eth7")
    await bench.opened(ETH2)
    bench.plugged.put(gone)
    await bench.check(0.5)

    assert given_back == [12]


async def test_a_kernel_that_sends_no_probes_is_named(bench: PlugBench) -> None:
    """The plug works on; only a loop would not be found."""
    await bench.opened(ETH2)
    bench.probe_failure = OSError(95, "Operation not supported")
    await bench.check(0.5)

    (fault,) = bench.controller.faults()
    assert "sends no probes, so that a loop would not be found: Operation" in fault.text
    assert bench.role(ETH2) is PlugRole.ACTIVE
