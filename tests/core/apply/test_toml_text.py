"""Values written as TOML read back as they were."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from overlay.core.apply.toml_text import toml_text

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
plain = st.booleans() | st.integers(-(2**63), 2**63 - 1) | texts
values = (
    plain
    | st.lists(texts, min_size=1, max_size=6)
    | st.dictionaries(texts, texts, max_size=3)
    | st.lists(st.dictionaries(texts, plain, min_size=1, max_size=2), min_size=1, max_size=2)
)
tables = st.lists(st.dictionaries(texts, values, max_size=4), min_size=1, max_size=3)
sections = st.dictionaries(st.sampled_from(["network", "dns"]), tables)


@given(sections, st.dictionaries(st.sampled_from(["owner", "schema"]), texts))
def test_documents_read_back(found: dict[str, Any], head: dict[str, str]) -> None:
    """Whatever labels and names hold."""
    document = {**found, **head}

    assert tomllib.loads(toml_text(document)) == document


def test_long_lists_take_several_lines() -> None:
    """Short ones take one, and an empty document none."""
    document = {"owner": "shop", "dns": [{"name": "db", "ips": [f"10.0.0.{n}" for n in range(9)]}]}

    text = toml_text(document)

    assert text.startswith('owner = "shop"\n\n[[dns]]\nname = "db"\nips = [\n  "10.0.0.0",\n')
    assert toml_text({"publish": [{"ports": ["80:80"]}]}) == '[[publish]]\nports = ["80:80"]\n'
