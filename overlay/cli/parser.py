"""The tree of verbs as an argparse parser, built only as far as the command line needs.

Owns: which module holds which verb, the options that all verbs share, and how a wrong
command line is reported. Does not: know what a verb does.
"""

from __future__ import annotations

import argparse
import importlib
import os

from overlay.errors import UsageError
from overlay.strict_arguments import StrictParser
from overlay.usage_text import COMMAND

TYPE_CHECKING = False  # typing itself takes a tenth of a command's time to import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Run = Callable[[argparse.Namespace], int | None]

PROGRAM = "overlayd"
DESCRIPTION = """\
One L2 network for containers on many hosts: no database, no orchestrator, no manager node.

  sudo overlayd join                                    on the first host: create a cluster
  sudo overlayd join 192.168.56.11 --token-file FILE    on every other host: any live peer will do
  sudo overlayd network create blue --subnet 10.32.0.0/16
  sudo overlayd attach web --network blue               connect container `web`, print its address
  overlayd status                                       show the state as this host sees it
"""
EPILOG = """\
exit codes: 0 ok, 1 failed, 2 usage, 3 agent not running, 4 degraded, 5 not found, 6 conflict,
            7 timed out, 8 something would change (apply --dry-run), 9 denied (policy test).
            The answer is on stdout, everything else on stderr; --json prints one JSON object.
"""


_TIMEOUT_MAX_S = 1e6  # a socket takes no infinite time

# The first word of a command line, and the module whose `register` builds its parser.
VERBS: dict[str, str] = {
    "join": "cluster",
    "leave": "cluster",
    "members": "members",
    "forget": "members",
    "token": "token",
    "promote": "authority",
    "authority": "authority",
    "key": "keys.cluster_key",
    "encryption": "keys.encryption",
    "evpn": "fabric.evpn",
    "network": "networks.network",
    "service": "service",
    "policy": "policy",
    "router": "router.router",
    "ipam": "networks.ipam",
    "dns": "dns",
    "apply": "apply",
    "export": "apply",
    "attach": "endpoint",
    "detach": "endpoint",
    "endpoint": "endpoint",
    "container": "container",
    "expose": "publish",
    "unexpose": "publish",
    "publish": "publish",
    "unpublish": "publish",
    "cni": "runtimes.cni",
    "netavark": "runtimes.netavark",
    "docker-plugin": "runtimes.docker_plugin",
    "status": "status",
    "verify": "status",
    "metrics": "status",
    "events": "status",
    "netcheck": "diagnosis.netcheck",
    "doctor": "diagnosis.doctor",
    "report": "diagnosis.report",
    "config": "diagnosis.config",
    "graph": "diagnosis.graph",
    "ping": "diagnosis.ping",
    "trace": "diagnosis.trace",
    "capture": "diagnosis.capture",
    "top": "diagnosis.top",
    "web": "diagnosis.web",
    "reset": "reset",
    "agent": "local",
    "lab": "local",
    "sim": "local",
    "completion": "local",
    "man": "local",
    "version": "local",
}

# Verbs whose own module parses the words after them.
DELEGATED = {"lab": "overlay.lab.main", "sim": "overlay.sim.main"}

STREAMS = ("ping", "capture", "events", "web")  # verbs that always print one JSON object a line
COMMAND_VERB = ("container", "exec")  # after its name, all words are another program's
TOKEN_PREFIX = "ovt1."  # noqa: S105 - of join tokens, which no argument may have
GLOBAL_OPTIONS = ("--state-dir", "--run-dir", "--config", "--timeout")


def _terminal_width() -> int:
    # argparse itself would import shutil, and with it every compression library.
    try:
        return int(os.environ["COLUMNS"])
    except (KeyError, ValueError):
        pass
    try:
        return os.get_terminal_size(1).columns - 2
    except OSError:
        return 98


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help text that keeps the line breaks of descriptions."""

    width = _terminal_width()

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=self.width)


class CommandParser(StrictParser):
    """The parser of a command, whose help ends with examples."""

    def format_help(self) -> str:
        """Return the help; the examples are loaded for it only."""
        from overlay.cli import examples  # noqa: PLC0415  no command needs them to run

        lines = examples.of_command(self.prog)
        return super().format_help() + "".join(
            ["\nexamples:\n", *(f"  {line}\n" for line in lines)] if lines else []
        )


class VerbGroup:
    """One level of verbs, to which modules add their own."""

    def __init__(self, parser: StrictParser, dest: str) -> None:
        self._action = parser.add_subparsers(
            title="commands", dest=dest, metavar=COMMAND, required=True, prog=parser.prog
        )
        self._given = parser.given

    def verb(
        self,
        name: str,
        run: Run,
        summary: str,
        description: str = "",
        *,
        json: bool = True,
        watch: bool = False,
    ) -> StrictParser:
        """Add a verb that calls `run` with the parsed options, and return its parser.

        `watch`: it has an option that calls `run` every second.
        """
        parser: StrictParser = self._action.add_parser(
            name,
            help=summary,
            description=description or f"{summary[0].upper()}{summary[1:]}.",
            formatter_class=Formatter,
        )
        parser.given = self._given
        parser.set_defaults(run=run, verb_parser=parser)
        if json:
            parser.add_argument("--json", action="store_true", help="print one JSON object")
        if watch:
            parser.add_argument("--watch", action="store_true", help="refresh every second")
        _add_path_options(parser, argparse.SUPPRESS)
        return parser

    def group(self, name: str, summary: str) -> VerbGroup:
        """Add a word that groups other verbs, and return their level."""
        parser: StrictParser = self._action.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            formatter_class=Formatter,
        )
        parser.given = self._given
        return VerbGroup(parser, f"verb_{name}")


def build(words: Sequence[str] | None = None) -> CommandParser:
    """Return the parser for a line of `words`; with None, the parser of every verb.

    If the line's verb is known, only the module that holds it is imported.
    """
    parser = CommandParser(
        prog=PROGRAM, description=DESCRIPTION, epilog=EPILOG, formatter_class=Formatter
    )
    _add_path_options(parser, None)
    level = VerbGroup(parser, "verb")
    verb = None if words is None else first_word(words)[0]
    modules = [VERBS[verb]] if verb in VERBS else _in_order(VERBS.values())
    for module in modules:
        importlib.import_module(f"overlay.cli.verbs.{module}").register(level)
    return parser


def first_word(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the verb of a command line and the words after it, without options before it."""
    rest = list(words)
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option in GLOBAL_OPTIONS and rest:
            rest.pop(0)
    return (rest[0], rest[1:]) if rest else (None, [])


def _add_path_options(parser: StrictParser, default: str | None) -> None:
    # Every verb accepts these too; its SUPPRESSed default keeps a value given before the verb.
    group = parser.add_argument_group("the agent") if default is None else None
    texts = (
        ("DIR", "identity and records of this node"),
        ("DIR", "the API socket and the log"),
        ("FILE", "configuration file"),
        ("SECONDS", "give up on the agent's answer (default: 5 to look, 65 to change something)"),
    )
    for option, (metavar, text) in zip(GLOBAL_OPTIONS, texts, strict=True):
        (group or parser).add_argument(
            option,
            metavar=metavar,
            type=_seconds if metavar == "SECONDS" else str,
            default=default,
            help=text if group else argparse.SUPPRESS,
        )


def _seconds(text: str) -> float:
    """Return a number of seconds; raises UsageError."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < _TIMEOUT_MAX_S:
        raise UsageError("--timeout must be a number of seconds, 0 or more", hint="Such as 30")
    return seconds


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
