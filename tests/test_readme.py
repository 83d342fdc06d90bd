from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent


def health_texts(path: Path) -> Iterator[str]:
    """Yield the fixed parts of each `"text": ...` that a module reports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Dict):
            continue
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == "text":
                parts = value.values if isinstance(value, ast.JoinedStr) else [value]
                fixed = [str(part.value) for part in parts if isinstance(part, ast.Constant)]
                yield max((words.strip(" :").partition(":")[0].strip() for words in fixed), key=len)


def test_every_health_line_is_in_the_readme() -> None:
    """Each line of `overlayd status` is explained in the README."""
    readme = " ".join((ROOT / "README.md").read_text().split())
    table = readme[readme.index("What `overlayd status` and errors say") :]
    texts = [
        words
        for name in ("health.py", "status.py")
        for words in health_texts(ROOT / "overlay/agent/api" / name)
    ]

    assert len(texts) > 5
    assert [words for words in texts if words not in table] == []
