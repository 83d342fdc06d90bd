"""The rows of policies: their keys, their order and their texts."""

from __future__ import annotations

import pytest
from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.link_state import Bridge
from overlay.core.dataplane.operations import DeleteRow, PutRow, row_key
from overlay.core.dataplane.port_security import policed_port_row
from overlay.core.dataplane.state import (
    GATEWAY_CLASS,
    HookRow,
    PolicyClassRow,
    Row,
    SandboxState,
    VerdictRow,
)
from overlay.model import parse_ip, parse_mac

LINKS = {"br0": Bridge("br0", parse_mac("02:00:00:00:00:01"), 1450)}
CLASS = PolicyClassRow(parse_ip("10.32.0.2"), 32, 7)
DEFAULT = VerdictRow(0, 0, 0, 0, 0, allow=False)
HTTP = VerdictRow(7, 8, 6, 8080, 16, allow=True, log=True, rule=3)


def state(*rows: Row) -> SandboxState:
    """Return a sandbox with a bridge and rows."""
    return SandboxState(dict(LINKS), frozenset(rows))


def test_policies_are_complete_before_a_hook_applies_them() -> None:
    """Verdicts first, then classes, then hooks; they are deleted the other way round."""
    rows = state(HookRow(0, "br0", is_policed=True), CLASS, DEFAULT, HTTP)

    put = diff(rows, state(), prune=True)
    gone = diff(state(), rows, prune=True)

    assert [type(each.row) for each in put if isinstance(each, PutRow)] == [
        VerdictRow, VerdictRow, PolicyClassRow, HookRow,
    ]  # fmt: skip
    assert [type(each.row) for each in gone if isinstance(each, DeleteRow)] == [
        HookRow, PolicyClassRow, VerdictRow, VerdictRow,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (CLASS, CLASS._replace(number=8)),
        (HTTP, HTTP._replace(allow=False, log=False, rule=9)),
        (HookRow(0, "br0"), HookRow(0, "br0", is_policed=True)),
    ],
)
def test_a_changed_row_replaces_the_one_before(one: Row, other: Row) -> None:
    """The kernel holds one row under a key."""
    assert row_key(one) == row_key(other)
    assert diff(state(other), state(one), prune=True) == [PutRow(other)]


def test_rows_of_other_packets_have_other_keys() -> None:
    """The key has the fields by which a packet is looked up."""
    rows: list[Row] = [
        CLASS, CLASS._replace(prefix_length=24), DEFAULT, HTTP, HTTP._replace(port_bits=12),
        HTTP._replace(protocol=17), HTTP._replace(source=8), HookRow(0, "ve1", is_policed=True),
        policed_port_row(0, "ve1"),
    ]  # fmt: skip

    assert len({row_key(row) for row in rows}) == len(rows)


def test_prefix_lengths_order_verdicts_by_their_precision() -> None:
    """The default, a pair of classes, a protocol, ports."""
    pair = VerdictRow(7, GATEWAY_CLASS, 0, 0, 0, allow=True)
    rows = (DEFAULT, pair, pair._replace(protocol=1), HTTP._replace(port_bits=12), HTTP)

    assert [row.prefix_length for row in rows] == [0, 32, 48, 60, 64]


def test_operations_on_policies_read_as_rules() -> None:
    """Logs and errors name classes, protocol and rule."""
    assert [str(PutRow(row)) for row in (CLASS, DEFAULT, HTTP, policed_port_row(0, "ve1"))] == [
        "policy replace class 7 of 10.32.0.2/32",
        "policy replace deny by rule 0 by default",
        "policy replace allow by rule 3 and log class 7 to 8 protocol 6 port 8080/16",
        "fast path replace policed program of segment 0 on ve1, leaving",
    ]
