"""Explain a wrong command line: argparse's message in plain words, and one more line.

Owns: these words, the command or value that was probably meant, and the line of the usage that
matters. Does not: know any command.
"""

from __future__ import annotations

import argparse
import re

TYPE_CHECKING = False  # typing itself takes a tenth of a command's time to import
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

COMMAND = "COMMAND"  # the METAVAR of a verb in usage and help
_CHOICES_SHOWN_MAX = 5
_COMMANDS_SHOWN_MAX = 10  # of a group; all that overlayd has are in its help
# argparse's messages, and overlayd's in place of them.
_MESSAGES = (
    (r"argument ([^:]+): invalid int value: (.+)", "{0} takes a whole number, not {1}"),
    (r"argument ([^:]+): invalid float value: (.+)", "{0} takes a number, not {1}"),
    (r"argument ([^:]+): invalid \S+ value: (.+)", "{0}: invalid value {1}"),
    (r"argument ([^:]+): expected .*argument.*", "{0} needs a value"),
    (r"argument ([^:]+): ignored explicit argument (.+)", "{0} takes no value, not {1}"),
    (rf"the following arguments are required: {COMMAND}", "no command given"),
    (r"the following arguments are required: (.+)", "missing: {0}"),
    (r"one of the arguments (\S+) (\S+) is required", "missing: {0} or {1}"),
    (r"argument (\S+): not allowed with argument (\S+)", "{0} and {1} exclude each other"),
    (r"unrecognized arguments: (-\S+)", "unknown option {0}"),
    (r"unrecognized arguments: (-\S+ .+)", "unknown options: {0}"),
    (r"unrecognized arguments: (.+)", "unexpected argument: {0}"),
)
# Words of other programs, and overlayd's for the same, where spelling would suggest another one.
_MEANT = {
    "connect": ("attach",),
    "delete": ("rm", "container rm"),
    "disconnect": ("detach",),
    "info": ("inspect", "status"),
    "init": ("join",),
    "list": ("ls", "endpoint ls"),
    "logs": ("events",),
    "ls": ("endpoint ls",),
    "new": ("create", "add"),
    "node": ("members",),
    "nodes": ("members",),
    "peers": ("members",),
    "ps": ("container ls", "ls"),
    "remove": ("rm", "container rm"),
    "run": ("add", "container add"),
    "show": ("inspect", "ls", "status"),
    "start": ("up", "join"),
    "stop": ("down", "leave"),
    "vxlan": ("overlay",),
}


def usage_error_text(message: str, parser: argparse.ArgumentParser) -> str:
    """Return argparse's message in plain words, with what was probably meant."""
    option = re.match(r"unrecognized arguments: (--[^\s=]+)", message)
    if option:
        options = {each.strip("-"): each for each in sorted(_options(parser))}
        meant = _nearest(option[1].strip("-"), options)
        return _plain(message) + (f"; {meant}" if meant else "")
    if "invalid choice: '" not in message:
        return _plain(message)
    wrong = message.split("invalid choice: '", 1)[1].split("'", 1)[0]
    known = [part.strip(" '()") for part in message.split("choose from", 1)[-1].split(",")]
    argument = re.match(r"argument ([^:]+): ", message)
    name = argument[1] if argument else COMMAND
    what = f"unknown command {wrong!r}" if name == COMMAND else f"{name}: invalid value {wrong!r}"
    meant = _meant(wrong, known)
    return what + (f"; {meant}" if meant else "")


def _meant(wrong: str, known: list[str]) -> str:
    """Return what was probably meant, or all there is if that is little; or empty."""
    for phrase in _MEANT.get(wrong.lower(), ()):
        if phrase.split(" ", 1)[0] in known:
            return f"did you mean {phrase!r}?"
    few = f"use one of {', '.join(known)}" if len(known) <= _CHOICES_SHOWN_MAX else ""
    return _nearest(wrong, dict(zip(known, known, strict=True))) or few


def _nearest(wrong: str, known: Mapping[str, str]) -> str:
    """Return the closest spelling, as a question; empty if none is close.

    `known` maps what is compared to what is shown: dashes make any two options alike.
    """
    import difflib  # noqa: PLC0415  only a mistyped line needs it

    near = difflib.get_close_matches(wrong, known, n=1)
    return f"did you mean {known[near[0]]!r}?" if near else ""


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the options of a parser and of its commands."""
    for action in parser._actions:  # noqa: SLF001  as below
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for child in action.choices.values():
                yield from _options(child)


def _plain(message: str) -> str:
    """Return argparse's message in the style of all other errors."""
    for shape, words in _MESSAGES:
        found = re.fullmatch(shape, message)
        if found:
            return words.format(*found.groups())
    return message


def usage_line(parser: argparse.ArgumentParser, message: str) -> str:
    """Return the one line about a wrong command line that matters.

    It is the help of the option that the message is about, or else what the command needs.
    """
    actions = [each for each in parser._actions if each.help != argparse.SUPPRESS]  # noqa: SLF001  argparse has no public way
    for action in actions:
        if not action.required and any(_names(message, each) for each in action.option_strings):
            return f"{_spelled(action)}: {(action.help or '').replace('%%', '%')}"
    is_free = any(
        each.option_strings and not each.required and each.dest != "help" for each in actions
    )
    words = [parser.prog, *(["[OPTIONS]"] if is_free else []), *_needed(actions)]
    return f"usage: {' '.join(words)}"


def _names(message: str, option: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", message) is not None


def _needed(actions: list[argparse.Action]) -> Iterator[str]:
    """Yield the arguments and required options of a command, as its usage has them."""
    for action in actions:
        if action.option_strings:
            if action.required:
                yield _spelled(action)
            continue
        name = str(action.metavar or action.dest)
        if isinstance(action.choices, dict) and len(action.choices) <= _COMMANDS_SHOWN_MAX:
            name = f"{{{','.join(action.choices)}}}"
        match action.nargs:
            case "?":
                yield f"[{name}]"
            case "*":
                yield f"[{name} ...]"
            case "+":
                yield f"{name} [{name} ...]"
            case argparse.REMAINDER:
                yield f"[{name} ...]"
            case _:
                yield name


def _spelled(action: argparse.Action) -> str:
    option = max(action.option_strings, key=len)
    if action.nargs == 0:
        return option
    words = f"{{{','.join(map(str, action.choices))}}}" if action.choices else ""
    return f"{option} {action.metavar or words or action.dest.upper()}"
