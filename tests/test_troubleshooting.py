"""The page on troubleshooting covers every health line of `overlayd status`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
AGENT = ROOT / "overlay/agent"


def text_nodes(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield each expression that becomes the text of a health line.

    These are the first argument of `Fault`, the `problem` of a controller, and the `"text"` of a
    health line that is written out.
    """
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="Fault"), args=[text, *_]):
                yield text
            case ast.Assign(
                targets=[ast.Name(id="problem") | ast.Attribute(attr="problem")], value=text
            ):
                yield text
            case ast.Dict(keys=keys, values=values):
                pairs = zip(keys, values, strict=True)
                yield from (
                    value
                    for key, value in pairs
                    if isinstance(key, ast.Constant) and key.value == "text"
                )


def health_texts(path: Path) -> Iterator[str]:
    """Yield the longest fixed part of each health line that a module can write."""
    for value in text_nodes(ast.parse(path.read_text())):
        parts = value.values if isinstance(value, ast.JoinedStr) else [value]
        fixed = [str(part.value) for part in parts if isinstance(part, ast.Constant)]
        if fixed:
            yield max((words.strip(" :").partition(":")[0].strip() for words in fixed), key=len)


def test_every_health_line_is_explained() -> None:
    """Each line of `overlayd status` has a row in a table of the page."""
    page = " ".join((ROOT / "docs/operate/troubleshooting.md").read_text().split())
    table = page[page.index("What `overlayd status` and errors say") :]
    modules = [
        AGENT / "api/status.py",
        *(path for path in AGENT.rglob("*.py") if "Fault" in path.read_text()),
        *(path for path in AGENT.rglob("*.py") if "(Controller)" in path.read_text()),
    ]
    texts = {words for path in modules for words in health_texts(path)}

    assert len(texts) > 20
    assert sorted(words for words in texts if words not in table) == []
