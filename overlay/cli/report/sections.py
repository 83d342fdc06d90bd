"""The files of a report: what the agent answers, the host, and the kernel's tables.

Owns: which questions are asked and which programs run. Does not: redact or bound (`bundle`).
"""

from __future__ import annotations

import json
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from overlay import __version__, limits
from overlay.cli.report.commands import output_of
from overlay.cli.report.redaction import without_label_values
from overlay.client.api import ApiClient
from overlay.errors import AgentNotRunningError, OverlayError, TimedOutError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from overlay.cli.checks.evidence import Evidence
    from overlay.cli.report.bundle import Bundle
    from overlay.client.paths import Paths

# None of these answers has a secret; the one with the join token is not asked for.
QUESTIONS = (
    "status", "members", "verify", "networks", "endpoints", "containers", "ipam", "published",
    "dns", "authority", "keys", "events",
)  # fmt: skip
LIBRARIES = ("pyroute2", "aiohttp", "msgpack", "msgspec", "cryptography", "dnslib")
PROGRAMS = (
    ("uname", "-a"), ("ip", "-V"), ("nft", "--version"), ("docker", "--version"),
    ("podman", "--version"), ("systemctl", "--version"),
)  # fmt: skip
HOST_COMMANDS = (
    ("ip", "-d", "-s", "link"), ("ip", "address"), ("ip", "rule"), ("ip", "route"),
    ("ip", "-6", "route"), ("ip", "neighbour"), ("ss", "-lnup"), ("nft", "list", "tables"),
    ("tc", "qdisc"),
)  # fmt: skip
# Of one sandbox; its name replaces SANDBOX.
SANDBOX_COMMANDS = (
    ("ip", "-n", "SANDBOX", "-d", "-s", "link"), ("ip", "-n", "SANDBOX", "address"),
    ("ip", "-n", "SANDBOX", "route"), ("ip", "-n", "SANDBOX", "-6", "route"),
    ("bridge", "-n", "SANDBOX", "fdb"), ("ip", "-n", "SANDBOX", "neighbour"),
    ("bridge", "-n", "SANDBOX", "-d", "link"), ("tc", "-n", "SANDBOX", "-s", "qdisc"),
    ("ip", "netns", "exec", "SANDBOX", "nft", "list", "ruleset"),
    ("ip", "netns", "exec", "SANDBOX", "ss", "-lnut"),
)  # fmt: skip
UNIT_PROPERTIES = (
    "ActiveState,SubState,Result,ExecMainStatus,NRestarts,ActiveEnterTimestamp,MemoryCurrent,"
    "TasksCurrent,LimitNOFILE"
)
OWN_TABLE = "overlayd"  # the beginning of the name of each nftables table of overlayd
NAMESPACES = Path("/run/netns")
SYSCTLS = (
    "net/ipv4/ip_forward", "net/ipv4/conf/*/rp_filter", "net/ipv4/conf/*/forwarding",
    "net/ipv4/conf/*/route_localnet", "net/ipv6/conf/*/forwarding",
    "net/ipv6/conf/*/disable_ipv6", "net/ipv4/neigh/default/gc_thresh*",
    "net/ipv6/neigh/default/gc_thresh*", "net/ipv4/ip_local_port_range", "net/core/rmem_*",
    "net/core/wmem_*", "net/core/netdev_max_backlog", "net/core/bpf_jit_enable",
    "kernel/unprivileged_bpf_disabled", "net/bridge/bridge-nf-call-*",
    "net/netfilter/nf_conntrack_count", "net/netfilter/nf_conntrack_max", "fs/file-nr",
)  # fmt: skip


def add_answers(bundle: Bundle, seen: Evidence) -> list[str]:
    """Add the agent's answers; return what failed. An agent that hangs is not asked again."""
    if seen.failure is not None:
        return [f"the agent's answers: {seen.failure.what}"]
    known = {"status": seen.status, "members": seen.members, "verify": seen.verify}
    failures = []
    client = ApiClient(seen.paths)
    for question in QUESTIONS:
        try:
            answer = known.get(question) or client.get(f"/v1/{question}")
        except OverlayError as error:
            failures.append(f"{question}: {error.what}")
            if isinstance(error, AgentNotRunningError | TimedOutError):
                break
        else:
            text = json.dumps(without_label_values(answer), indent=1, ensure_ascii=False)
            bundle.add(f"{question}.json", text + "\n")
    return failures


def add_versions(bundle: Bundle) -> None:
    """Add the versions of this command, its libraries, the kernel and the programs it uses."""
    lines = [
        f"overlayd {__version__} at {Path(__file__).parents[2]}",
        f"python {platform.python_version()} at {sys.executable}",
    ]
    for name in LIBRARIES:
        try:
            lines.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            lines.append(f"{name}: not installed as a package")
    release = _text_of(Path("/etc/os-release"))
    bundle.add("versions.txt", "\n".join((*lines, "", release, _outputs(PROGRAMS))))


def add_log(bundle: Bundle, paths: Paths) -> None:
    """Add the end of the log of an agent that `join` started, and of systemd's unit."""
    if paths.log.exists():
        bundle.add("agent.log", _end_of(paths.log), keep_end=True)
    journal = ("journalctl", "-u", "overlayd", "-n", str(limits.REPORT_LOG_LINES_MAX),
               "-o", "short-iso-precise", "--no-pager")  # fmt: skip
    bundle.add("journal.txt", output_of(journal, 4 * limits.REPORT_FILE_SIZE_MAX), keep_end=True)
    bundle.add("unit.txt", output_of(("systemctl", "show", "overlayd", "-p", UNIT_PROPERTIES)))


def add_host(bundle: Bundle) -> None:
    """Add the host's links and routes, sysctls, and overlayd's own nftables tables."""
    bundle.add("host.txt", _outputs(HOST_COMMANDS))
    tables = output_of(("nft", "list", "tables")).splitlines()
    words = [line.split() for line in tables if line.startswith("table ")]
    own = [("nft", "list", *each) for each in words if each[-1].startswith(OWN_TABLE)]
    bundle.add("host-nftables.txt", _outputs(own))
    bundle.add("sysctls.txt", "".join(_sysctls()))


def add_sandboxes(bundle: Bundle) -> None:
    """Add the tables of each sandbox of this host."""
    for name in sandbox_names()[: limits.REPORT_SANDBOXES_MAX]:
        commands = [
            tuple(name if word == "SANDBOX" else word for word in words)
            for words in SANDBOX_COMMANDS
        ]
        bundle.add(f"sandbox-{name}.txt", _outputs(commands))


def sandbox_names() -> list[str]:
    """Return the names of overlayd's sandboxes on this host."""
    try:
        return sorted(path.name for path in NAMESPACES.iterdir() if path.name.startswith("ov-"))
    except OSError:
        return []


def _outputs(commands: Sequence[Sequence[str]]) -> str:
    return "\n".join(output_of(words) for words in commands)


def _sysctls() -> Iterator[str]:
    root = Path("/proc/sys")
    for pattern in SYSCTLS:
        for path in sorted(root.glob(pattern)):
            yield f"{path.relative_to(root)} = {_text_of(path).strip()}\n"


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return f"({error.strerror})"


def _end_of(path: Path) -> str:
    """Return the end of a file; the agent may write to it meanwhile."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 4 * limits.REPORT_FILE_SIZE_MAX))
            return file.read(4 * limits.REPORT_FILE_SIZE_MAX).decode(errors="replace")
    except OSError as error:
        return f"({error.strerror})"
