"""Rules for the test run: no test may be left out by how the parts are chosen."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.e2e.longest import LONGEST

ROOT = Path(__file__).parent.parent
ON_HOSTS = sorted((ROOT / "tests/e2e").glob("test_*.py"))
MARKS = re.compile(r"^pytestmark = [^=]*\bmark\.(netns|e2e|chaos)\b", re.MULTILINE)


@pytest.mark.parametrize("path", ON_HOSTS, ids=lambda path: path.stem)
def test_every_file_of_the_hosts_tests_is_marked(path: Path) -> None:
    """The unit tests leave out this folder, so nothing in it may be a unit test."""
    assert MARKS.search(path.read_text())


def test_the_longest_files_exist() -> None:
    """A file that was renamed or removed is renamed or removed in the list, too."""
    assert [name for name in LONGEST if not (ROOT / name).exists()] == []
    assert len(set(LONGEST)) == len(LONGEST)
