"""Which groups a host wants, from its containers' reports."""

from __future__ import annotations

from overlay import limits
from overlay.core.multicast.interest import Interest
from overlay.core.multicast.memberships import Memberships
from overlay.core.multicast.reports import Report
from overlay.model import Ip, parse_ip
from tests.core.multicast.frames import SENDER

GROUP, LOCAL = parse_ip("239.1.2.3"), parse_ip("224.0.0.251")
LEARNED = limits.MULTICAST_LEARNING_S
NOTHING = Interest(7, wants_all=False)
WANTED = Interest(7, wants_all=False, groups=(GROUP,))
ALL = Interest(7, wants_all=True)


def learned() -> Memberships:
    """Return one that has learned, and asked as often as it does meanwhile."""
    made = Memberships(7, 0.0)
    made.queries(LEARNED)
    return made


def join(to: Memberships, now: float, group: Ip = GROUP, *, is_local: bool = True) -> None:
    """Let a container join a group."""
    to.heard(Report(SENDER, joined=(group,)), now, is_local=is_local)


def test_a_host_wants_all_until_it_has_learned() -> None:
    """A start finds containers that joined long before; it asks them several times."""
    made = Memberships(7, 0.0)
    join(made, 1.0)

    assert made.queries(0.0) == [None]
    assert made.queries(0.1) == []
    assert made.queries(LEARNED / 2) == [None]
    assert made.interest(1.0) == Interest(7, wants_all=True, groups=(GROUP,))
    assert made.next_at(1.0) <= LEARNED
    assert made.interest(LEARNED) == WANTED


def test_a_query_that_became_due_is_told() -> None:
    """A pass may take longer than what is left until the query; then nothing else is to come."""
    made = learned()
    due = LEARNED + limits.MULTICAST_QUERY_INTERVAL_S

    assert made.queries(due - 0.1) == []
    assert made.next_at(due - 0.1) == due
    assert made.next_at(due) == made.next_at(due + 0.1) == due


def test_a_group_without_a_report_is_forgotten() -> None:
    """After two queries without an answer; each answer keeps it."""
    made = learned()
    join(made, LEARNED)
    join(made, LEARNED + 60)
    end = LEARNED + 60 + limits.MULTICAST_MEMBERSHIP_S

    assert made.interest(end - 0.1) == WANTED
    assert made.queries(end - 0.1) == [None]
    assert made.next_at(end - 0.1) == end
    assert made.interest(end) == NOTHING


def test_a_left_group_is_asked_for() -> None:
    """Another member may answer; nobody does, and it is forgotten within seconds."""
    made = learned()
    left = Report(SENDER, left=(GROUP,))
    join(made, LEARNED)
    made.heard(left, LEARNED + 1, is_local=True)

    assert made.queries(LEARNED + 1) == [GROUP]
    join(made, LEARNED + 2)
    assert made.interest(LEARNED + 10) == WANTED
    made.heard(left, LEARNED + 10, is_local=True)
    assert made.queries(LEARNED + 10) == [GROUP]
    assert made.queries(LEARNED + 12) == [GROUP]
    assert made.interest(LEARNED + 10 + limits.MULTICAST_LEAVE_S) == NOTHING
    assert made.queries(LEARNED + 14) == []


def test_another_hosts_report_only_keeps_a_group() -> None:
    """It may have kept a container here from answering, but says nothing of one."""
    made = learned()
    join(made, LEARNED, is_local=False)
    assert made.interest(LEARNED) == NOTHING

    join(made, LEARNED)
    join(made, LEARNED + 100, is_local=False)
    made.heard(Report(SENDER, left=(GROUP,), is_router=True), LEARNED + 101, is_local=False)
    assert made.interest(LEARNED + limits.MULTICAST_MEMBERSHIP_S + 1) == WANTED


def test_link_local_groups_are_not_followed() -> None:
    """They reach every host anyway."""
    made = learned()
    join(made, LEARNED, LOCAL)

    assert made.interest(LEARNED) == NOTHING


def test_a_router_or_an_open_port_gets_all() -> None:
    """The router as long as it is heard of."""
    made = learned()
    assert made.interest(LEARNED, is_open=True) == ALL
    made.heard(Report(SENDER, is_router=True), LEARNED, is_local=True)

    assert made.interest(LEARNED + limits.MULTICAST_ROUTER_S - 1) == ALL
    assert made.interest(LEARNED + limits.MULTICAST_ROUTER_S) == NOTHING


def test_a_restless_host_wants_all_for_a_while() -> None:
    """A container that joins and leaves all the time causes few records."""
    made = learned()
    seen: list[Interest] = []
    for number in range(1000):
        now = LEARNED + number / 10
        group = Ip(bytes([239, 2, *divmod(number, 256)]))
        join(made, now, group)
        made.heard(Report(SENDER, left=(group,)), now, is_local=True)
        found = made.interest(now)
        if not seen or seen[-1] != found:
            seen.append(found)
    quiet = LEARNED + 100 + limits.MULTICAST_UNREST_S

    assert len(seen) <= limits.MULTICAST_CHANGES_MAX
    assert seen[-1] == ALL
    assert made.interest(quiet) == NOTHING


def test_so_many_groups_are_remembered() -> None:
    """One container can report hundreds of thousands a second; the host then wants all."""
    made = learned()
    groups = [Ip(bytes([239, 3, *divmod(number, 256)])) for number in range(5000)]
    made.heard(Report(SENDER, joined=(GROUP,)), LEARNED, is_local=True)
    made.heard(Report(SENDER, joined=tuple(groups)), LEARNED, is_local=True)

    assert made.interest(LEARNED) == ALL
    quiet = LEARNED + limits.MULTICAST_UNREST_S
    assert len(made._until) == limits.MULTICAST_GROUPS_MAX
    join(made, quiet - 1)
    assert made.interest(quiet) == WANTED


def test_so_many_left_groups_are_asked_for() -> None:
    """Each costs a frame to every port, twice; the others stay until no query is answered."""
    made = learned()
    groups = tuple(Ip(bytes([239, 3, 0, number])) for number in range(250))
    made.heard(Report(SENDER, joined=groups), LEARNED, is_local=True)
    made.heard(Report(SENDER, left=groups), LEARNED, is_local=True)

    assert len(made.queries(LEARNED)) == limits.MULTICAST_ASKED_MAX
    assert made.interest(LEARNED + limits.MULTICAST_LEAVE_S) == ALL
    assert made.interest(LEARNED + 2 * limits.MULTICAST_UNREST_S) == NOTHING
