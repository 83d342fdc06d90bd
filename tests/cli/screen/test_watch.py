"""Every list can be watched: on a terminal, and in a pipe."""

from __future__ import annotations

import io
import json
import os
import sys

import pytest
from overlay.cli import parser as command_line
from overlay.cli.screen import watch
from overlay.cli.shells.tree import commands
from overlay.errors import AgentNotRunningError, NotFoundError
from tests.fake_agent import FakeAgent, Run

LISTS = [
    "members", "network ls", "endpoint ls", "container ls", "token ls", "dns ls", "publish",
    "authority ls", "ipam", "key status", "status", "service ls", "service ps",
    "evpn status", "evpn ls", "policy ls", "router ls",
]  # fmt: skip


class Terminal(io.StringIO):
    """A stdout that says it is a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def use_screen(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make stdout a terminal of 4 lines; pytest replaces that of a fixture."""
    made = Terminal()
    monkeypatch.setattr(sys, "stdout", made)
    monkeypatch.setattr(os, "get_terminal_size", lambda _descriptor: os.terminal_size((80, 4)))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(watch, "INTERVAL_S", 0.0)
    return made


class Answers:
    """Prints one answer after the other, raises errors among them, then Ctrl-C."""

    def __init__(self, *answers: str | Exception) -> None:
        self._answers = list(answers)

    def __call__(self) -> None:
        """Give the next answer."""
        if not self._answers:
            raise KeyboardInterrupt
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        print(answer)  # noqa: T201 - as a command does


def test_each_list_has_the_option() -> None:
    """`--watch` is on every command that lists something, and on no command that changes it."""
    watched = {
        " ".join(command.path)
        for command in commands(command_line.build())
        if any("--watch" in option.flags for option in command.options)
    }
    lists = {" ".join(each.path) for each in commands(command_line.build()) if "ls" in each.path}
    assert watched == set(LISTS) >= lists


def test_each_answer_replaces_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the top of the screen, with the rest of each line cleared; Ctrl-C ends with 0."""
    screen = use_screen(monkeypatch)
    assert watch.watch(Answers("one", "two")) == 0
    assert screen.getvalue() == "\x1b[Hone\x1b[K\n\x1b[J\x1b[Htwo\x1b[K\n\x1b[J"


def test_what_does_not_fit_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first lines stay in sight."""
    screen = use_screen(monkeypatch)
    watch.watch(Answers("1\n2\n3\n4\n5"))
    assert [line.removesuffix("\x1b[K") for line in screen.getvalue().splitlines()] == [
        "\x1b[H1",
        "2",
        "... 3 more lines",
        "\x1b[J",
    ]


def test_a_line_wider_than_the_screen_takes_several(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that the terminal wraps count as several, so that the first line stays in sight."""
    screen = use_screen(monkeypatch)
    watch.watch(Answers("x" * 100 + "\n2\n3"))
    assert screen.getvalue().splitlines()[1:] == ["... 2 more lines\x1b[K", "\x1b[J"]


def test_an_agent_that_restarts_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its absence is on the screen meanwhile; any other error ends it."""
    screen = use_screen(monkeypatch)
    away = AgentNotRunningError("no agent runs on this host")
    assert watch.watch(Answers("one", away, "two")) == 0
    assert "error: no agent runs on this host" in screen.getvalue()
    assert "two" in screen.getvalue()
    with pytest.raises(NotFoundError):
        watch.watch(Answers("one", NotFoundError("no network blue")))


def test_an_agent_that_never_answered_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit code says so at once."""
    use_screen(monkeypatch)
    with pytest.raises(AgentNotRunningError):
        watch.watch(Answers(AgentNotRunningError("no agent runs on this host")))


def test_a_pipe_gets_one_answer_after_the_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without control characters; JSON is one object a line."""
    monkeypatch.setattr(watch, "INTERVAL_S", 0.0)
    watch.watch(Answers("one", "two"))
    assert capsys.readouterr().out == "one\ntwo\n"
    watch.watch(Answers('{\n  "a": "é"\n}', '{"a": 2}'), as_json=True)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"a": "é"},
        {"a": 2},
    ]


def test_publishing_is_not_watched(overlayd: Run, agent: FakeAgent) -> None:
    """A command that changes something must not be repeated."""
    outcome = overlayd("publish", "web", "80", "--watch")
    assert outcome.code == 2
    assert "overlayd publish ls --watch" in outcome.err
    assert agent.asked == []
