"""The manual page overlayd(8), generated from the parser.

Owns: the layout of the page. Does not: know any verb by name.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from overlay import __version__
from overlay.cli import examples
from overlay.cli.manual.roff import escaped, literal, pairs, prose
from overlay.client.paths import CONFIG, RUN_DIR, SOCKET_NAME, STATE_DIR

if TYPE_CHECKING:
    from collections.abc import Iterator

ENVIRONMENT = (
    ("OVERLAYD_TOKEN", "the join token, if --token-file is not given"),
    ("OVERLAYD_STATE_DIR", "same as --state-dir"),
    ("OVERLAYD_RUN_DIR", "same as --run-dir"),
    ("OVERLAYD_CONFIG", "same as --config"),
)
FILES = (
    (str(CONFIG), "configuration; every key is optional"),
    (str(STATE_DIR), "identity and records of this node"),
    (f"{RUN_DIR}/{SOCKET_NAME}", "the agent's API, HTTP over a UNIX socket"),
)
EXIT_CODES = (
    ("0", "ok"),
    ("1", "failed"),
    ("2", "usage"),
    ("3", "the agent is not running"),
    ("4", "degraded (status --check, verify)"),
    ("5", "not found"),
    ("6", "conflict"),
    ("7", "timed out"),
)


def page(parser: argparse.ArgumentParser) -> str:
    """Return the whole page."""
    lines = [
        f'.TH OVERLAYD 8 "" "overlayd {__version__}" "System Administration"',
        ".nh",
        ".ad l",
        ".SH NAME",
        "overlayd \\- one L2 network for containers on many hosts",
        ".SH SYNOPSIS",
        ".B overlayd",
        "[\\fIoptions\\fR] \\fIcommand\\fR ...",
        ".SH DESCRIPTION",
        *prose(parser.description or ""),
        ".SH OPTIONS",
        *_options(parser),
        ".SH COMMANDS",
        *_verbs(parser, "overlayd"),
        ".SH EXIT STATUS",
        *pairs(EXIT_CODES),
        ".SH ENVIRONMENT",
        *pairs(ENVIRONMENT),
        ".SH FILES",
        *pairs(FILES),
        ".SH SEE ALSO",
        ".BR overlayd.toml (5),",
        ".BR ip-netns (8),",
        ".BR bridge (8)",
    ]
    return "\n".join(lines)


def _verbs(parser: argparse.ArgumentParser, path: str) -> Iterator[str]:
    for action in parser._actions:  # noqa: SLF001  argparse has no public way
        if not isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            continue
        for word, child in action.choices.items():
            below = f"{path} {word}"
            if any(isinstance(a, argparse._SubParsersAction) for a in child._actions):  # noqa: SLF001
                yield from _verbs(child, below)
                continue
            yield f'.SS "{escaped(below)}{_arguments(child)}"'
            yield from prose(child.description or "")
            yield from _options(child)
            yield from _examples(child)


def _examples(parser: argparse.ArgumentParser) -> Iterator[str]:
    lines = examples.of_command(parser.prog)
    if lines:
        yield from (".PP", "Examples:", *literal(f"  {line}" for line in lines))


def _arguments(parser: argparse.ArgumentParser) -> str:
    texts = []
    for action in parser._actions:  # noqa: SLF001  as above
        if action.option_strings or action.help == argparse.SUPPRESS:
            continue
        name = str(action.metavar or action.dest)
        texts.append({"*": f"[{name} ...]", "?": f"[{name}]"}.get(str(action.nargs), name))
    return "".join(f" {escaped(text)}" for text in texts)


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:  # noqa: SLF001  as above
        if action.help == argparse.SUPPRESS or "--help" in action.option_strings:
            continue
        if not action.option_strings:
            continue
        flags = ", ".join(f"\\fB{escaped(flag)}\\fR" for flag in action.option_strings)
        choices = "|".join(str(choice) for choice in action.choices or ())
        value = str(action.metavar or choices or action.dest.upper())
        yield ".TP"
        yield flags + (f" \\fI{escaped(value)}\\fR" if action.nargs != 0 else "")
        yield escaped((action.help or "").replace("%%", "%"))
