"""Of several plugs of one segment, one passes frames."""

from __future__ import annotations

import itertools
import random

import pytest
from overlay import limits
from overlay.core.plug.election import Election, PlugRole, Rival
from overlay.model import Mac

LOW, HIGH = Mac(b"\x0e\0\0\0\0\1"), Mac(b"\x0e\0\0\0\0\2")
OTHER = Rival("vm2", HIGH, True, is_active=False, is_leased=False, is_ready=True, is_live=True)


def opened(election: Election, *rivals: Rival, now: float = 0.0) -> Election:
    """Return an election after it has listened as long as it must."""
    election.decide(rivals, (), now, is_ready=True)
    election.decide(rivals, (), now + limits.PLUG_LISTEN_S, is_ready=True)
    return election


def test_a_lone_plug_listens_before_it_opens() -> None:
    """It is closed until it has heard nothing for a while."""
    election = Election(LOW, 0.0)

    assert election.decide((), (), 0.1, is_ready=True).role is PlugRole.LISTENING
    found = election.decide((), (), limits.PLUG_LISTEN_S, is_ready=True)
    assert found.role is PlugRole.ACTIVE


def test_a_plug_without_carrier_is_closed() -> None:
    """Another host can do better; it listens again when it is back."""
    election = opened(Election(LOW, 0.0))

    assert election.decide((), (), 5.0, is_ready=False).role is PlugRole.STANDBY
    assert election.decide((), (), 5.1, is_ready=True).role is PlugRole.LISTENING


def test_an_active_one_keeps_its_place() -> None:
    """One that comes later waits, also if it has the lower MAC."""
    election = opened(Election(LOW, 0.0), OTHER._replace(is_active=True))

    assert election.standing.role is PlugRole.STANDBY
    assert election.standing.why == "the plug of vm2 is active"


def test_of_two_new_ones_the_lower_mac_opens() -> None:
    """Both have listened; the other one waits for it."""
    assert opened(Election(LOW, 0.0), OTHER).is_active
    found = opened(Election(HIGH, 0.0), OTHER._replace(mac=LOW)).standing
    assert found == (PlugRole.STANDBY, "the plug of vm2 takes precedence")


def test_a_plug_that_is_not_ready_holds_up_no_other() -> None:
    """A host whose interface has no carrier is not waited for."""
    assert opened(Election(HIGH, 0.0), OTHER._replace(mac=LOW, is_ready=False)).is_active


def test_a_dead_hosts_lease_is_waited_for() -> None:
    """Its port closes by itself, and only then another opens."""
    dead = OTHER._replace(is_active=True, is_leased=True, is_live=False, term=1)
    election = opened(Election(LOW, 0.0), dead)

    assert election.standing.why == "the plug of vm2 may be open until its lease ends"
    election.decide((dead,), (), limits.PLUG_TAKEOVER_S, is_ready=True)
    assert election.is_active
    assert election.term == 2


def test_a_dead_host_without_a_lease_is_waited_for() -> None:
    """Its port is open as long as the host runs."""
    dead = OTHER._replace(is_active=True, is_live=False)
    election = opened(Election(LOW, 0.0), dead)

    election.decide((dead,), (), 1000.0, is_ready=True)
    assert "before it had to share" in election.standing.why


def test_a_probe_keeps_a_plug_closed() -> None:
    """Whatever the records say: the other one is active on the wire."""
    election = Election(LOW, 0.0)
    unknown_state = OTHER._replace(is_live=False, is_same_segment=False)

    for at in range(10):
        election.decide((unknown_state,), (HIGH,), float(at), is_ready=True)
    assert election.standing.why == "the plug of vm2 is active on the same wire"


def test_probes_of_other_networks_close_nothing() -> None:
    """Two networks on one wire are no loop."""
    election = opened(Election(HIGH, 0.0))

    assert election.decide((), (LOW,), 9.0, is_ready=True).role is PlugRole.ACTIVE


@pytest.mark.parametrize(("term", "is_open"), [(1, True), (2, False)])
def test_a_host_that_returns_gives_way(term: int, is_open: bool) -> None:
    """Of two active ones the later activation stays, and of equal ones the lower MAC."""
    election = opened(Election(LOW, 0.0))

    election.decide((OTHER._replace(is_active=True, term=term),), (), 9.0, is_ready=True)
    assert election.is_active is is_open


def test_a_plug_on_a_wire_of_another_name_is_no_rival() -> None:
    """Both pass frames, unless they hear each other."""
    elsewhere = OTHER._replace(mac=LOW, is_same_segment=False, is_active=True)
    election = opened(Election(HIGH, 0.0), elsewhere)

    assert election.is_active
    election.decide((elsewhere._replace(term=2),), (LOW,), 9.0, is_ready=True)
    assert election.standing.role is PlugRole.STANDBY


@pytest.mark.parametrize("seed", range(20))
def test_one_of_several_is_active_in_the_end(seed: int) -> None:
    """Whenever hosts start, die and return, a moment later one live host's plug is open."""
    rng = random.Random(seed)
    macs = [Mac(b"\x0e\0\0\0\0" + bytes([number])) for number in range(1, 5)]
    elections = {mac: Election(mac, 0.0) for mac in macs}
    live = dict.fromkeys(macs, True)
    now = 0.0
    for step in itertools.count():
        now += limits.PLUG_POLL_S
        if step < 200 and rng.random() < 0.05:
            mac = rng.choice(macs)
            live[mac] = not live[mac] if sum(live.values()) > 1 else True
            if live[mac]:
                elections[mac] = Election(mac, now, elections[mac].term)
        records = {
            mac: (each.is_active, each.term) for mac, each in elections.items()
        }  # as they were before this round
        for mac in macs:
            rivals = [
                Rival(
                    mac_name(other),
                    other,
                    True,
                    *records[other][:1],
                    True,
                    True,
                    live[other],
                    records[other][1],
                )
                for other in macs
                if other != mac
            ]
            if live[mac]:
                elections[mac].decide(rivals, (), now, is_ready=True)
        if step == 300:
            break
    assert sum(live[mac] and elections[mac].is_active for mac in macs) == 1


def mac_name(mac: Mac) -> str:
    """Return a host's name for a MAC."""
    return f"vm{mac[5]}"


def test_the_highest_term_shuts_nobody_out() -> None:
    """A member that lies may write it: a term above it would be one that nobody can read."""
    rival = OTHER._replace(is_ready=False, term=limits.PLUG_TERM_MAX)
    election = opened(Election(LOW, 0.0), rival)

    assert election.is_active
    assert election.term == limits.PLUG_TERM_MAX
    rival = rival._replace(is_ready=True, is_active=True)
    assert election.decide([rival], (), 9.0, is_ready=True).role is PlugRole.ACTIVE
    rival = rival._replace(mac=Mac(bytes(6)))
    assert election.decide([rival], (), 9.5, is_ready=True).role is PlugRole.STANDBY
