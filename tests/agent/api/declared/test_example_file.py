"""The file that the guide shows is one that the agent accepts."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from overlay.agent.api.declared.schema import SECTIONS
from overlay.agent.api.schema.decoder import decode_part

GUIDE = Path(__file__).parents[4] / "docs" / "guide" / "apply.md"


def test_the_guide_shows_an_object_of_each_section() -> None:
    """With keys and values that a file may have; nothing else would be copied from it."""
    (block,) = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    shown = tomllib.loads(block)

    assert shown.pop("owner") == "shop"
    assert set(shown) == set(SECTIONS)
    for section, tables in shown.items():
        for number, table in enumerate(tables):
            decode_part(SECTIONS[section], table, f"{section}[{number}]")
