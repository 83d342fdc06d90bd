"""--format: the part of Go's templates that lists need."""

from __future__ import annotations

from typing import Any

import pytest
from overlay.cli.options.templates import formatted
from overlay.errors import UsageError

ROW: dict[str, Any] = {
    "name": "blue",
    "endpoints_total": 3,
    "internal": False,
    "parent": None,
    "hosts": ["vm1", "vm2"],
    "labels": {"team": "a", "tier": "b"},
    "subnets": [{"subnet": "10.1.0.0/16"}, {"subnet": "fd01::/64"}],
}


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("{{.Name}}", "blue"),
        ("{{ .name }}/{{.EndpointsTotal}}", "blue/3"),
        ("{{.endpoints_total}}", "3"),
        (r"{{.Name}}\t{{.Internal}}", "blue\tfalse"),
        ("<{{.Parent}}>", "<>"),
        ("{{.Hosts}}", "vm1 vm2"),
        ('{{join .Hosts ", "}}', "vm1, vm2"),
        ("{{.Labels}}", "team=a,tier=b"),
        ("{{.Labels.team}}", "a"),
        ("{{.Subnets.Subnet}}", "10.1.0.0/16 fd01::/64"),
        ("{{json .Labels}}", '{"team": "a", "tier": "b"}'),
        ("{{upper .Name}} {{lower .Name}} {{len .Hosts}}", "BLUE blue 2"),
        ("no field", "no field"),
    ],
)
def test_a_template_makes_a_line(template: str, line: str) -> None:
    """Fields are those of --json, in its spelling or in Go's."""
    assert formatted(template, [ROW]) == [line]


def test_the_whole_row_is_a_dot() -> None:
    """`json .` is the row as --json has it."""
    assert formatted("{{json .}}", [{"name": "a", "ips": []}]) == ['{"name": "a", "ips": []}']


def test_a_table_has_a_header_and_columns() -> None:
    """The header's words are the fields."""
    rows = [{"name": "blue", "vni": 1}, {"name": "a-long-name", "vni": 2}]

    assert formatted(r"table {{.Name}}\t{{.VNI}}", rows) == [
        "NAME         VNI",
        "blue         1",
        "a-long-name  2",
    ]
    assert formatted("table {{.Name}}", []) == ["NAME"]


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{.First}}", "there is no field .First; known fields: .name"),
        ("{{.Name.First}}", "known fields: none"),
        ("{{range .Hosts}}", "'range' is not one of json"),
        ("{{.Name", "without its }}"),
        ("Name}}", "without its {{"),
        ("{{}}", "names no field"),
        ("{{json}}", "names no field"),
        ("{{.Name .Hosts}}", "more words than it can use"),
        ('{{join .Hosts "}}', "a quote that does not end"),
    ],
)
def test_a_template_that_is_not_understood_is_refused(template: str, why: str) -> None:
    """The error says which part, and what can be used."""
    with pytest.raises(UsageError) as raised:
        formatted(template, [ROW])
    assert why in raised.value.why
    assert raised.value.field == "format"
