"""The walks in docs/walks.md: each function exists, and the counts are right."""

from __future__ import annotations

import ast
import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "walks.md"


def steps_of(walk: str) -> list[tuple[str, str]]:
    """Return the steps of a walk: file and function."""
    listing = DOCUMENT.read_text().split(f"## {walk.capitalize()}\n")[1].split("```")[1]
    found = re.findall(r"^(\S+\.py):([\w.]+)$", listing, re.MULTILINE)
    stages = re.findall(r"^# .+$", listing, re.MULTILINE)
    assert len(found) + len(stages) == len(listing.strip().splitlines())
    return found


@cache
def functions_of(path: str) -> frozenset[str]:
    """Return the functions of a module, and its methods as `Class.method`."""
    found: set[str] = set()
    for node in ast.parse((ROOT / "overlay" / path).read_text()).body:
        prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for inner in node.body if isinstance(node, ast.ClassDef) else [node]:
            if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(prefix + inner.name)
    return frozenset(found)


@pytest.mark.parametrize("walk", ["attach", "publish"])
def test_every_function_of_a_walk_exists(walk: str) -> None:
    """A function that is renamed, moved or removed is changed in the document too."""
    steps = steps_of(walk)

    assert [f"{path}:{name}" for path, name in steps if name not in functions_of(path)] == []
    assert steps[0] == ("cli/main.py", "main")


@pytest.mark.parametrize("walk", ["attach", "publish"])
def test_the_counts_of_a_walk_are_right(walk: str) -> None:
    """The table has the steps, files and changes of file of the listing."""
    files = [path for path, _ in steps_of(walk)]
    changes = sum(before != after for before, after in pairwise(files))
    row = re.search(
        rf"^\| {walk} +\| now +\| (\d+) +\| (\d+) +\| (\d+) +\|$",
        DOCUMENT.read_text(),
        re.MULTILINE,
    )

    assert row is not None
    assert tuple(map(int, row.groups())) == (len(files), len(set(files)), changes)
