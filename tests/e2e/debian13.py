"""Programs of Debian 13 on a lab host: a tree of its files beside the agent of this tree.

The tree is the root of a mount namespace whose /run is the host's, so that a container's network
namespace has the same path for Podman there and for the agent.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

ROOT = Path(__file__).parents[2]
TREE = Path(os.environ.get("OVERLAYD_DEBIAN13", ROOT / "build/debian13"))
SOURCE = "/tmp/source"  # noqa: S108 - of this tree, in that one's own /tmp
_ENTER = f"""
mount --make-shared /run
setsid unshare --mount --propagation unchanged bash -c '
set -e
mount --make-private /
mount --bind {TREE} {TREE}
mount --make-private {TREE}
cd {TREE}
mkdir -p var/lib/containers var/lib/docker etc/containers/networks
mount --rbind /run run
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs none tmp
mount -t tmpfs none usr/local
mount -t tmpfs none etc/containers/networks
mount -t tmpfs none var/lib/containers
mount -t tmpfs none var/lib/docker
mkdir -p tmp/old .{SOURCE}
mount --bind {ROOT} .{SOURCE}
pivot_root . tmp/old
mount --make-rprivate /tmp/old
umount -l /tmp/old
echo $$ > /run/debian13.pid
exec sleep infinity' </dev/null >/run/debian13.log 2>&1 &
"""
_RUN = (
    'exec nsenter --target "$(cat /run/debian13.pid)" --mount --root env -i'
    " PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root PODMAN_IGNORE_CGROUPSV1_WARNING=1"
    f' PYTHONPATH={SOURCE} PYTHONDONTWRITEBYTECODE=1 sh -c \'cd /; exec "$@"\' sh "$@"'
)


class Debian13:
    """The tree on one host."""

    def __init__(self, cluster: Cluster, number: int, eventually: Callable[..., None]) -> None:
        assert (TREE / "ready").exists(), "there is no tree of Debian 13: make netavark-test"
        self._cluster = cluster
        self._number = number
        cluster.ok(number, "bash", "-c", _ENTER)
        try:
            eventually(lambda: cluster.run(number, "test", "-s", "/run/debian13.pid")[0] == 0, "")
        except AssertionError as error:
            error.add_note(cluster.run(number, "cat", "/run/debian13.log")[1])
            raise

    def run(self, *words: str) -> tuple[int, str, str]:
        """Run a command of the tree; return exit code, stdout and stderr."""
        return self._cluster.run(self._number, "bash", "-c", _RUN, "bash", *words)

    def ok(self, *words: str) -> str:
        """Run a command that must succeed; return its stdout."""
        code, out, err = self.run(*words)
        assert code == 0, f"{' '.join(words)}: {out}{err}"
        return out
