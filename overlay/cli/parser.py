"""The tree of verbs as an argparse parser, built only as far as the words on the line need.

Owns: which module holds which verb, the options that all verbs share, and how a wrong
command line is reported. Must not know what a verb does.
"""

from __future__ import annotations

import argparse
import importlib
import os
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from overlay.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Run = Callable[[argparse.Namespace], int | None]

PROGRAM = "overlayd"
DESCRIPTION = """\
One L2 network for containers on many hosts: no database, no orchestrator, no manager node.

  sudo overlayd join                                    the first host makes a cluster
  sudo overlayd join 192.168.56.11 --token-file FILE    every other host, any live peer
  sudo overlayd network create blue --subnet 10.32.0.0/16
  sudo overlayd attach web --network blue               plugs container `web` in, prints its address
  overlayd status                                       how things are, seen from this host
"""
EPILOG = """\
exit codes: 0 ok, 1 failed, 2 usage, 3 agent not running, 4 degraded, 5 not found, 6 conflict,
            7 timed out.  stdout is the answer, stderr the commentary; --json gives one object.
"""


class Verb(NamedTuple):
    """A word that may stand first, and the module whose `register` makes its parser."""

    module: str
    help: str


VERBS: dict[str, Verb] = {
    "join": Verb("cluster", "make or join a cluster; starts the agent if there is none"),
    "leave": Verb("cluster", "leave the cluster: addresses and names go back to the others"),
    "members": Verb("cluster", "list the cluster's nodes and how they are"),
    "forget": Verb("cluster", "declare a dead node gone for ever"),
    "token": Verb("admission", "make, list and revoke the tokens that let hosts join"),
    "promote": Verb("admission", "let a further node admit hosts"),
    "key": Verb("key", "rotate the key that members' datagrams are sealed with"),
    "network": Verb("network", "create, list, inspect and remove networks"),
    "ipam": Verb("ipam", "show which host owns which addresses"),
    "dns": Verb("dns", "look names up as containers do"),
    "attach": Verb("endpoint", "plug a container into networks; prints its address"),
    "detach": Verb("endpoint", "unplug a container"),
    "endpoint": Verb("endpoint", "list what is attached, on all hosts"),
    "container": Verb("container", "bare containers: named network namespaces"),
    "expose": Verb("outside", "give this host an end on a network: in and out without NAT"),
    "unexpose": Verb("outside", "take this host's end on a network away"),
    "publish": Verb("outside", "let ports of this host lead to a container; list them"),
    "unpublish": Verb("outside", "take published ports back"),
    "status": Verb("status", "show node, cluster, networks and health"),
    "verify": Verb("status", "compare the kernel with what should be there"),
    "metrics": Verb("status", "print status in the text format of Prometheus"),
    "events": Verb("status", "show what happened lately"),
    "reset": Verb("reset", "remove everything of overlayd from this host"),
    "agent": Verb("host", "run the agent in the foreground (for systemd)"),
    "lab": Verb("host", "several hosts on this one machine, to try and to test"),
    "sim": Verb("host", "simulate a cluster with a lossy network, from a seed"),
    "completion": Verb("host", "print the completion script for a shell"),
    "man": Verb("host", "print the manual page"),
    "version": Verb("host", "print the version"),
}

# Verbs whose own module parses what follows them.
DELEGATED = {"lab": "overlay.lab.main", "sim": "overlay.sim.main"}

GLOBAL_OPTIONS = ("--state-dir", "--run-dir", "--config")


def _terminal_width() -> int:
    # argparse's own way imports shutil, and with it every compression library.
    try:
        return int(os.environ["COLUMNS"])
    except (KeyError, ValueError):
        pass
    try:
        return os.get_terminal_size(1).columns - 2
    except OSError:
        return 98


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help that keeps the line breaks of descriptions."""

    width = _terminal_width()

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=self.width)


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UsageError instead of leaving the process."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError; argparse calls this for whatever it does not accept."""
        raise UsageError(
            _closest(message), why=self.format_usage().strip(), hint=f"{self.prog} --help"
        )


class Words:
    """One level of verbs, to which modules add theirs."""

    def __init__(self, parser: Parser, dest: str) -> None:
        self._action = parser.add_subparsers(
            title="verbs", dest=dest, metavar="VERB", required=True, prog=parser.prog
        )

    def verb(
        self, name: str, run: Run, summary: str, description: str = "", *, json: bool = True
    ) -> Parser:
        """Add a verb that calls `run` with the parsed options, and return its parser."""
        parser: Parser = self._action.add_parser(
            name,
            help=summary,
            description=description or f"{summary[0].upper()}{summary[1:]}.",
            formatter_class=Formatter,
        )
        parser.set_defaults(run=run)
        if json:
            parser.add_argument("--json", action="store_true", help="print one JSON object")
        _add_places(parser, argparse.SUPPRESS)
        return parser

    def group(self, name: str, summary: str) -> Words:
        """Add a word that only leads to other verbs, and return its level."""
        parser: Parser = self._action.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            formatter_class=Formatter,
        )
        return Words(parser, f"verb_{name}")


def build(words: Sequence[str] | None = None) -> Parser:
    """Return the parser for a line of `words`; the parser of every verb where None.

    Where the line's verb is known, only the module that holds it is imported.
    """
    parser = Parser(prog=PROGRAM, description=DESCRIPTION, epilog=EPILOG, formatter_class=Formatter)
    _add_places(parser, None)
    level = Words(parser, "verb")
    verb = None if words is None else first_word(words)[0]
    modules = [VERBS[verb].module] if verb in VERBS else _in_order(v.module for v in VERBS.values())
    for module in modules:
        importlib.import_module(f"overlay.cli.{module}").register(level)
    return parser


def first_word(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the verb of a command line and what follows it, options before it left out."""
    rest = list(words)
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option in GLOBAL_OPTIONS and rest:
            rest.pop(0)
    return (rest[0], rest[1:]) if rest else (None, [])


def _add_places(parser: Parser, default: str | None) -> None:
    # Also known to every verb, where a SUPPRESSed default keeps what stood before the verb.
    places = parser.add_argument_group("places") if default is None else None
    texts = ("keeps identity and records", "holds the API socket", "configuration file")
    for option, text in zip(GLOBAL_OPTIONS, texts, strict=True):
        (places or parser).add_argument(
            option,
            metavar="FILE" if option == "--config" else "DIR",
            default=default,
            help=text if places else argparse.SUPPRESS,
        )


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _closest(message: str) -> str:
    """Return argparse's message, with the nearest known word where a word is not known."""
    if "invalid choice: '" not in message:
        return message
    import difflib  # noqa: PLC0415  only a mistyped line pays for it

    wrong = message.split("invalid choice: '", 1)[1].split("'", 1)[0]
    known = [part.strip(" '()") for part in message.split("choose from", 1)[-1].split(",")]
    near = difflib.get_close_matches(wrong, known, n=1)
    return f"there is no {wrong!r} here" + (f"; did you mean {near[0]!r}?" if near else "")
