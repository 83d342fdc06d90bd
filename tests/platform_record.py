"""The record of a run of tests: on what they passed, for the table of platforms.

`OVERLAYD_RECORD=NAME` has pytest write build/platforms/NAME.json at the end of a run that passed.
`OVERLAYD_RECORD_ROOT` is the tree whose programs the tests used, if it is not this machine's.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

RUNTIMES = {  # Debian's package, and the program that prints its version
    "Docker": ("docker.io", "dockerd"),
    "Compose": ("docker-compose", "docker-compose"),
    "Podman": ("podman", "podman"),
    "containerd": ("containerd", "containerd"),
    "LXC": ("lxc", "lxc-start"),
    "Incus": ("incus", "incus"),
    "systemd": ("systemd", "systemctl"),
}
_FILES_NAMED_MAX = 8


def write(folder: Path, name: str, tests: str, root: Path = Path("/")) -> Path:
    """Write the record of a run that passed; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    record = {
        "platform": platform_of(root),
        "machine": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "runtimes": runtimes_of(root),
        "tests": tests,
        "day": f"{datetime.now(UTC):%Y-%m-%d}",
    }
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return path


def platform_of(root: Path) -> str:
    """Return the name of the system in a tree, as os-release(5) has it."""
    lines = (root / "etc/os-release").read_text(encoding="utf-8").splitlines()
    (name,) = [line.partition("=")[2].strip('"') for line in lines if "PRETTY_NAME=" in line]
    return name


def runtimes_of(root: Path) -> dict[str, str]:
    """Return the versions of the container runtimes that a tree has."""
    found = {
        name: _version(program) if root == Path("/") else _package_version(root, package)
        for name, (package, program) in RUNTIMES.items()
    }
    return {name: version for name, version in found.items() if version}


def described(node_ids: list[str]) -> str:
    """Return how many tests passed, and of which files if these are few."""
    files = sorted({Path(node_id.partition("::")[0]).stem for node_id in node_ids})
    names = f" of {', '.join(files)}" if len(files) <= _FILES_NAMED_MAX else ""
    return f"{len(node_ids)} tests{names}"


def write_if_asked(folder: Path, node_ids: list[str]) -> None:
    """Write the record of a session that passed, if the environment names it."""
    name = os.environ.get("OVERLAYD_RECORD")
    if name and node_ids:
        title = os.environ.get("OVERLAYD_RECORD_TITLE", "")
        tests = f"{title}: {described(node_ids)}" if title else described(node_ids)
        write(folder, name, tests, Path(os.environ.get("OVERLAYD_RECORD_ROOT", "/")))


def _version(program: str) -> str:
    """Return what a program of this machine calls its version; empty if there is none."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    try:
        done = subprocess.run(
            [program, "--version"],
            env={"PATH": path},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    except OSError:
        return ""
    return "" if done.returncode else _number(done.stdout)


def _package_version(root: Path, package: str) -> str:
    """Return the version of a tree's Debian package; empty if it is not there."""
    lines = (root / "var/lib/dpkg/status").read_text(encoding="utf-8").split("\n\n")
    (described, *_) = [each for each in lines if f"Package: {package}\n" in f"{each}\n"] or [""]
    found = re.search(r"^Version: (?:\d+:)?(.*)$", described, re.MULTILINE)
    return _number(found[1]) if found else ""


def _number(text: str) -> str:
    found = re.search(r"\d+(?:\.\d+)+", text) or re.search(r"\b\d+\b", text)
    return found[0] if found else ""
