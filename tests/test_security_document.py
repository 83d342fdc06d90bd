"""docs/SECURITY.md against the tests that it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "SECURITY.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`([\w/]+/test_\w+)`(?:: ([a-z_]+(?:, [a-z_]+)*))?", TEXT)


@pytest.mark.parametrize(("file", "names"), NAMED)
def test_every_promise_names_a_test_that_exists(file: str, names: str) -> None:
    """A promise whose test was renamed or removed is not kept."""
    text = (ROOT / "tests" / f"{file}.py").read_text(encoding="utf-8")
    for name in filter(None, names.split(", ")):
        assert f"def test_{name}(" in text


def test_every_promise_names_a_test() -> None:
    """Each row of the promises names a test file."""
    promises = TEXT.split("## What is promised")[1].split("## What is not promised")[0]
    rows = [line for line in promises.splitlines() if line.startswith("| ")][1:]

    assert len(rows) > 10
    assert [row for row in rows if "/test_" not in row] == []
