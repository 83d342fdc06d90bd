"""The tree of verbs."""

from __future__ import annotations

import argparse

import pytest
from overlay.cli.completion import commands
from overlay.cli.parser import VERBS, build, first_word

READING = [
    ("status",), ("members",), ("verify",), ("events",), ("token", "show"), ("token", "ls"),
    ("network", "ls"), ("network", "inspect"), ("endpoint", "ls"), ("container", "ls"),
    ("version",), ("ipam",), ("key", "status"),
    ("dns", "ls"), ("dns", "lookup"), ("dns", "add"), ("dns", "rm"),
]  # fmt: skip
WRITING = [
    ("metrics",), ("join",), ("leave",), ("reset",), ("forget",),
    ("token", "create"), ("token", "revoke"), ("promote",), ("key", "rotate"),
    ("network", "create"), ("network", "rm"),
    ("attach",), ("detach",), ("container", "add"), ("container", "exec"), ("container", "rm"),
    ("expose",), ("unexpose",), ("publish",), ("unpublish",),
    ("agent",), ("lab",), ("sim",), ("completion",), ("man",),
]  # fmt: skip


def test_the_verbs_are_those_of_the_issue() -> None:
    """Every verb is there, and none that nobody asked for."""
    leaves = {command.path for command in commands(build()) if not command.verbs}

    assert leaves == {*READING, *WRITING}


@pytest.mark.parametrize("path", READING)
def test_every_reading_verb_takes_json(path: tuple[str, ...]) -> None:
    """--json is an option of each verb that shows something."""
    found = next(command for command in commands(build()) if command.path == path)

    assert any("--json" in option.flags for option in found.options)


def test_each_verb_is_registered_by_the_module_that_the_table_names() -> None:
    """For every verb the line's own parser knows the same as the whole one."""
    whole = {command.path: command for command in commands(build())}
    for verb in VERBS:
        own = {command.path: command for command in commands(build([verb]))}
        assert {path: own[path] for path in own if path[:1] == (verb,)} == {
            path: whole[path] for path in whole if path[:1] == (verb,)
        }


def test_the_summaries_are_the_same_in_both_places() -> None:
    """The table and the modules know the same verbs in the same order."""
    root = next(iter(commands(build())))

    assert [word for word, _ in root.verbs] == list(VERBS)


@pytest.mark.parametrize(
    ("words", "verb", "rest"),
    [
        (["lab", "up"], "lab", ["up"]),
        (["--run-dir", "lab", "sim", "-x"], "sim", ["-x"]),
        (["--run-dir=lab", "sim"], "sim", []),
        (["--help"], None, []),
        ([], None, []),
    ],
)
def test_the_first_word_is_found_behind_options(
    words: list[str], verb: str | None, rest: list[str]
) -> None:
    """An option's value is not mistaken for the verb."""
    assert first_word(words) == (verb, rest)


@pytest.mark.parametrize("words", [["--run-dir", "/a", "status"], ["status", "--run-dir", "/a"]])
def test_places_stand_before_or_after_the_verb(words: list[str]) -> None:
    """--run-dir means the same on either side of the verb."""
    assert build(words).parse_args(words).run_dir == "/a"


def test_every_parser_has_a_help_that_formats() -> None:
    """No help text trips over argparse's percent signs."""

    def walk(parser: argparse.ArgumentParser) -> None:
        assert parser.format_help()
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for child in action.choices.values():
                    walk(child)

    walk(build())
