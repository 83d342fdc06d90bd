"""Tables and a chart of the measurements, with goals and ratios."""

from __future__ import annotations

import datetime as dt
import os
import platform
import shutil
import statistics
import subprocess
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import overlay

Ratio: TypeAlias = tuple[str, str, str, str, str, Callable[[float], bool]]
"""Title, measure, what is compared with what, the goal, and whether a ratio meets it."""
_UNITS = {
    "tcp": "Mbit/s",
    "udp": "packets/s",
    "rtt": "us",
    "request": "responses/s",
    "requests": "responses/s",
}
_TITLES = {
    "tcp": "TCP, one stream",
    "udp": "UDP, 64 bytes",
    "rtt": "round trip, flood ping",
    "request": "requests of 1 byte, one connection",
    "requests": "requests of 128 bytes, 16 connections",
}
OURS, DOCKER, BARE = "overlayd", "Docker swarm overlay", "underlay"
NATIVE = "overlayd, native path"
BESIDE = "underlay beside overlayd"
_BESIDE = "the underlay beside overlayd : without it"


def machine() -> dict[str, str]:
    """Return a description of the machine and the software."""
    docker = shutil.which("dockerd")
    version = ""
    if docker is not None:
        told = subprocess.run([docker, "--version"], capture_output=True, text=True, check=False)
        version = told.stdout.strip()
    return {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "docker": version,
        "overlayd": overlay.__version__,
        "load": f"{os.getloadavg()[0]:.1f} before the start",
    }


def markdown(result: dict[str, Any]) -> str:
    """Return the whole report."""
    lines = [
        "# overlayd compared with Docker's overlay",
        "",
        "Made by `make bench`; the last section explains the method.",
        "",
    ]
    lines += [f"- {key}: {value}" for key, value in result["machine"].items()]
    if "data" in result:
        lines += ["", "## Data plane", "", *_data_table(result["data"])]
    if "native" in result:
        title = f"## The native path, underlay: {result['underlay']}"
        lines += ["", title, "", *_native_table(result["native"])]
    if "scale" in result:
        lines += ["", "## With many remote endpoints and peers", "", *_scale_table(result["scale"])]
    if "control" in result or "program" in result:
        lines += ["", "## Control plane", "", *_control_table(result)]
    if "attach" in result:
        goals = "Goals: an attach at most 1.1 times as long, 8 MiB for each 10,000 records."
        lines += ["", "## One attach beside many records", "", *result["attach"], "", goals]
    return "\n".join([*lines, "", _NOTES])


def _native_table(data: dict[str, dict[str, list[float]]]) -> list[str]:
    rows: list[Ratio] = []
    for name, short in ((NATIVE, "native"), (OURS, "fast path")):
        rows += [
            (f"TCP, {short} : Docker", "tcp", name, DOCKER, ">= 1.20", lambda x: x >= 1.20),
            (f"TCP, {short} : underlay", "tcp", name, BARE, ">= 0.78", lambda x: x >= 0.78),
            (f"UDP packets, {short} : Docker", "udp", name, DOCKER, ">= 1.7", lambda x: x >= 1.7),
            (f"round trip, {short} : Docker", "rtt", name, DOCKER, "<= 0.60", lambda x: x <= 0.60),
            (f"16 connections, {short} : Docker", "requests", name, DOCKER, ">= 1.5", _half_more),
        ]
    return [*_measured(data), *_ratio_rows(data, *rows)]


def _half_more(ratio: float) -> bool:
    return ratio >= 1.5


def _measured(data: dict[str, dict[str, list[float]]]) -> list[str]:
    """Return the table of what was measured, and the head of that of ratios."""
    lines = ["| | " + " | ".join(data) + " |", "|---|" + "---|" * len(data)]
    for key, title in _TITLES.items():
        cells = [_spread(samples[key]) for samples in data.values()]
        lines.append(f"| {title}, {_UNITS[key]} | " + " | ".join(cells) + " |")
    return [
        *lines,
        "",
        "| ratio, median of the rounds' ratios | measured | goal | |",
        "|---|---|---|---|",
    ]


