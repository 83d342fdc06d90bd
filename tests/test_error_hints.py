"""Errors that a caller can mend say what to do next."""

from __future__ import annotations

import ast
from pathlib import Path

import overlay

SOURCE = Path(overlay.__file__).parent
MENDABLE = {"ConflictError", "TimedOutError"}
"""Errors whose cause is a state that the caller can change, or that passes."""
ONLY_DEVELOPERS = ("lab", "sim")  # packages whose errors no operator meets


def _without_hint(tree: ast.AST) -> list[int]:
    """Return the lines that raise such an error without a hint."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
        and node.exc.func.id in MENDABLE
        and not any(each.arg == "hint" for each in node.exc.keywords)
    ]


def test_an_error_without_a_hint_is_found() -> None:
    """The check itself sees one."""
    wrong = "raise ConflictError('taken', why='vm2 has it')"
    assert _without_hint(ast.parse(wrong)) == [1]
    assert _without_hint(ast.parse("raise ConflictError('taken', hint='Choose another')")) == []


def test_mendable_errors_have_a_hint() -> None:
    """In every module that operators meet."""
    lacking = [
        f"{path.relative_to(SOURCE)}:{line}"
        for path in sorted(SOURCE.rglob("*.py"))
        if path.relative_to(SOURCE).parts[0] not in ONLY_DEVELOPERS
        for line in _without_hint(ast.parse(path.read_text(encoding="utf-8")))
    ]

    assert lacking == []
