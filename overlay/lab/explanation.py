"""`overlayd lab explain`: the steps of one packet between two containers, as it happens.

Owns: which rows are read on the way, and the sentences around them. Everything shown is read from
the lab's own namespaces at that moment, or captured on its underlay.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from overlay.errors import NotFoundError, OverlayError
from overlay.lab import host_process, underlay
from overlay.lab.host_process import HostProcess, enter_command

_CAPTURE_S = 5.0
_READY = re.compile(r"listening on")


@dataclass(frozen=True, slots=True)
class ContainerPlace:
    """A bare container: its host, the network's namespace there, and what identifies it."""

    name: str
    host: HostProcess
    sandbox: str
    ip: str
    mac: str
    network: str
    vni: int


def explain(switch: HostProcess, hosts: Sequence[HostProcess], first: str, second: str) -> str:
    """Send one packet from a container to another on another host, and say what it met.

    Raises NotFoundError for a container that is not there, OverlayError for two on one host.
    """
    source, target = _place(hosts, first), _place(hosts, second)
    if source.host == target.host:
        raise OverlayError(
            f"{first} and {second} are on one host",
            why="their packets cross no underlay",
            hint="overlayd lab explain c1 c2",
        )
    captured, answer = _captured(switch, source, target)
    steps = [
        _step_of_route(source, target),
        _step_of_neighbor(source, target),
        _step_of_bridge(source, target),
        _step_of_vtep(source, target),
        _step_of_underlay(captured),
        _step_of_delivery(target),
        ("The answer takes the same way back", [answer]),
    ]
    ends = [f"{each.name} ({each.ip}, {each.host.name})" for each in (source, target)]
    lines = [f"One packet from {ends[0]} to {ends[1]}", ""]
    for number, (head, shown) in enumerate(steps, 1):
        lines += [f"{number}. {head}", *(f"     {line}" for line in shown), ""]
    return "\n".join(lines).rstrip()


def _step_of_route(source: ContainerPlace, target: ContainerPlace) -> tuple[str, list[str]]:
    route = _in_netns(source.host, source.name, "ip", "route", "get", target.ip)
    return (
        f"{source.name} finds {target.ip} in its own subnet: it needs {target.name}'s MAC",
        route.splitlines()[:1],
    )


def _step_of_neighbor(source: ContainerPlace, target: ContainerPlace) -> tuple[str, list[str]]:
    shown = _in_netns(source.host, source.sandbox, "ip", "neigh", "show", target.ip)
    what = f"It asks for it by ARP; the bridge on {source.host.name} answers from this row of"
    return f"{what} overlayd's, and the question does not leave the host", shown.splitlines()


def _step_of_bridge(source: ContainerPlace, target: ContainerPlace) -> tuple[str, list[str]]:
    rows = _fdb(source, target.mac, lambda row: row.get("ifname") == "vxlan0" and "master" in row)
    return (f"The frame goes to {target.mac}; br0 has that MAC behind the port vxlan0", rows)


def _step_of_vtep(source: ContainerPlace, target: ContainerPlace) -> tuple[str, list[str]]:
    rows = _fdb(source, target.mac, lambda row: "dst" in row)
    what = f"vxlan0 has a row that names {target.name}'s host: it puts the frame, with the number"
    return f"{what} of the network (VNI) {source.vni}, into a UDP packet to that host", rows


def _step_of_underlay(captured: list[str]) -> tuple[str, list[str]]:
    return (
        "The packet crosses the underlay: hosts and switches see only its outer header",
        captured or ["(tcpdump is not installed: apt-get install tcpdump shows the packet)"],
    )


def _step_of_delivery(target: ContainerPlace) -> tuple[str, list[str]]:
    rows = _fdb(target, target.mac, lambda row: row.get("ifname", "").startswith("ve"))
    return (
        f"{target.host.name} takes the frame out, and delivers it to the port of {target.name}",
        rows,
    )