def _ratio_rows(data: dict[str, dict[str, list[float]]], *rows: Ratio) -> list[str]:
    lines = []
    for title, key, ours, other, goal, met in rows:
        if ours not in data or other not in data:
            continue
        ratios = paired(data[ours][key], data[other][key])
        value = statistics.median(ratios)
        spread = f"{value:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        lines.append(f"| {title} | {spread} | {goal} | {_verdict(met(value))} |")
    return lines


def _data_table(data: dict[str, dict[str, list[float]]]) -> list[str]:
    lines = _measured(data)
    lines += _ratio_rows(
        data,
        ("TCP, overlayd : Docker", "tcp", OURS, DOCKER, ">= 1.20", lambda x: x >= 1.20),
        ("TCP, overlayd : underlay", "tcp", OURS, BARE, ">= 0.78", lambda x: x >= 0.78),
        ("UDP packets, overlayd : Docker", "udp", OURS, DOCKER, ">= 1.7", lambda x: x >= 1.7),
        ("round trip, overlayd : Docker", "rtt", OURS, DOCKER, "<= 0.60", lambda x: x <= 0.60),
        ("16 connections, overlayd : Docker", "requests", OURS, DOCKER, ">= 1.5", _half_more),
        (f"TCP, {_BESIDE}", "tcp", BESIDE, BARE, ">= 0.95", lambda x: x >= 0.95),
        (f"UDP packets, {_BESIDE}", "udp", BESIDE, BARE, ">= 0.95", lambda x: x >= 0.95),
        (f"round trip, {_BESIDE}", "rtt", BESIDE, BARE, "<= 1.05", lambda x: x <= 1.05),
    )
    return lines


def _scale_table(found: dict[str, dict[str, list[float]]]) -> list[str]:
    lines = ["| rows in the first host's sandbox | TCP, Mbit/s | UDP, packets/s |", "|---|---|---|"]
    for name, samples in found.items():
        lines.append(f"| {name} | {_spread(samples['tcp'])} | {_spread(samples['udp'])} |")
    return lines


