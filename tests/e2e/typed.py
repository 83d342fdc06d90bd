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
# What a lab's host lacks: ssh to another one (the test leaves its token there), Compose's second
# version, and cgroups of its own for Podman.
_STAND_INS = r"""
set -euo pipefail
ssh() { cat "/run/token-of-$1"; }
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
"""


class Typed(NamedTuple):
    """A block: its host, and its commands."""

    host: str
    commands: str


def blocks(page: str) -> Iterator[Typed]:
    """Yield the blocks of a page of docs/ that name their host, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for host, commands in _BLOCK.findall(text):
        yield Typed(host, commands)


def type_block(cluster: Cluster, block: Typed) -> str:
    """Type a block's commands on its host; each must succeed. Return what they print."""
    if block.host == "lab":
        words = ["bash", "-c", _ON_THE_MACHINE + block.commands, sys.executable]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, f"{block.commands}{done.stdout}{done.stderr}"
        return done.stdout
    number = int(block.host.removeprefix("vm"))
    return cluster.ok(number, "bash", "-c", _STAND_INS + block.commands)
