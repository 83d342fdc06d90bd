"""The network between lab hosts: a bridge in a namespace of its own.

The machine's own interfaces, routes and rules are not changed: veth pairs lead from the bridge's
namespace straight into the hosts'.
"""

from __future__ import annotations

import subprocess

from overlay.errors import OverlayError
from overlay.lab.host_process import HostProcess, enter_command

NETWORK = "192.168.56"
PREFIX_LENGTH = 24
INTERFACE = "eth1"
BRIDGE = "underlay"
MTU = 1500


def address_of(number: int) -> str:
    """Return the underlay address of host vm`number`."""
    return f"{NETWORK}.{10 + number}"


def port_to(host: str) -> str:
    """Return the name of the bridge's port to a host."""
    return f"to-{host}"


def prepare(switch: HostProcess) -> None:
    """Create the bridge. Raises OverlayError."""
    _ip(switch, "link", "add", BRIDGE, "type", "bridge")
    _ip(switch, "link", "set", BRIDGE, "up")


def connect(switch: HostProcess, host: HostProcess, number: int) -> None:
    """Connect a host to the bridge by its interface eth1. Raises OverlayError."""
    port = port_to(host.name)
    peer = ["peer", "name", INTERFACE, "netns", str(host.pid)]
    # The peer is placed by pid, which `ip` looks up in the machine's own /proc.
    command = ["nsenter", "--target", str(switch.pid), "--net", "ip", "link", "add", port]
    _run([*command, "mtu", str(MTU), "type", "veth", *peer])
    _ip(switch, "link", "set", port, "master", BRIDGE, "up")
    _ip(host, "link", "set", "lo", "up")
    _ip(host, "address", "add", f"{address_of(number)}/{PREFIX_LENGTH}", "dev", INTERFACE)
    _ip(host, "link", "set", INTERFACE, "up")


def _ip(host: HostProcess, *words: str) -> None:
    _run(enter_command(host, ["ip", *words]))


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode:
        raise OverlayError(
            "cannot create the lab's underlay",
            why=f"{' '.join(command[-8:])}: {done.stderr.strip()}",
            hint="Check that iproute2 is installed; 'overlayd lab down' removes the rest",
        )
