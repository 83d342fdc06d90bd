"""Lines of keys in TOML and JSON files."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay.core.apply.positions import Path, json_positions, path_text, toml_positions

TOML = '''\
# the shop
owner = "shop"  # [[not]] a = table

[[network]]
name = "blue"
labels = { team = "a", "x.y" = 'b' }
subnets = [
  "10.32.0.0/16",  # the first
  { subnet = "fd40::/64", gateway = "fd40::1" },
]

[[network]]
name = """
[[network]]
name = 1
"""
[network.more]
"quoted \\u0041" . plain = 1979-05-27T07:32:00Z

[[dns]]
ips = [ "10.0.0.1", [ 1, 2,
 3 ] ]
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("owner", 2),
        ("network[0]", 4),
        ("network[0].labels.x.y", 6),
        ("network[0].subnets", 7),
        ("network[0].subnets[0]", 8),
        ("network[0].subnets[1].gateway", 9),
        ("network[1].name", 13),
        ("network[1].more", 17),
        ("network[1].more.quoted A.plain", 18),
        ("dns[0].ips[1][2]", 22),
    ],
)
def test_each_toml_key_has_its_line(path: str, line: int) -> None:
    """Comments, strings of several lines, nested values and dotted keys are understood."""
    assert tomllib.loads(TOML)

    assert toml_positions(TOML).lines[path] == line


def test_a_path_without_a_line_has_its_parents() -> None:
    """A missing key is reported at its table; nothing is known of another section."""
    found = toml_positions(TOML)

    assert found.line_of("network[1].vni") == 12
    assert found.line_of("network[0].subnets[1].ip_range") == 9
    assert found.line_of("publish[0].name") is None


def test_repeated_json_keys_are_found() -> None:
    """The standard library's parser would drop the first one without a word."""
    text = '{"owner": "a",\n "network": [{"name": "x",\n  "name" : "y"}]}'

    found = json_positions(text)

    assert found.repeated == [("network[0].name", 3)]
    assert found.line_of("network[0].name") == 2


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("ab[]{}\"'\\#.é \n", min_size=1, max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["a", "b c", "d"]), values, max_size=3))
def test_every_json_key_is_found_on_its_line(value: dict[str, Any]) -> None:
    """In indented JSON each key and item has a line of its own, in order."""
    text = json.dumps(value, indent=1)
    expected = list(_paths(value, ()))

    found = json_positions(text)

    assert set(found.lines) == {path_text(path) for path in expected}
    if len(set(map(path_text, expected))) == len(expected):
        lines = [found.lines[path_text(path)] for path in expected]
        assert lines == sorted(lines)
        assert len(set(lines)) == len(lines)
        assert not found.repeated


def _paths(value: Any, path: Path) -> Any:
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in items:
        yield (*path, key)
        yield from _paths(inner, (*path, key))
