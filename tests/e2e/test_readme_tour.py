"""The tour of the README, run line by line on a lab host."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e

README = Path(__file__).parent.parent.parent / "README.md"
# Lines that a lab cannot run (Docker, that process, VLANs, that token, a prompt for a passphrase),
# or that remove a host.
NOT_IN_A_LAB = (
    "docker:", "pid:4242", "eth1.100", "revoke", "forget", "overlayd leave", "authority export",
)  # fmt: skip


def tour() -> Iterator[str]:
    """Yield the tour's command lines."""
    text = README.read_text()
    part = text[text.index("## The tour") : text.index("## Ports")]
    for block in part.split("```")[1::2]:
        for line in block.splitlines():
            if line.startswith("overlayd "):
                yield line


def test_every_line_of_the_tour_works(cluster: Cluster) -> None:
    """In the README's order, each line exits with 0 and without a warning."""
    done = 0
    for line in tour():
        words = shlex.split(line, comments=True)
        if any(what in " ".join(words) for what in NOT_IN_A_LAB):
            continue
        code, out, err = cluster.run(1, *words)
        assert (code, "warning" in err) == (0, False), f"{line}\n{out}{err}"
        done += 1

    assert done > 40
