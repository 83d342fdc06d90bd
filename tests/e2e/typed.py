"""The blocks and lines of a page that name the host where they are typed, and a way to type them.

Such a block begins with ```sh title="vm1", or with "lab" for the machine that the lab is on; the
site shows this above it. Such a line begins with `host1$`; what a command prints may follow it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

ROOT = Path(__file__).parent.parent.parent
_LINE = re.compile(r"^host(\d)\$ (.*)$", re.MULTILINE)
_BLOCK = re.compile(r'^```sh title="(vm\d|lab)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
# What a lab's host lacks: ssh to another one (a shell that listens there stands for its server),
# sudo, Compose's second version, cgroups of its own for Podman, containerd at its usual place.
_SSH_SERVER = "setsid busybox nc -ll -p 22 -e /bin/bash </dev/null >/dev/null 2>&1 &"
_STAND_INS = r"""
set -euo pipefail
ssh() {
  local host=$1; shift
  echo 'sudo() { "$@"; }; '"$*" | busybox nc "$host" 22
}
sudo() { "$@"; }
docker() { if [ "$1" = compose ]; then shift; docker-compose "$@"; else command docker "$@"; fi; }
podman() {
  local verb=$1; shift
  local limits=()
  [ "$verb" = run ] && limits=(--ulimit nofile=1024:1024 --ulimit nproc=1024:1024)
  command podman --cgroup-manager=cgroupfs --runtime runc "$verb" "${limits[@]}" "$@"
}
ctr() {
  local verb=$1; shift
  command ctr --address /run/ctd/containerd.sock "$verb" --snapshotter native "$@"
}
export CONTAINERS_CONF=/run/containers.conf
"""
_ON_THE_MACHINE = """
set -euo pipefail
python=$0
overlayd() { "$python" -m overlay.cli.main "$@"; }
export -f overlayd
export python
"""


class Typed(NamedTuple):
    """A block: its host, and its commands."""

    host: str
    commands: str


class Line(NamedTuple):
    """A line: the number of its host, its command, and what the page shows that it prints."""

    host: int
    command: str
    shown: str


def blocks(page: str) -> Iterator[Typed]:
    """Yield the blocks of a page that name their host, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for host, commands in _BLOCK.findall(text):
        yield Typed(host, commands)


def section(page: str, heading: str) -> str:
    """Return what a page has under a heading of the second level."""
    (found,) = (
        text.partition("\n")[2]
        for text in re.split("^## ", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
        if text.partition("\n")[0] == heading
    )
    return found


def lines(page: str, heading: str) -> list[Line]:
    """Return the lines under a heading that name their host, in order."""
    found: list[Line] = []
    for block in section(page, heading).split("```")[1::2]:
        starts = [*_LINE.finditer(block)]
        ends = [*(each.start() for each in starts[1:]), len(block)][: len(starts)]
        for each, end in zip(starts, ends, strict=True):
            found.append(Line(int(each[1]), each[2], block[each.end() + 1 : end]))
    assert found, f"{page} has no line of a host under {heading}"
    return found


def serve_ssh(cluster: Cluster) -> None:
    """Let each host run the commands that the pages give to others by ssh."""
    for number in range(1, len(cluster.hosts) + 1):
        cluster.ok(number, "bash", "-c", _SSH_SERVER)


def type_block(cluster: Cluster, block: Typed) -> str:
    """Type a block's commands on its host; each must succeed. Return what they print."""
    if block.host == "lab":
        return type_on_the_machine(block.commands)
    number = int(block.host.removeprefix("vm"))
    return cluster.ok(number, "bash", "-c", _STAND_INS + block.commands)


def type_line(cluster: Cluster, line: Line) -> str:
    """Type a line on its host; it must succeed. Return what it prints."""
    return cluster.ok(line.host, "bash", "-c", _STAND_INS + line.command)


def type_on_the_machine(commands: str) -> str:
    """Type commands outside of all hosts; each must succeed. Return what they print."""
    words = ["bash", "-c", _ON_THE_MACHINE + commands, sys.executable]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{commands}{done.stdout}{done.stderr}"
    return done.stdout


def type_page(cluster: Cluster, page: str) -> list[str]:
    """Type a page from top to bottom; return what each block prints."""
    return [type_block(cluster, block) for block in blocks(page)]
