"""The commands of the guide and of the README, run line by line on a lab host."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from overlay.lab.driver import lasting
from tests.e2e.typed import blocks, type_block

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parent.parent.parent
LATE = re.compile(r"warning: (not yet confirmed by|the data path to [\w, -]+ has not answered)")
PAGES = [
    "docs/guide/networks.md",
    "docs/guide/apply.md",
    "docs/guide/containers.md",
    "docs/guide/targets.md",
    "docs/guide/names.md",
    "docs/guide/publish.md",
    "docs/guide/labels.md",
    "docs/guide/virtual-addresses.md",
    "docs/guide/dhcp.md",
    "docs/guide/multicast.md",
    "docs/guide/plug.md",
    "docs/guide/from-swarm.md",
    "docs/guide/encryption.md",
    "docs/guide/evpn.md",
    "docs/guide/addresses.md",
    "docs/guide/services.md",
    "docs/guide/policy.md",
    "docs/guide/router.md",
    "docs/guide/native-path.md",
    "docs/guide/isolation.md",
    "docs/guide/rates.md",
    "docs/guide/controls.md",
    "docs/operate/authority.md",
    "docs/operate/security.md",
    "docs/operate/status.md",
    "docs/guide/doctor.md",
    "docs/operate/cluster.md",
    "docs/operate/commands.md",
    "docs/guide/capture.md",
    "README.md",
]
# Lines that a lab cannot run (Docker, that process, VLANs, a second interface, that token, a prompt
# for a passphrase), that remove a host, or that do not end; and a file that is the reader's.
NOT_IN_A_LAB = (
    "docker:", "pid:4242", "eth1.100", "eth2", "eth3", "revoke", "forget", "overlayd leave",
    "authority export", "lxc:", "--follow", "./new.toml",
)  # fmt: skip

PAGES_WITH_HOSTS = ["docs/learn/overlay-by-hand.md", "docs/learn/gossip.md", "docs/guide/policy.md"]


def command_lines(page: Path) -> Iterator[str]:
    """Yield the commands of a page: what its blocks have at the beginning of a line."""
    for block in page.read_text().split("```")[1::2]:
        for line in block.splitlines():
            if line.startswith("overlayd "):
                yield line


@pytest.mark.parametrize("page", PAGES_WITH_HOSTS)
def test_the_blocks_that_name_their_host_work(cluster: Cluster, page: str) -> None:
    """Typed in a lab, on these hosts and in this order, each exits with 0."""
    typed = [type_block(cluster, block) for block in blocks(page)]

    assert typed


def lost_paths(cluster: Cluster) -> list[str]:
    """Return what the status complains of the data paths."""
    told = [each["text"] for each in cluster.json(1, "status")["health"]]
    return [text for text in told if text.startswith("data path ")]


def test_every_command_of_the_guide_works(cluster: Cluster) -> None:
    """In the order of the pages, each exits with 0 and without a warning.

    Of the answers that an attach waits for, a loaded machine's may come later: those are seen then.
    """
    done = 0
    for line in (line for page in PAGES for line in command_lines(ROOT / page)):
        words = shlex.split(line, comments=True)
        if any(what in " ".join(words) for what in NOT_IN_A_LAB):
            continue
        if words[1] == "doctor":  # it finds what the pages before have just changed
            cluster.ok(1, "overlayd", "status", "--wait", "--timeout", "120")
        code, out, err = cluster.run(1, *words)
        warnings = LATE.sub("", err).count("warning")
        assert (code, warnings) == (0, 0), f"{line}\n{out}{err}"
        if LATE.search(err):
            assert lasting(lambda: lost_paths(cluster)) == [], line
        done += 1

    assert done > 50
