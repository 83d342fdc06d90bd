"""Command `doctor`: every check of this host on one page, problems first.

Owns: which checks there are, and the page. Does not: check anything itself (`cli.checks`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.cli import output
from overlay.cli.checks import agent_checks, clock, evidence, host_checks, netcheck
from overlay.errors import OverlayError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from overlay.cli.checks.evidence import Check, Evidence, Finding, Level
    from overlay.cli.parser import VerbGroup

# In the order of the page. A further check is a function from evidence to findings: add it here.
CHECKS: tuple[Check, ...] = (
    agent_checks.check_agent,
    agent_checks.check_status,
    agent_checks.check_kernel,
    agent_checks.check_versions,
    netcheck.check_network,
    host_checks.check_configuration,
    host_checks.check_state_directory,
    host_checks.check_disk,
    host_checks.check_start_at_boot,
    clock.check_clock,
)
_ORDER: tuple[Level, ...] = ("error", "warn", "note", "ok")
_SUBJECT_WIDTH = 15
DESCRIPTION = """\
Check everything about this host, and say for each problem what to do next: the agent, its status,
the kernel against the records, versions, the network as 'netcheck' does, the configuration, the
state directory, disk and clock.

It changes nothing, and works without an agent and outside a cluster: what cannot be checked then
is named.  Exits with 1 if there is a problem (ERROR or WARN), else with 0.
"""


def register(words: VerbGroup) -> None:
    """Add the verb of this module."""
    words.verb(
        "doctor", run_doctor, "check everything on this host, and say what to do", DESCRIPTION
    )


def run_doctor(args: Namespace) -> int:
    """Run all checks and show what they found."""
    seen = evidence.collect(args.paths)
    findings = examine(seen)
    problems = [each for each in findings if each.level in evidence.PROBLEMS]
    if args.json:
        output.print_json(
            {
                "schema": "overlayd.doctor/v1",
                "problems": len(problems),
                "findings": [each._asdict() for each in findings],
            }
        )
    else:
        output.print_result("\n".join((_title(seen, len(problems)), "", *map(line_of, findings))))
    return OverlayError.exit_code if problems else 0


def examine(seen: Evidence, checks: Sequence[Check] = CHECKS) -> list[Finding]:
    """Return the findings of all checks, the most severe first."""
    findings = [finding for check in checks for finding in check(seen)]
    return sorted(findings, key=lambda each: _ORDER.index(each.level))


def line_of(finding: Finding) -> str:
    """Return a finding as on the page, with its remedy on a line of its own."""
    label = finding.level.upper() if finding.level in evidence.PROBLEMS else finding.level
    head = f"{label:<6}{finding.subject:<{_SUBJECT_WIDTH}}"
    text = finding.text
    if finding.remedy:
        text += f"\nnext: {output.runnable(finding.remedy)}"
    return head + text.replace("\n", "\n" + " " * len(head))


def _title(seen: Evidence, problems: int) -> str:
    told = output.count_text(problems, "problem") if problems else "no problems"
    node = None if seen.status is None else seen.status["node"]
    return f"{told} on {node['name']} ({node['id']})" if node else f"{told} on this host"