def paired(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return the ratio of each round; a disturbance in a round affects both values."""
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def _control_table(result: dict[str, Any]) -> list[str]:
    lines = ["| | measured | goal | |", "|---|---|---|---|"]
    control, program = result.get("control", {}), result.get("program", {})

    def row(title: str, text: str, goal: str, met: bool | None) -> None:
        lines.append(f"| {title} | {text} | {goal} | {'' if met is None else _verdict(met)} |")

    if control:
        took = control["attach_api_ms"]
        median, tail = statistics.median(took), quantile(took, 0.99)
        row(
            f"attach through the API, confirmed by three hosts ({len(took)} times)",
            f"median {median:.1f} ms, 99th percentile {tail:.1f} ms",
            "6 ms", median <= 6,
        )  # fmt: skip
        median, tail = statistics.median(control["detach_ms"]), quantile(control["detach_ms"], 0.99)
        row(
            "detach through the API",
            f"median {median:.1f} ms, 99th percentile {tail:.1f} ms",
            "8 ms", median <= 8,
        )  # fmt: skip
        cli = statistics.median(control["attach_cli_ms"])
        row("the same through the CLI", f"median {cli:.0f} ms", "55 ms", cli <= 55)
        lost = control["first_packets_lost"]
        row("first packets lost after attach returned", f"{lost} of {len(took)}", "0", lost == 0)
        rate = statistics.median(control["parallel_per_s"])
        row("attachments per second, 8 in parallel", f"{rate:.0f}", "200", rate >= 200)
        rate = statistics.median(control["one_connection_per_s"])
        row("attachments per second, one connection", f"{rate:.0f}", "60", rate >= 60)
        memory = control["agent_mib"]
        row("agent memory, 3 hosts and 100 endpoints", f"{memory:.0f} MiB", "60 MB", memory <= 57.2)
        idle = control["idle_cpu_percent"]
        row("agent idle, the same", f"{idle:.2f} % of a core", "0.5 %", idle <= 0.5)
        later = control["agent_after_mib"]
        row("the same after 2,300 more attaches and detaches", f"{later:.0f} MiB", "", None)
        none = statistics.median(control["start_none_s"])
        row("agent start to answering, no endpoints", f"{none:.2f} s", "0.4 s", none <= 0.4)
        many = statistics.median(control["start_many_s"])
        row("agent start to answering, 1,000 endpoints", f"{many:.2f} s", "1.5 s", many <= 1.5)
        if "docker_connect_ms" in control:
            _docker_rows(control, row)
    if program:
        rate = statistics.median(program["per_s"])
        row("rows per second: plan, diff, apply", f"{rate:,.0f}", "100,000", rate >= 100_000)
        idle_s = statistics.median(program["nothing_to_do_s"])
        row(f"{program['rows']:,} rows, nothing to do", f"{idle_s:.2f} s", "1 s", idle_s <= 1)
    return lines


def _docker_rows(
    control: dict[str, Any], row: Callable[[str, str, str, bool | None], None]
) -> None:
    took = statistics.median(control["docker_connect_ms"])
    row("`docker network connect`", f"median {took:.0f} ms", "", None)
    answer = statistics.median(control["docker_first_answer_ms"])
    row("a ping from afar is answered after it returned", f"median {answer:.0f} ms", "", None)
    first, second = control["docker_mib"]
    row("memory of dockerd and containerd", f"{first:.0f} + {second:.0f} MiB", "", None)


def _verdict(met: bool) -> str:
    return "ok" if met else "MISSED"


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that `share` (0 to 1) of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _spread(values: Sequence[float]) -> str:
    digits = 0 if max(values) >= 100 else 1
    shown = (
        f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values))
    )
    return "{} ({} to {})".format(*shown)


def picture(result: dict[str, Any]) -> str:
    """Return the data plane's results as a bar chart in SVG."""
    data = result["data"]
    bars, y = [], 40
    for key, title in _TITLES.items():
        bars.append(f'<text x="10" y="{y}" font-weight="bold">{title}, {_UNITS[key]}</text>')
        largest = max(statistics.median(samples[key]) for samples in data.values())
        for name, samples in data.items():
            y += 22
            value = statistics.median(samples[key])
            width = round(360 * value / largest)
            colour = "#c2410c" if name == OURS else "#94a3b8"
            bars.append(f'<text x="10" y="{y}">{name}</text>')
            bars.append(f'<rect x="190" y="{y - 13}" width="{width}" height="16" fill="{colour}"/>')
            bars.append(f'<text x="{196 + width}" y="{y}">{value:,.0f}</text>')
        y += 40
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="640" height="{y}" '
    style = 'font-family="sans-serif" font-size="13">'
    return "\n".join([head + style, *bars, "</svg>"]) + "\n"


_NOTES = """\
## How

Hosts are namespaces connected by veth pairs and a bridge.
Each pair of hosts between which packets are measured has its own veth pair as a direct cable.
Docker has two separate hosts, because its rules and connection tracking would slow down the others.
The underlay and the hand-made VXLAN are on two hosts without overlayd, and overlayd is on two more.
There, the underlay is measured once more ("beside overlayd"),
with a network exposed and a port published.
Each round measures every contender once, and each round starts with another one.
A ratio is the median of the rounds' ratios; brackets show the extremes.
`iperf3` sends and receives on the same two cores, and throughput is what they have left.
So only ratios are meaningful.
All programs run with real-time priority (`chrt -f`), so that other load matters less.
The round trip of the flood ping is the time from packet to packet.
Requests of 1 and 128 bytes are answered by as many; each connection has one under way.
Docker runs with its own defaults except for the data path port.
The hand-made VXLAN is a bridge, a VTEP and fixed rows.

Not measured here:

- a real network card, which would do checksum and segmentation offload of VXLAN;
- more than two cores;
- encrypted overlays;
- anything with other load on the machine.
"""
