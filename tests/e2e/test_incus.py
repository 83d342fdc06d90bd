"""A container of Incus, of Debian 13: attached at its start, and followed when it is renamed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from tests.e2e.debian13 import Debian13

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.debian13]
# /run is the same for the tree and the agent.
STATE = "/run/incus-state"
INCUS = ("env", f"INCUS_DIR={STATE}", "PATH=/usr/libexec/incus:/usr/sbin:/usr/bin:/sbin:/bin")
START = f"""
mkdir -p {STATE} /var/log/incus /run/image/rootfs
echo root:1000000:1000000000 | tee /etc/subuid > /etc/subgid
setsid incusd --group root </dev/null >/run/incusd.log 2>&1 &
cd /run/image/rootfs
mkdir -p bin sbin proc sys dev etc tmp run
cp /bin/busybox bin/busybox
for applet in sh sleep; do ln -s busybox bin/$applet; done
printf '#!/bin/sh\\nexec sleep 1000\\n' > sbin/init
chmod +x sbin/init
printf 'architecture: x86_64\\ncreation_date: 1700000000\\n' > ../metadata.yaml
tar -C .. -czf /run/image.tgz metadata.yaml rootfs
"""


@pytest.fixture(scope="module")
def incus(cluster: Cluster, eventually: Callable[..., None]) -> Callable[..., str]:
    """Start Incus on vm1, with an image; return a function that runs its command."""
    tree = Debian13(cluster, 1, eventually)
    tree.ok(*INCUS, "bash", "-c", START)
    cluster.ok(1, "ln", "-s", STATE, "/var/lib/incus")

    def run(*words: str) -> str:
        return tree.ok(*INCUS, "incus", *words)

    eventually(lambda: tree.run(*INCUS, "incus", "info")[0] == 0, "incusd", 60.0)
    run("storage", "create", "default", "dir")
    run("profile", "device", "add", "default", "root", "disk", "path=/", "pool=default")
    run("image", "import", "/run/image.tgz", "--alias", "lab")
    run("init", "lab", "web", "-c", "security.privileged=true")
    return run


def test_a_renamed_instance_keeps_its_address(
    cluster: Cluster, incus: Callable[..., str], eventually: Callable[..., None]
) -> None:
    """Incus renames what does not run: at its next start it has the new name."""
    attach = ("overlayd", "attach", "incus:web", "--network", "blue")
    code, _, err = cluster.run(1, *attach)
    assert (code, "it is stopped" in err, "incus start web" in err) == (6, True, True), err
    incus("start", "web")
    ip = cluster.ok(1, *attach, "--wait").strip()
    assert cluster.inside(3, "c3", "ping", "-c1", "-W5", "web")[0] == 0

    incus("stop", "--force", "web")
    incus("rename", "web", "shop")
    incus("start", "shop")
    ping = ("ping", "-c1", "-W1", "shop")
    eventually(lambda: f"({ip})" in cluster.inside(3, "c3", *ping)[1], f"shop at {ip}")
    cluster.ok(1, "overlayd", "detach", "incus:shop")
    incus("delete", "--force", "shop")
