from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator

import pytest
from overlay.cli import parser as command_line
from overlay.cli.examples import EXAMPLES

EXAMPLE = re.compile(r"^  (?:sudo |ssh )?overlayd .*|^  ssh .*overlayd .*", re.MULTILINE)
APART = ("|", ">", "&&")  # what follows is the shell's
EXAMPLES_MIN = 2


def commands(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield each command with its words."""
    below = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    if not below:
        yield " ".join(path), parser
    for action in below:
        for word, child in action.choices.items():
            yield from commands(child, (*path, word))


COMMANDS = dict(commands(command_line.build()))


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - set(command_line.DELEGATED)))
def test_each_help_has_two_examples(name: str) -> None:
    """In its description, or at its end."""
    assert len(EXAMPLE.findall(COMMANDS[name].format_help())) >= EXAMPLES_MIN


def test_examples_are_of_commands_that_exist() -> None:
    """A renamed command takes its examples along."""
    assert set(EXAMPLES) <= set(COMMANDS)


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_examples_can_be_typed(line: str) -> None:
    """The parser refuses no command of overlayd in it."""
    words = shlex.split(line, comments=True)
    typed = words[words.index("overlayd") + 1 :]
    end = next((number for number, word in enumerate(typed) if word in APART), len(typed))
    if typed[:end] == ["--version"]:
        return
    if typed[:2] == ["container", "exec"] and "--" not in typed:
        typed.insert(3, "--")
        end += 1

    parsed = command_line.build().parse_args(typed[:end])

    assert callable(parsed.run)
