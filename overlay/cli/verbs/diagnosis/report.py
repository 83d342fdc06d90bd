"""Command `report`: a file for a bug report, without secrets.

Owns: the order of its parts, its name and its first page. Does not: collect a part (`cli.report`).
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from overlay import __version__
from overlay.cli import output
from overlay.cli.checks import evidence, host_checks
from overlay.cli.report import sections
from overlay.cli.report.bundle import Bundle, write_private
from overlay.cli.verbs.diagnosis import doctor
from overlay.cli.verbs.diagnosis.config import effective, toml_text
from overlay.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup

STDOUT = "-"
DESCRIPTION = """\
Write a tar.gz for a bug report: what doctor finds, status, members, verify, events, the
configuration, versions, the end of the log, sysctls, and the kernel's tables of this host and of
its sandboxes.  At most 16 MiB before compression; only its owner can read it.

It has no keys, tokens or passphrases and no state file, and texts that might be a key are removed.
It does have the names and addresses of hosts, networks and containers: read it before you send it.
It works without an agent.  Use sudo: other users cannot read the kernel's tables.
"""
FIRST_PAGE = """\
A report of overlayd {version} on {host}, {time}.

It has no secrets: no keys, tokens, passphrases, and not the state file. Texts that might be a key
and the values of labels are replaced by "(removed)".
It has names and addresses of hosts, networks and containers.

doctor.txt comes first: what is wrong, as this host knows it.
"""


def register(words: VerbGroup) -> None:
    """Add the verb of this module."""
    report = words.verb(
        "report", run_report, "write a file for a bug report, without secrets", DESCRIPTION
    )
    report.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="the file to write; - writes it to standard output "
        "(default: overlayd-report-HOST-TIME.tar.gz)",
    )


def run_report(args: Namespace) -> int:
    """Collect a report and write it."""
    if args.output == STDOUT and (args.json or sys.stdout.isatty()):
        raise UsageError(
            "-o - writes a tar.gz to standard output",
            why="which is a terminal, or is for the JSON object",
            hint="Redirect it: overlayd report -o - > report.tar.gz",
        )
    stem = f"overlayd-report-{os.uname().nodename}-{time.strftime('%Y%m%d-%H%M%S')}"
    bundle, failures = collect(args, stem)
    raw = bundle.content()
    if args.output == STDOUT:
        sys.stdout.buffer.write(raw)
        return 0
    path = Path(args.output or f"{stem}.tar.gz").absolute()
    write_private(path, raw)
    if args.json:
        output.print_json(
            {
                "schema": "overlayd.report/v1",
                "file": str(path),
                "size": len(raw),
                "parts": bundle.names,
                "missing": [*failures, *(f"{name}: no room" for name in bundle.left_out)],
            }
        )
        return 0
    output.print_result(str(path))
    for text in failures:
        output.print_note(f"  without {text}")
    if os.geteuid() != 0:
        output.warn("some parts need root", "sudo overlayd report")
    output.print_note(
        "it has no keys or tokens, but names and addresses: read it before you send it"
    )
    return 0


def collect(args: Namespace, stem: str) -> tuple[Bundle, list[str]]:
    """Return the report's files, and which answers of the agent are missing."""
    bundle = Bundle(stem)
    now = time.strftime("%Y-%m-%d %H:%M:%S %z")
    bundle.add(
        "README.txt", FIRST_PAGE.format(version=__version__, host=os.uname().nodename, time=now)
    )
    seen = evidence.collect(args.paths)
    # What is wrong in the configuration may be quoted there: it is in configuration.txt, by key.
    checks = [check for check in doctor.CHECKS if check is not host_checks.check_configuration]
    page = "\n".join(doctor.line_of(each) for each in doctor.examine(seen, checks))
    bundle.add("doctor.txt", page + "\n")
    bundle.add("configuration.txt", _configuration(args))
    failures = sections.add_answers(bundle, seen)
    sections.add_versions(bundle)
    sections.add_log(bundle, args.paths)
    sections.add_host(bundle)
    sections.add_sandboxes(bundle)
    if failures:
        bundle.add("missing.txt", "\n".join(failures) + "\n")
    return bundle, failures


def _configuration(args: Namespace) -> str:
    """Return the effective values; of what is wrong in the file only the key."""
    from overlay.agent.process.config import read  # noqa: PLC0415  imports tomllib

    found = read(args.paths.config)
    lines = [f"# {found.path}{'' if found.exists else ': no such file'}"]
    lines += [
        f"{each.key} = {toml_text(each.value)}  # {each.source}"
        for each in effective(found, args, os.environ)
    ]
    lines += [f"# invalid: {error.field or 'the whole file'}" for error in found.errors]
    return "\n".join(lines) + "\n"
