"""Commands `config check` and `config show`: the configuration, without the agent.

Owns: their output, and where a value comes from. Does not: know what a key means.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from overlay.cli import output
from overlay.errors import ConfigurationError, OverlayError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping

    from overlay.agent.process.config import ConfigFile
    from overlay.cli.parser import VerbGroup
    from overlay.client.api import JsonObject

CHECK_DESCRIPTION = """\
Check a configuration file and name everything that is wrong in it.  Nothing is changed, and no
agent is needed.  Exits with 1 if there are errors.

FILE defaults to the file that the agent would read.
"""
SHOW_DESCRIPTION = """\
Show the value of every key, and whether it comes from the file, an option, the environment, or is
the default.  It is what an agent would use that is started now; no agent is needed.
"""


class Setting(NamedTuple):
    """The effective value of one key."""

    key: str
    value: str | int | float | bool
    source: str  # default, file, option or environment


def register(words: VerbGroup) -> None:
    """Add the verbs of this module."""
    config = words.group("config", "check and show the configuration file")
    check = config.verb(
        "check", run_check, "name every error in a configuration file", CHECK_DESCRIPTION
    )
    check.add_argument("file", nargs="?", metavar="FILE", help="default: the agent's own file")
    show = config.verb(
        "show", run_show, "show every value and where it comes from", SHOW_DESCRIPTION
    )
    show.add_argument("--no-header", action="store_true", help="omit file and header line")


def run_check(args: Namespace) -> int:
    """Check a file."""
    from overlay.agent.process.config import read  # noqa: PLC0415  imports tomllib

    path = args.paths.config if args.file is None else Path(args.file).absolute()
    found = read(path)
    errors = found.errors
    is_required = args.file is not None or _is_chosen(args)
    if not found.exists and is_required:
        errors = [_missing_error(path)]
    if args.json:
        output.print_json(
            {
                "schema": "overlayd.config-check/v1",
                "file": str(path),
                "exists": found.exists,
                "errors": [_error_object(error) for error in errors],
            }
        )
    for error in errors:
        output.report(error)
    if not args.json and not errors:
        text = "no errors" if found.exists else "there is no such file: all keys have defaults"
        output.print_result(f"{path}: {text}")
    elif errors:
        output.print_note(f"{path}: {output.count_text(len(errors), 'error')}")
    return OverlayError.exit_code if errors else 0


def run_show(args: Namespace) -> int:
    """Show the effective values."""
    from overlay.agent.process.config import read  # noqa: PLC0415  imports tomllib

    found = read(args.paths.config)
    settings = effective(found, args, os.environ)
    if args.json:
        output.print_json(
            {
                "schema": "overlayd.config/v1",
                "file": str(found.path),
                "exists": found.exists,
                "settings": [setting._asdict() for setting in settings],
                "errors": [_error_object(error) for error in found.errors],
            }
        )
    else:
        if not args.no_header:
            output.print_result(f"{found.path}{'' if found.exists else ' (no such file)'}")
        rows = [(each.key, toml_text(each.value), each.source) for each in settings]
        output.print_result(
            output.table(["KEY", "VALUE", "SOURCE"], rows, show_header=not args.no_header)
        )
    for error in found.errors:
        output.report(error)
    if found.errors:
        output.print_note("an agent does not start with this file; the values are those without it")
    return OverlayError.exit_code if found.errors else 0


def effective(found: ConfigFile, args: Namespace, environ: Mapping[str, str]) -> list[Setting]:
    """Return every key with its effective value, as the agent and this command line find it."""
    from overlay.agent.process.config import KINDS, Config  # noqa: PLC0415  imports tomllib

    defaults = Config()
    settings = []
    for key in KINDS:
        value, source = getattr(defaults, key), "default"
        if key in found.values:
            value, source = found.values[key], "file"
        if key in ("state_dir", "run_dir") and _given_by(key, args, environ):
            value, source = getattr(args.paths, key), _given_by(key, args, environ)
        settings.append(Setting(key, str(value) if isinstance(value, Path) else value, source))
    return settings


def toml_text(value: str | float | bool) -> str:
    """Return a value as the file has it."""
    if isinstance(value, float):
        return f"{value:.15g}"
    return json.dumps(value, ensure_ascii=False)


def _given_by(key: str, args: Namespace, environ: Mapping[str, str]) -> str:
    """Return whether an option or the environment names a path; empty: neither."""
    if getattr(args, key, None):
        return "option"
    return "environment" if environ.get(f"OVERLAYD_{key.upper()}") else ""


def _is_chosen(args: Namespace) -> bool:
    return any(option == "--config" for option, _ in args.paths.chosen)


def _missing_error(path: Path) -> ConfigurationError:
    return ConfigurationError(f"there is no file {path}", hint="Check the path, or omit it")


def _error_object(error: ConfigurationError) -> JsonObject:
    return {"key": error.field, "what": error.what, "why": error.why, "hint": error.hint}
