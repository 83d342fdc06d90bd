"""The blocks of a page that name the host where they are typed, and a way to type them.

Such a block begins with ```sh title="vm1", or with "lab" for the machine that the lab is on; the
site shows this above it.
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
_BLOCK = re.compile(r'^```sh title="(vm\d|lab)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
# What a lab's host lacks: ssh to another one (a shell that listens there stands for its server),
# Compose's second version, and cgroups of its own for Podman.
_SSH_SERVER = "setsid busybox nc -ll -p 22 -e /bin/bash </dev/null >/dev/null 2>&1 &"
_STAND_INS = r"""
set -euo pipefail
ssh() {
  local host=$1; shift
  echo 'sudo() { "$@"; }; '"$*" | busybox nc "$host" 22
}
docker() { if [ "$1" = compose ]; then shift; docker-compose "$@"; else command docker "$@"; fi; }
podman() {
  local verb=$1; shift
  local limits=()
  [ "$verb" = run ] && limits=(--ulimit nofile=1024:1024 --ulimit nproc=1024:1024)
  command podman --cgroup-manager=cgroupfs --runtime runc "$verb" "${limits[@]}" "$@"
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


def blocks(page: str) -> Iterator[Typed]:
    """Yield the blocks of a page that name their host, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for host, commands in _BLOCK.findall(text):
        yield Typed(host, commands)


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


def type_on_the_machine(commands: str) -> str:
    """Type commands outside of all hosts; each must succeed. Return what they print."""
    words = ["bash", "-c", _ON_THE_MACHINE + commands, sys.executable]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{commands}{done.stdout}{done.stderr}"
    return done.stdout


def type_page(cluster: Cluster, page: str) -> list[str]:
    """Type a page from top to bottom; return what each block prints."""
    return [type_block(cluster, block) for block in blocks(page)]