def _place(hosts: Sequence[HostProcess], name: str) -> ContainerPlace:
    """Return where a bare container is. Raises NotFoundError."""
    for host in hosts:
        listed = host_process.run(host, "overlayd", "endpoint", "ls", "--json")
        endpoints = json.loads(listed.stdout)["endpoints"] if listed.returncode == 0 else []
        for each in endpoints:
            if each["name"] == name and each["node"] == host.name and each["target"]:
                return _place_of(host, each)
    raise NotFoundError(
        f"no container {name!r} in this lab",
        why="containers that `overlayd container add` made on a lab host can be followed",
        hint="overlayd lab exec vm1 -- overlayd endpoint ls",
    )


def _place_of(host: HostProcess, endpoint: Mapping[str, Any]) -> ContainerPlace:
    shown = host_process.run(
        host, "overlayd", "network", "inspect", endpoint["network"], "--json"
    ).stdout
    vni = int(json.loads(shown)["vni"])
    spaces = host_process.run(host, "ip", "netns").stdout.split()
    sandbox = next((word for word in spaces if word.startswith(f"ov-{vni:06x}-")), "")
    return ContainerPlace(
        endpoint["name"], host, sandbox, endpoint["ips"][0], endpoint["mac"], endpoint["network"],
        vni,
    )  # fmt: skip


def _captured(
    switch: HostProcess, source: ContainerPlace, target: ContainerPlace
) -> tuple[list[str], str]:
    """Ping once with a capture on the underlay; return what it shows, and the answer's line."""
    port = underlay.port_to(source.host.name)
    filtered = f"udp dst port 4789 and udp[8:4] & 0x08000000 != 0 and udp[12:4] = {source.vni << 8}"
    command = ["tcpdump", "-c", "1", "-nn", "-e", "-l", "-i", port, filtered]
    try:
        capture = subprocess.Popen(
            enter_command(switch, command), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env=host_process.environment(),
        )  # fmt: skip
    except OSError:
        capture = None
    if capture is not None:
        _wait_until_ready(capture)
    ping = _in_netns(source.host, source.name, "ping", "-c", "1", "-W", "2", target.ip)
    answers = [line for line in ping.splitlines() if "time=" in line]
    if capture is None:
        return [], answers[0] if answers else "no answer came"
    try:
        out, _ = capture.communicate(timeout=_CAPTURE_S)
    except subprocess.TimeoutExpired:
        capture.kill()
        out, _ = capture.communicate()
    return _headers(out), answers[0] if answers else "no answer came within 2 s"


def _wait_until_ready(capture: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + _CAPTURE_S
    while capture.stderr is not None and time.monotonic() < deadline:
        line = capture.stderr.readline()
        if not line or _READY.search(line):
            return


def _headers(captured: str) -> list[str]:
    """Return the outer and the inner packet of what tcpdump shows, a line each."""
    lines = [line.strip() for line in captured.splitlines() if line.strip()]
    return [line.split(" ", 1)[1] if number == 0 else line for number, line in enumerate(lines)]


def _fdb(place: ContainerPlace, mac: str, wanted: Callable[[Mapping[str, Any]], bool]) -> list[str]:
    """Return the bridge's and the VTEP's rows of a MAC that are wanted, as bridge(8) shows them."""
    shown = _in_netns(place.host, place.sandbox, "bridge", "-j", "fdb", "show")
    rows = [row for row in json.loads(shown or "[]") if row.get("mac") == mac and wanted(row)]
    return [" ".join(_words(row)) for row in rows]


def _words(row: Mapping[str, Any]) -> Iterator[str]:
    yield from (row["mac"], "dev", row["ifname"])
    for key in ("dst", "master"):
        if key in row:
            yield from (key, str(row[key]))
    yield from row.get("flags", ())


def _in_netns(host: HostProcess, netns: str, *command: str) -> str:
    return host_process.run(host, "ip", "netns", "exec", netns, *command).stdout.strip()
