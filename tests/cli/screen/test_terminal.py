"""Colours and tables on a terminal, and neither in a pipe."""

from __future__ import annotations

import io
import os
import sys

import pytest
from overlay.cli import output
from overlay.cli.screen import terminal

ROWS = [("vm1", "alive", "a=1 b=2 c=3 d=4"), ("vm2", "dead", "")]
HEADERS = ("NODE", "STATE", "LABELS")


class Terminal(io.StringIO):
    """A stdout that says it is a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def use_terminal(monkeypatch: pytest.MonkeyPatch, columns: int = 24) -> None:
    """Make stdout a terminal of so many columns; pytest replaces that of a fixture."""
    monkeypatch.setattr(sys, "stdout", Terminal())
    size = os.terminal_size((columns, 10))
    monkeypatch.setattr(os, "get_terminal_size", lambda _descriptor: size)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_a_pipe_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither colours nor line breaks, however wide the table is."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert output.table(HEADERS, ROWS).splitlines() == [
        "NODE  STATE  LABELS",
        "vm1   alive  a=1 b=2 c=3 d=4",
        "vm2   dead   -",
    ]


def test_a_terminal_gets_colours_and_fitting_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """States have colours, headers are bold, and wide cells are wrapped."""
    use_terminal(monkeypatch)
    shown = output.table(HEADERS, ROWS)
    assert "\x1b[32malive\x1b[0m" in shown
    assert "\x1b[31mdead\x1b[0m" in shown
    assert "\x1b[1mNODE\x1b[0m" in shown
    lines = shown.splitlines()
    assert len(lines) == 4
    assert max(map(terminal.visible_length, lines)) <= 24
    assert lines[2] == " " * 13 + "d=4"


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_can_be_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """By NO_COLOR, and by a terminal that has none; columns fit all the same."""
    use_terminal(monkeypatch)
    monkeypatch.setenv(name, value)
    shown = output.table(HEADERS, ROWS)
    assert "\x1b" not in shown
    assert len(shown.splitlines()) == 4


def test_an_empty_no_color_means_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the convention says."""
    use_terminal(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "")
    assert terminal.has_colour()


@pytest.mark.parametrize(
    ("text", "style"),
    [
        ("alive", "green"),
        ("ok, source address is this host's", "green"),
        ("suspect", "yellow"),
        ("1400 bytes", "yellow"),
        ("to: lost, from: silent", "red"),
        ("left", "dim"),
        ("something else", ""),
    ],
)
def test_states_have_styles(text: str, style: str) -> None:
    """The worst part of a state decides."""
    assert terminal.state_style(text) == style


def test_long_values_are_wrapped_below_their_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key's column stays free, and an indented line keeps its indent."""
    use_terminal(monkeypatch)
    assert output.key_value_lines([("Health", "one two three four\n  next: five sixes")]) == (
        "Health  one two three\n        four\n          next: five\n          sixes"
    )
