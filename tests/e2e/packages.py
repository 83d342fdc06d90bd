"""The Debian package on lab hosts: a private copy of /usr and /opt, dpkg, the installed agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.lab.driver import wait_until

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

OVERLAYD = "/usr/bin/overlayd"
API = "/run/overlayd/api.sock"
# A lab shares /usr and /opt with the machine; an installation inside must stay inside.
# The package brings its configuration: if there is one (OVERLAYD_LAB_DATA_PATH), dpkg asks.
PREPARE = """
rm -rf /etc/overlayd
for folder in usr opt; do
  layer=/run/lab/$folder
  mkdir -p $layer/up $layer/work
  mount -t overlay lab -o lowerdir=/$folder,upperdir=$layer/up,workdir=$layer/work /$folder
done
"""
_AGENT_PID = """
import socket, struct
client = socket.socket(socket.AF_UNIX)
client.connect("/run/overlayd/api.sock")
print(struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])
"""


def dpkg(cluster: Cluster, number: int, *words: str) -> tuple[int, str]:
    """Run dpkg on a host; return its exit code and its output."""
    code, out, err = cluster.run(number, "dpkg", *words)
    return code, out + err


def agent_pid(cluster: Cluster, number: int) -> str:
    """Return the process that serves a host's API."""
    return cluster.ok(number, "/usr/bin/python3", "-c", _AGENT_PID).strip()


def version_of(cluster: Cluster, number: int) -> str:
    """Return the installed version."""
    return cluster.ok(number, "dpkg-query", "-W", "-f", "${Status} ${Version}", "overlayd")


def stop_agent(cluster: Cluster, number: int) -> None:
    """Stop a host's agent as systemd would, and wait until its API socket is gone."""
    cluster.ok(number, "kill", agent_pid(cluster, number))
    wait_until(lambda: cluster.run(number, "test", "-S", API)[0] == 1, "the agent stops")
