"""The network between lab hosts: a bridge in a namespace of its own.

The machine's own interfaces, routes and rules are not touched: veth pairs run from the bridge's
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


def prepare(switch: HostProcess) -> None:
    """Make the bridge."""
    _ip(switch, "link", "add", BRIDGE, "type", "bridge")
    _ip(switch, "link", "set", BRIDGE, "up")


def connect(switch: HostProcess, host: HostProcess, number: int) -> None:
    """Give a host its interface eth1, on the bridge."""
    port = f"to-vm{number}"
    peer = ["peer", "name", INTERFACE, "netns", str(host.pid)]
    # The far end is placed by pid, which `ip` reads in the machine's own /proc.
    command = ["nsenter", "--target", str(switch.pid), "--net", "ip", "link", "add", port]
    _run([*command, "mtu", str(MTU), "type", "veth", *peer])
    _ip(switch, "link", "set", port, "master", BRIDGE, "up")
    _ip(host, "link", "set", "lo", "up")
    _ip(host, "address", "add", f"{address_of(number)}/{PREFIX_LENGTH}", "dev", INTERFACE)
    _ip(host, "link", "set", INTERFACE, "up")


def _ip(holder: HostProcess, *words: str) -> None:
    _run(enter_command(holder, ["ip", *words]))


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode:
        raise OverlayError(
            "the lab's underlay could not be made",
            why=f"{' '.join(command[-8:])}: {done.stderr.strip()}",
            hint="'overlayd lab down' removes what is there; is iproute2 installed?",
        )
