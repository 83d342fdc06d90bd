"""Reading the fields of a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from overlay.agent.api.endpoints import endpoint_options
from overlay.agent.api.schema import fields
from overlay.errors import UsageError
from overlay.model import parse_ip, parse_mac


def test_fields_are_read() -> None:
    """Each reader returns the value, or the default where there is none."""
    body = {"n": 5, "f": True, "t": "x", "l": ["a"], "ip": "10.0.0.1", "mac": "02:00:00:00:00:01"}

    assert fields.number(body, "n", 1, 9) == 5
    assert fields.flag(body, "f")
    assert fields.text(body, "t") == "x"
    assert fields.texts(body, "l", 3) == ["a"]
    assert fields.ip(body, "ip") == parse_ip("10.0.0.1")
    assert fields.mac(body, "mac") == parse_mac("02:00:00:00:00:01")
    assert fields.number({}, "n", 1, 9) is None
    assert fields.flag({}, "f", default=True)
    assert fields.texts({}, "l", 3) == []
    assert fields.texts({"l": None}, "l", 3) == []
    assert fields.wait_flag({})
    assert fields.query_flag({"repair": "1"}, "repair")
    assert not fields.query_flag({}, "repair")
    assert fields.query_time({"since": "1.5"}, "since") == 1.5
    assert fields.query_time({}, "since") == 0
    assert not fields.wait_flag({"wait": "none"})


@pytest.mark.parametrize(
    "read",
    [
        lambda: fields.refuse_unknown_fields({"a": 1}, "b"),
        lambda: fields.number({"n": True}, "n", 0, 9),
        lambda: fields.number({"n": 10}, "n", 0, 9),
        lambda: fields.flag({"f": 1}, "f"),
        lambda: fields.text({"t": 1}, "t"),
        lambda: fields.text({"t": ""}, "t"),
        lambda: fields.required_text({}, "t"),
        lambda: fields.texts({"l": "a"}, "l", 3),
        lambda: fields.texts({"l": ["a", "b"]}, "l", 1),
        lambda: fields.texts({"l": False}, "l", 3),
        lambda: fields.texts({"l": ["x" * 4097]}, "l", 3),
        lambda: fields.labels({"labels": 0}),
        lambda: fields.ifname({"ifname": "a/b"}),
        lambda: fields.ifname({"ifname": "x" * 16}),
        lambda: fields.ifname({"ifname": "eth%d"}),
        lambda: fields.ifname({"ifname": "\u00e9" * 8}),
        lambda: fields.ifname({"ifname": "default"}),
        lambda: fields.wait_flag({"wait": "some"}),
        lambda: fields.query_flag({"repair": "true"}, "repair"),
        lambda: fields.query_flag({"repair": ""}, "repair"),
        lambda: fields.query_time({"since": "yesterday"}, "since"),
        lambda: fields.query_time({"since": "nan"}, "since"),
        lambda: fields.query_time({"since": "1e999"}, "since"),
        lambda: endpoint_options({"ip": "10.0.0.1"}, 2),
        lambda: fields.ip({"ip": "10.0.0"}, "ip"),
        lambda: fields.mac({"mac": "01:00:00:00:00:00"}, "mac"),
        lambda: fields.mac({"mac": "zz"}, "mac"),
        lambda: fields.name({"name": "a b"}, "name"),
        lambda: fields.name({"name": "x" * 64}, "name"),
        lambda: fields.name({"name": "\u017fun"}, "name"),
        lambda: fields.name({"name": "\u212a"}, "name"),
        lambda: fields.name({"name": "a..b"}, "name"),
        lambda: fields.text({"t": "two\nlines"}, "t"),
        lambda: fields.texts({"l": ["\x1b[2J"]}, "l", 3),
        lambda: fields.names({"aliases": ["www", "a b"]}, "aliases", 3),
        lambda: fields.names({"aliases": ["x" * 64]}, "aliases", 3),
        lambda: fields.labels({"labels": {"a": "\x14"}}),
        lambda: fields.labels({"labels": {"\ud800": "b"}}),
        lambda: fields.labels({"labels": {"a": 1}}),
        lambda: fields.labels({"labels": {"a": "\U0001f600" * 32}}),
        lambda: fields.labels({"labels": {str(n): "x" for n in range(17)}}),
    ],
)
def test_what_is_wrong_is_a_usage_error(read: Callable[[], Any]) -> None:
    """A field of the wrong type or range is the caller's mistake, told by name."""
    with pytest.raises(UsageError):
        read()
