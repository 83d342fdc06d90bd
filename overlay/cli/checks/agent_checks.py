"""Checks of what the agent says: itself, its health lines, the kernel, versions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from overlay import __version__
from overlay.cli import output
from overlay.cli.checks.evidence import Finding
from overlay.cli.verbs.status import faults_in
from overlay.errors import AgentNotRunningError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.cli.checks.evidence import Evidence, Level
    from overlay.errors import OverlayError

NAMESPACES = Path("/run/netns")  # of ip-netns(8)
_SANDBOX_PREFIX = "ov-"
_SHOWN_MAX = 5
_HOW_TO_RESTART = "sudo systemctl restart overlayd   (loses no packet)"


def check_agent(evidence: Evidence) -> Iterator[Finding]:
    """Check that an agent runs, answers, and uses the directories of this command."""
    failure, status = evidence.failure, evidence.status
    if failure is not None:
        yield from _no_answer(evidence, failure)
        return
    assert status is not None, "there is an answer or an error"
    for error in evidence.later_failures:
        yield Finding("error", "agent", f"a check failed: {_said(error)}", error.hint)
    if status["state_dir"] != str(evidence.paths.state_dir):
        yield Finding(
            "warn",
            "agent",
            f"the agent's state directory is {status['state_dir']}, not {evidence.paths.state_dir}",
            f"Another configuration? Compare: overlayd config show. {_HOW_TO_RESTART}",
        )
    up = output.duration(status["uptime_s"])
    yield Finding("ok", "agent", f"running, overlayd {status['version']}, up {up}")


def _no_answer(evidence: Evidence, error: OverlayError) -> Iterator[Finding]:
    from overlay.cli.agent_start import log_tail, unit_installed  # noqa: PLC0415  subprocess

    hint, why = error.hint, ""
    if isinstance(error, AgentNotRunningError):
        if unit_installed() and not evidence.paths.chosen:
            hint = "sudo systemctl start overlayd   (why it ended: journalctl -u overlayd -n 50)"
        elif ended := log_tail(evidence.paths.log):
            why = f"\nthe end of its log {evidence.paths.log}:\n{ended}"
    yield Finding("error", "agent", _said(error) + why, hint)
    sandboxes = _sandboxes()
    if sandboxes and isinstance(error, AgentNotRunningError):
        yield Finding(
            "note",
            "forwarding",
            f"{output.count_text(len(sandboxes), 'network')} in the kernel: containers stay "
            f"connected without the agent ({' '.join(sandboxes[:_SHOWN_MAX])})",
        )
    yield Finding("note", "agent", "not checked without its answer: status, kernel, versions")


def _sandboxes() -> list[str]:
    try:
        found = [path.name for path in NAMESPACES.iterdir()]
    except OSError:
        return []
    return sorted(name for name in found if name.startswith(_SANDBOX_PREFIX))


def check_status(evidence: Evidence) -> Iterator[Finding]:
    """Pass on the agent's health lines, and what else makes a status degraded."""
    status = evidence.status
    if status is None:
        return
    for line in status["health"]:
        level: Level = "error" if line["level"] == "error" else "warn"
        yield Finding(level, "status", line["text"], output.runnable(line.get("hint") or ""))
    if not evidence.is_joined:
        yield Finding("note", "status", "not checked outside a cluster: kernel, members' versions")
        return
    for text in faults_in(status)[len(status["health"]) :]:
        yield Finding("warn", "status", text, "overlayd verify; overlayd events --since 10m")
    for notice in status.get("notices", ()):
        yield Finding("note", "status", notice["text"], output.runnable(notice["hint"]))
    if not status["health"]:
        members = status["cluster"]["members"]
        states = ", ".join(f"{count} {state}" for state, count in members.items() if count)
        yield Finding("ok", "status", f"cluster {status['cluster']['id']}: {states}")


def check_kernel(evidence: Evidence) -> Iterator[Finding]:
    """Check that the kernel has what the records say."""
    if evidence.verify is None:
        return
    differences = evidence.verify["differences"]
    shown = [f"{each['network']}: {each['text']}" for each in differences[:_SHOWN_MAX]]
    if len(differences) > len(shown):
        shown.append(f"and {len(differences) - len(shown)} more (overlayd verify)")
    if differences:
        yield Finding(
            "error",
            "kernel",
            "\n".join(("the kernel differs from the records:", *shown)),
            "sudo overlayd verify --repair; if they return, another program changes the kernel: "
            "overlayd events",
        )
    else:
        yield Finding("ok", "kernel", "matches the records")


def check_versions(evidence: Evidence) -> Iterator[Finding]:
    """Check that this command, the agent and all live members have one version."""
    status = evidence.status
    if status is None:
        yield Finding("ok", "versions", f"this command has {__version__}")
        return
    agent_version = status["version"]
    if agent_version != __version__:
        yield Finding(
            "warn",
            "versions",
            f"the agent has overlayd {agent_version}, this command {__version__}",
            f"The agent was not restarted after an upgrade: {_HOW_TO_RESTART}",
        )
    others: dict[str, list[str]] = {}
    members = [] if evidence.members is None else evidence.members["members"]
    for member in members:
        if member["state"] in ("alive", "suspect") and member["version"] != agent_version:
            others.setdefault(member["version"], []).append(member["name"])
    for version, names in sorted(others.items()):
        shown = ", ".join(names[:_SHOWN_MAX])
        more = f" and {len(names) - _SHOWN_MAX} more" if len(names) > _SHOWN_MAX else ""
        yield Finding(
            "warn",
            "versions",
            f"{shown}{more} run overlayd {version}, this host {agent_version}",
            "Upgrade the older hosts, one at a time",
        )
    if agent_version == __version__ and not others:
        of = f", as all {len(members)} members have" if len(members) > 1 else ""
        yield Finding("ok", "versions", f"command and agent have {agent_version}{of}")


def _said(error: OverlayError) -> str:
    return f"{error.what}: {error.why}" if error.why else error.what
