"""Every kind of event is described, and every described kind is recorded somewhere."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from overlay.agent.process.event_kinds import EVENT_KINDS

AGENT = Path(__file__).parents[3] / "overlay" / "agent"


def recorded_kinds(tree: ast.AST) -> Iterator[str]:
    """Yield the kinds that a module records.

    These are the first arguments of `record` and `StatusChange`, and each `event_kind`.
    """
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(attr="record") | ast.Name(id="record" | "StatusChange"),
                args=[ast.Constant(value=str() as kind), *_],
            ):
                yield kind
            case (
                ast.AnnAssign(target=ast.Name(id="event_kind"), value=ast.Constant(value=kind))
                | ast.Assign(
                    targets=[ast.Name(id="event_kind")], value=ast.Constant(value=str() as kind)
                )
            ):
                yield str(kind)


def test_the_table_has_exactly_the_recorded_kinds() -> None:
    """The documentation's table is made from it."""
    found = {
        kind for path in AGENT.rglob("*.py") for kind in recorded_kinds(ast.parse(path.read_text()))
    }

    assert found == set(EVENT_KINDS)


def test_each_kind_has_one_sentence() -> None:
    """Which fits a cell of a table."""
    assert [kind for kind, text in EVENT_KINDS.items() if not text.endswith(".")] == []
    assert [kind for kind, text in EVENT_KINDS.items() if "|" in text] == []
