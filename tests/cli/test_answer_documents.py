"""The answers that commands make themselves are documented, with all their fields."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs/operate/commands.md"
SCHEMA = re.compile(r"overlayd\.[a-z-]+/v\d")
NO_ANSWER = {"overlayd.web-state/v1"}  # of the page's own requests


def made() -> dict[str, set[str]]:
    """Return the fields of the answers that the code spells out where it prints them."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "overlay").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Dict):
                continue
            keys = [each.value if isinstance(each, ast.Constant) else "" for each in node.keys]
            value = dict(zip(keys, node.values, strict=True)).get("schema")
            if isinstance(value, ast.Constant):
                found.setdefault(str(value.value), set()).update({*map(str, keys)} - {"", "schema"})
    return found


def test_every_schema_is_in_a_document() -> None:
    """Programs read these answers, so each has a place that lists its fields."""
    sources = "".join(path.read_text() for path in (ROOT / "overlay").rglob("*.py"))
    documents = "".join(path.read_text() for path in (ROOT / "docs").rglob("*.md"))

    assert {each for each in SCHEMA.findall(sources) if each not in documents} == NO_ANSWER


def test_the_table_has_every_field() -> None:
    """Of each answer whose fields are spelled out where it is printed."""
    answers, checked = made(), 0
    for line in PAGE.read_text().splitlines():
        if line.startswith("| `overlayd."):
            schema = line.split("`")[1]
            told = set(re.findall(r"`([a-z_]+)`", line.split("|", 2)[2]))
            assert answers.get(schema, set()) - told == set(), schema
            checked += schema in answers

    assert checked >= 15
