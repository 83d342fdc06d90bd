"""The commands as completion needs them, read from argparse's parsers.

Owns: the walk over the parsers. An argument's METAVAR determines the kind of its words.
Does not: know any verb by name.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NamedTuple

from overlay.strict_arguments import Metavar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# METAVAR -> kind of words. The shell completes "files"; `overlayd completion` prints the others.
KINDS = {
    "FILE": "files",
    "DIR": "files",
    "NETWORK": "networks",
    "WHERE": "places",
    "NODE": "nodes",
    "HOST": "lab-hosts",
    "TARGET": "targets",
    "ENDPOINT": "endpoints",
    "CONTAINER": "containers",
    "SERVICE": "services",
    "POLICY": "policies",
    "ROUTER": "routers",
    "PEER": "peers",
    "ID": "tokens",
}


class Argument(NamedTuple):
    """The words that are possible at one position of a command line."""

    words: tuple[str, ...]  # the allowed words, if they are fixed
    kind: str  # otherwise their kind, or empty
    repeats: bool  # and in all later places


class Option(NamedTuple):
    """One option of a verb."""

    flags: tuple[str, ...]
    help: str
    value: Argument | None


class Command(NamedTuple):
    """One verb, or a word that groups verbs."""

    path: tuple[str, ...]
    help: str
    options: tuple[Option, ...]
    verbs: tuple[tuple[str, str], ...]  # (word, help)
    arguments: tuple[Argument, ...]


def commands(
    parser: argparse.ArgumentParser,
    path: tuple[str, ...] = (),
    summary: str = "",
    *,
    others: Mapping[str, argparse.ArgumentParser] | None = None,
) -> Iterator[Command]:
    """Yield the parser's commands, each before its subcommands.

    `others` are the parsers of verbs that parse the words after them themselves.
    """
    options: list[Option] = []
    verbs: dict[str, str] = {}
    below: dict[str, argparse.ArgumentParser] = {}
    arguments: list[Argument] = []
    for action in parser._actions:  # noqa: SLF001  argparse has no public way
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            verbs = {
                entry.dest: entry.help or ""
                for entry in action._choices_actions  # noqa: SLF001
            }
            below = dict(action.choices)
        elif action.help == argparse.SUPPRESS:
            continue
        elif action.option_strings:
            options.append(_option(action))
        else:
            arguments.append(_argument(action))
    yield Command(path, summary, tuple(options), tuple(verbs.items()), tuple(arguments))
    for word, child in below.items():
        found = (others or {}).get(word, child)
        yield from commands(found, (*path, word), verbs.get(word, ""))


def _option(action: argparse.Action) -> Option:
    value = None if action.nargs == 0 else _argument(action)
    return Option(tuple(action.option_strings), _plain(action.help or ""), value)


def _argument(action: argparse.Action) -> Argument:
    metavar = action.metavar
    return Argument(
        words=tuple(str(choice) for choice in action.choices or ()),
        kind=metavar.kind if isinstance(metavar, Metavar) else KINDS.get(str(metavar), ""),
        repeats=action.nargs in ("*", "+"),
    )


def _plain(text: str) -> str:
    return text.replace("%%", "%").replace("\n", " ")


def quoted(text: str) -> str:
    """Return `text` in single quotes, as all three shells read it."""
    return "'" + text.replace("'", "'\\''") + "'"
