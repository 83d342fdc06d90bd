"""The commands of `overlayd lab`: create, show, enter, remove hosts.

Owns: the steps and their progress messages. Every step uses the command line inside each host, as a
user would.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from overlay.errors import ConflictError, NotFoundError, OverlayError, UsageError
from overlay.lab import data_path, host_process, underlay
from overlay.lab.diagram import DiagramHost, DiagramPing, draw
from overlay.lab.host_process import HostProcess

HOSTS_MAX = 32
SWITCH = "underlay"
NETWORK = "blue"
SUBNET = "10.32.0.0/16"
_PING_RTT = re.compile(r"time=([0-9.]+) ms")
_NO_AGENT: Final[dict[str, Any]] = {
    "address": None,
    "members": None,
    "networks": [],
    "health": None,
}


def up(count: int) -> str:
    """Create the lab and test it; return a diagram.

    On failure, removes everything and raises OverlayError.
    """
    if not 1 <= count <= HOSTS_MAX:
        raise UsageError(f"a lab has 1 to {HOSTS_MAX} hosts, not {count}")
    if os.geteuid() != 0:
        raise UsageError("the lab creates namespaces, which requires root", hint="Use sudo")
    if host_process.running():
        raise ConflictError(
            "a lab is already up",
            hint="'overlayd lab status' shows it, 'overlayd lab down' removes it",
        )
    started = time.monotonic()
    try:
        hosts = make(count)
        join(hosts)
        shown = populate(hosts)
        pings = _ping_all(hosts)
    except BaseException:
        _print_progress("failed: removing the lab")
        host_process.end(host_process.running())
        raise
    vni = int(query(hosts[0], "network", "inspect", NETWORK)["vni"])
    _print_progress(f"done in {time.monotonic() - started:.1f} s\n")
    return draw(shown, SUBNET, vni, pings, shutil.get_terminal_size((100, 24)).columns)


def make(count: int) -> list[HostProcess]:
    """Create hosts on one underlay, without agents.

    Raises UsageError if the environment asks for a data path that does not exist.
    """
    data_path.wanted()
    _print_progress(f"creating {count} hosts (namespaces; this machine's network is not changed)")
    switch = host_process.start(SWITCH)
    underlay.prepare(switch)
    hosts = []
    for number in range(1, count + 1):
        host = host_process.start(f"vm{number}")
        data_path.configure(host)
        underlay.connect(switch, host, number)
        hosts.append(host)
        _print_progress(f"  vm{number} {underlay.address_of(number)} on {underlay.INTERFACE}")
    return hosts


def join(hosts: Sequence[HostProcess]) -> None:
    """Create a cluster on the first host and join the others."""
    _print_progress("starting an agent on each host, and joining them")
    overlayd(hosts[0], "join")
    token = overlayd(hosts[0], "token", "show").strip()
    _print_progress(f"  {hosts[0].name}: overlayd join")
    for host in hosts[1:]:
        overlayd(host, "join", underlay.address_of(1), "--token-file", "-", stdin=token)
        _print_progress(f"  {host.name}: overlayd join {underlay.address_of(1)} --token-file -")


def populate(hosts: Sequence[HostProcess]) -> list[DiagramHost]:
    """Create the network and attach one bare container on each host."""
    _print_progress(f"{hosts[0].name}: overlayd network create {NETWORK} --subnet {SUBNET}")
    overlayd(hosts[0], "network", "create", NETWORK, "--subnet", SUBNET)
    shown = []
    for number, host in enumerate(hosts, start=1):
        ip = overlayd(host, "container", "add", f"c{number}", "--network", NETWORK).split()[0]
        _print_progress(
            f"  {host.name}: overlayd container add c{number} --network {NETWORK}   -> {ip}"
        )
        shown.append(DiagramHost(host.name, underlay.address_of(number), f"c{number}", ip))
    return shown


def _ping_all(hosts: Sequence[HostProcess]) -> list[DiagramPing]:
    """Ping all other containers by name from the first host's."""
    _print_progress("testing: one ping by name from c1 to the container on every other host")
    pings = []
    for number in range(2, len(hosts) + 1):
        done = host_process.run(
            hosts[0], "overlayd", "container", "exec", "c1", "--",
            "ping", "-c", "1", "-W", "2", f"c{number}",
        )  # fmt: skip
        found = _PING_RTT.search(done.stdout)
        pings.append(DiagramPing("c1", f"c{number}", float(found[1]) if found else None))
        if found is None:
            raise OverlayError(
                f"c1 received no reply from c{number}",
                why=(done.stdout + done.stderr).strip()[-400:],
                hint="Please report this with the agents' logs",
            )
    return pings


def down() -> list[str]:
    """End every lab host on this machine; return their names."""
    found = host_process.running()
    host_process.end(found)
    return [host.name for host in found]


def status() -> dict[str, Any]:
    """Return the lab's hosts with their agents' status; nothing of that where none answers."""
    hosts = []
    for host in host_process.running():
        if host.name == SWITCH:
            continue
        shown: dict[str, Any] = {"name": host.name, "pid": host.pid, **_NO_AGENT}
        with contextlib.suppress(OverlayError):
            answer = query(host, "status")
            shown["address"] = (answer.get("node") or {}).get("address")
            shown["members"] = (answer.get("cluster") or {}).get("members")
            shown["networks"] = [network["name"] for network in answer.get("networks", [])]
            shown["health"] = [item["text"] for item in answer.get("health", [])]
        hosts.append(shown)
    return {"schema": "overlayd.lab-status/v1", "hosts": hosts}


def find(name: str) -> HostProcess:
    """Return a running lab host. Raises NotFoundError."""
    found = {host.name: host for host in host_process.running()}
    if name not in found:
        names = sorted(set(found) - {SWITCH})
        raise NotFoundError(
            f"no lab host {name!r}",
            why=f"running hosts: {', '.join(names) or 'none'}",
            hint=f"Use one of them: overlayd lab exec {names[0]}" if names else "overlayd lab up",
        )
    return found[name]


def switch() -> HostProcess:
    """Return the host that is the underlay's switch. Raises NotFoundError."""
    found = [host for host in host_process.running() if host.name == SWITCH]
    if not found:
        raise NotFoundError("no lab is up", hint="overlayd lab up")
    return found[0]


def members() -> list[HostProcess]:
    """Return the lab's hosts, without the switch."""
    return [host for host in host_process.running() if host.name != SWITCH]


def exec_in_host(name: str, command: Sequence[str]) -> int:
    """Run a command inside a host in place of this process; does not return."""
    words = host_process.enter_command(find(name), command)
    sys.stdout.flush()
    os.execvpe(words[0], words, host_process.environment())  # noqa: S606 - replaces this process


def overlayd(host: HostProcess, *words: str, stdin: str | None = None) -> str:
    """Run overlayd inside a host and return its output.

    Raises OverlayError with its message.
    """
    done = host_process.run(host, "overlayd", *words, stdin=stdin)
    if done.returncode:
        raise OverlayError(
            f"'overlayd {' '.join(words)}' failed on {host.name}",
            why=(done.stderr or done.stdout).strip()[-800:],
        )
    return done.stdout


def query(host: HostProcess, *words: str) -> dict[str, Any]:
    """Run a command with --json inside a host and return the result."""
    found: dict[str, Any] = json.loads(overlayd(host, *words, "--json"))
    return found


def _print_progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
