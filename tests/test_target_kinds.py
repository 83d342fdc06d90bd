"""The kinds of targets: one table for help, errors and guide."""

from __future__ import annotations

from pathlib import Path

import pytest
from overlay.agent.runtimes.targets import THIS_HOST
from overlay.target_kinds import (
    FORMS_TEXT,
    KINDS,
    RUNTIME_WORDS,
    TargetKind,
    is_path,
    kind_of,
    table_text,
)

GUIDE = Path(__file__).parents[1] / "docs/guide/targets.md"


@pytest.mark.parametrize("kind", KINDS, ids=[kind.word for kind in KINDS])
def test_the_guide_describes_each_kind(kind: TargetKind) -> None:
    """With the words of the help, and the command that lists what there is."""
    row = f"| `{kind.form}` | {kind.summary} | `{kind.listing}` |"
    assert row in GUIDE.read_text(encoding="utf-8")
    assert f"{kind.form} " in table_text()
    assert kind.form in FORMS_TEXT


def test_each_runtime_is_looked_up() -> None:
    """Each kind whose containers come back has an engine, in the order of the table."""
    assert tuple(engine.kind for engine in THIS_HOST.runtimes) == RUNTIME_WORDS


@pytest.mark.parametrize(
    ("text", "path", "word"),
    [
        ("/proc/1/ns/net", True, None),
        ("a/b", True, None),
        ("containerd:k8s.io/web", False, "containerd"),
        ("web", False, None),
        ("rkt:a/b", True, None),
    ],
)
def test_a_path_has_no_kind(text: str, path: bool, word: str | None) -> None:
    """A slash after the word of a kind belongs to the name."""
    kind = kind_of(text)
    assert (is_path(text), None if kind is None else kind.word) == (path, word)
