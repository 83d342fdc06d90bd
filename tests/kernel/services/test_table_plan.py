"""A client's table follows the services; a change of backends sends only the difference."""

from __future__ import annotations

from dataclasses import replace

import pytest
from overlay.core.services.values import VirtualPort
from overlay.kernel.services.table_plan import (
    TablePlan,
    TablePlanner,
    change_requests,
    creation_requests,
    delta,
)
from overlay.model import Ip, parse_ip
from tests.kernel.services.conftest import NODE, virtual_port

WEB, WEB6 = virtual_port(range(2, 8)), virtual_port(range(2, 8), 16)
OTHER = replace(WEB, ip=parse_ip("10.9.0.101"))


def applied(before: TablePlan, after: TablePlan) -> dict[str, frozenset[bytes]]:
    """Return what a table holds after a change."""
    put, gone = delta(before, after)
    held = before.elements()
    for name, listed in gone.items():
        assert listed <= held[name]
    return {name: held[name] - gone.get(name, set()) | put.get(name, set()) for name in held}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([WEB, OTHER], [virtual_port(range(2, 7)), OTHER]),
        ([WEB], [virtual_port(())]),
        ([virtual_port(())], [WEB]),
        ([WEB], [virtual_port(range(2, 60))]),
        ([WEB], [replace(WEB, affinity=True)]),
        ([WEB, OTHER], [OTHER]),
        ([OTHER], [WEB6, OTHER]),
        ([WEB], [virtual_port(range(2, 8), protocol="udp")]),
    ],
)
def test_a_change_leads_from_one_plan_to_the_other(
    before: list[VirtualPort], after: list[VirtualPort]
) -> None:
    """A backend goes, all do, a larger table or another hash, services and families come and go."""
    planner = TablePlanner(NODE)
    one, two = planner.plan(before), planner.plan(after)

    assert applied(one, two) == two.elements()
    assert applied(two, one) == one.elements()


def test_a_change_is_as_large_as_what_has_changed() -> None:
    """However many other services there are; nothing of them is written."""
    others = [replace(WEB, ip=Ip(bytes([10, 9, 1, at]))) for at in range(100)]
    planner = TablePlanner(NODE)
    before = planner.plan([WEB, *others])
    after = planner.plan([virtual_port(range(2, 7)), *others])
    put, gone = delta(before, after)

    assert sum(map(len, put.values())) == sum(map(len, gone.values())) < 80
    assert len(after.slots - before.slots) == 1


def test_requests_are_made_once_for_many_containers() -> None:
    """The same objects for each of them."""
    planner = TablePlanner(NODE)
    table, one, two = planner.table, planner.plan([WEB]), planner.plan([OTHER])

    assert change_requests(table, one, two) is change_requests(table, one, two)
    assert creation_requests(table, two) is creation_requests(table, two)


def test_equal_ports_have_equal_digests() -> None:
    """In any order, also for an agent that starts; and others have another one."""
    one, two = TablePlanner(NODE), TablePlanner(NODE)
    digest = one.plan([WEB, OTHER, WEB6]).digest

    assert two.plan([WEB6, OTHER, WEB]).digest == digest
    fewer = virtual_port(range(2, 7))
    others = [[WEB, OTHER], [fewer, OTHER, WEB6], [replace(WEB, affinity=True), OTHER, WEB6]]
    assert len({digest, *(two.plan(each).digest for each in others)}) == 4
