"""Reading the fields of a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from overlay.agent import request
from overlay.agent.endpointroutes import wish_of
from overlay.errors import UsageError
from overlay.model import parse_ip, parse_mac


def test_fields_are_read() -> None:
    """Each reader returns the value, or the default where there is none."""
    body = {"n": 5, "f": True, "t": "x", "l": ["a"], "ip": "10.0.0.1", "mac": "02:00:00:00:00:01"}

    assert request.number(body, "n", 1, 9) == 5
    assert request.flag(body, "f")
    assert request.text(body, "t") == "x"
    assert request.texts(body, "l", 3) == ["a"]
    assert request.ip(body, "ip") == parse_ip("10.0.0.1")
    assert request.mac(body, "mac") == parse_mac("02:00:00:00:00:01")
    assert request.number({}, "n", 1, 9) is None
    assert request.flag({}, "f", default=True)
    assert request.texts({}, "l", 3) == []
    assert request.texts({"l": None}, "l", 3) == []
    assert request.waits({})
    assert request.switch({"repair": "1"}, "repair")
    assert not request.switch({}, "repair")
    assert request.moment({"since": "1.5"}, "since") == 1.5
    assert request.moment({}, "since") == 0
    assert not request.waits({"wait": "none"})


@pytest.mark.parametrize(
    "read",
    [
        lambda: request.allow({"a": 1}, "b"),
        lambda: request.number({"n": True}, "n", 0, 9),
        lambda: request.number({"n": 10}, "n", 0, 9),
        lambda: request.flag({"f": 1}, "f"),
        lambda: request.text({"t": 1}, "t"),
        lambda: request.text({"t": ""}, "t"),
        lambda: request.required_text({}, "t"),
        lambda: request.texts({"l": "a"}, "l", 3),
        lambda: request.texts({"l": ["a", "b"]}, "l", 1),
        lambda: request.texts({"l": False}, "l", 3),
        lambda: request.texts({"l": ["x" * 4097]}, "l", 3),
        lambda: request.labels({"labels": 0}),
        lambda: request.ifname({"ifname": "a/b"}),
        lambda: request.ifname({"ifname": "x" * 16}),
        lambda: request.ifname({"ifname": "eth%d"}),
        lambda: request.ifname({"ifname": "\u00e9" * 8}),
        lambda: request.ifname({"ifname": "default"}),
        lambda: request.waits({"wait": "some"}),
        lambda: request.switch({"repair": "true"}, "repair"),
        lambda: request.switch({"repair": ""}, "repair"),
        lambda: request.moment({"since": "yesterday"}, "since"),
        lambda: request.moment({"since": "nan"}, "since"),
        lambda: request.moment({"since": "1e999"}, "since"),
        lambda: wish_of({"ip": "10.0.0.1"}, 2),
        lambda: request.ip({"ip": "10.0.0"}, "ip"),
        lambda: request.mac({"mac": "01:00:00:00:00:00"}, "mac"),
        lambda: request.mac({"mac": "zz"}, "mac"),
        lambda: request.name({"name": "a b"}, "name"),
        lambda: request.name({"name": "x" * 64}, "name"),
        lambda: request.name({"name": "\u017fun"}, "name"),
        lambda: request.name({"name": "\u212a"}, "name"),
        lambda: request.name({"name": "a..b"}, "name"),
        lambda: request.text({"t": "two\nlines"}, "t"),
        lambda: request.texts({"l": ["\x1b[2J"]}, "l", 3),
        lambda: request.names({"aliases": ["www", "a b"]}, "aliases", 3),
        lambda: request.names({"aliases": ["x" * 64]}, "aliases", 3),
        lambda: request.labels({"labels": {"a": "\x14"}}),
        lambda: request.labels({"labels": {"\ud800": "b"}}),
        lambda: request.labels({"labels": {"a": 1}}),
        lambda: request.labels({"labels": {"a": "\U0001f600" * 32}}),
        lambda: request.labels({"labels": {str(n): "x" for n in range(17)}}),
    ],
)
def test_what_is_wrong_is_a_usage_error(read: Callable[[], Any]) -> None:
    """A field of the wrong type or range is the caller's mistake, told by name."""
    with pytest.raises(UsageError):
        read()
