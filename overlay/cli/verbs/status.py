"""Commands `status`, `verify`, `metrics` and `events`.

Owns: their output, and which states count as degraded. Does not: collect the facts itself.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from overlay.cli import output
from overlay.cli.screen import terminal
from overlay.cli.verbs.networks.plug import plugs_text
from overlay.client.api import LOOK_TIMEOUT_S, TIMEOUT_S, ApiClient, JsonObject
from overlay.errors import (
    AgentNotRunningError,
    DegradedError,
    NotFoundError,
    TimedOutError,
    UsageError,
)

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator, Sequence

    from overlay.cli.parser import VerbGroup
    from overlay.client.paths import Paths

WAIT_TIMEOUT_S = 30.0
POLL_INTERVAL_S = 0.1
# Drops that follow from the start of an agent: its peers still use the sessions of the one before.
DROPS_OF_A_START = frozenset({"late-response", "no-session", "unknown-generation"})
DROPS_PER_MEMBER = 10
NETWORKS_FOLDED_MIN = 4  # idle ones
NETWORKS_NAMED_MAX = 8
SECONDS_BY_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def register(words: VerbGroup) -> None:
    """Add the verbs of this module."""
    status = words.verb("status", run_status, "show node, cluster, networks and health", watch=True)
    status.add_argument("--all", action="store_true", help="also show idle networks and all drops")
    status.add_argument(
        "--check",
        action="store_true",
        help="print only problems; exit 4 if there are any",
    )
    status.add_argument(
        "--wait",
        action="store_true",
        help=f"wait until healthy; exit 7 after --timeout SECONDS (default: {WAIT_TIMEOUT_S:.0f})",
    )
    verify = words.verb(
        "verify", run_verify, "compare the kernel with the records (exit 4: differences)"
    )
    verify.add_argument("--repair", action="store_true", help="repair the differences")
    words.verb("metrics", run_metrics, "print metrics in Prometheus format", json=False)
    events = words.verb("events", run_events, "show recent events", json=False)
    events.add_argument("--json", action="store_true", help="print one JSON object per event")
    events.add_argument(
        "--kind",
        dest="kinds",
        action="append",
        default=[],
        metavar="KIND",
        help="only events of this kind, such as member; may be repeated",
    )
    events.add_argument(
        "--since",
        metavar="TIME",
        help="an age such as 10m (s, m, h or d), or seconds since 1970",
    )
    events.add_argument(
        "--follow",
        action="store_true",
        help="keep printing new events (without --since: only those)",
    )


def run_metrics(args: Namespace) -> int:
    """Print the agent's metrics."""
    output.print_result(ApiClient(args.paths).get_text("/metrics").rstrip("\n"))
    return 0


def run_status(args: Namespace) -> int:
    """Show the status."""
    if args.wait:
        status = _wait(args.paths, WAIT_TIMEOUT_S if args.timeout is None else args.timeout)
    else:
        status = ApiClient(args.paths).look("/v1/status")
    faults = faults_in(status)
    if args.json:
        output.print_json(status)
    elif not args.check:
        output.print_result(status_text(status, show_all=args.all))
    if not args.check:
        return 0
    if not args.json:
        output.print_result(_painted("degraded" if faults else "ok"))
    for fault in faults:
        output.print_note(f"  {fault}")
    return DegradedError.exit_code if faults else 0


def faults_in(status: JsonObject) -> list[str]:
    """Return the problems of a status: the agent's health lines, and rows not programmed."""
    faults = [f"{item['level']}: {item['text']}" for item in status["health"]]
    if status["cluster"] is None:
        return faults or ["this host is not in a cluster"]
    for network in status["networks"]:
        rows = network["rows"]
        if rows["desired"] != rows["actual"]:
            faults.append(
                f"network {network['name']}: {rows['actual']} of {rows['desired']} rows programmed"
            )
        elif network["sandbox"] == "degraded" and not faults:
            faults.append(f"network {network['name']}: its sandbox is degraded")
    if status["cluster"]["partitioned"] and not faults:
        faults.append("this host is partitioned from the others")
    return faults


def _wait(paths: Paths, timeout_s: float) -> JsonObject:
    deadline = time.monotonic() + timeout_s
    while True:
        left_s = max(POLL_INTERVAL_S, deadline - time.monotonic())
        try:
            status = ApiClient(paths, min(LOOK_TIMEOUT_S, left_s)).look("/v1/status")
            faults = faults_in(status)
            if not faults:
                return status
        except (AgentNotRunningError, TimedOutError) as error:
            faults = [error.what]
        if time.monotonic() >= deadline:
            raise TimedOutError(
                f"still degraded after {timeout_s:g} s",
                why="\n".join(faults),
                hint="overlayd status",
            )
        time.sleep(POLL_INTERVAL_S)


def status_text(status: JsonObject, *, show_all: bool = False) -> str:
    """Return the status for people, one line per subject; `show_all` folds and hides nothing."""
    node, cluster = status["node"], status["cluster"]
    name = f"{node['name']} ({node['id']})" if node else "(not joined)"
    lines = [
        (
            "Node",
            (
                f"{name}   overlayd {status['version']}   up {output.duration(status['uptime_s'])}"
                f"   config {status['config'] or 'defaults'}"
            ),
        ),
        ("Cluster", _cluster_text(cluster)),
    ]
    if node:
        lines += [
            (
                "Datapath",
                (
                    f"vxlan {status['vxlan_port']}/udp   {node['address']} on {node['interface']}"
                    f"   mtu {node['underlay_mtu']} -> overlay {status['overlay_mtu']}"
                    f"   gossip {status['gossip_port']}/udp{_data_path(status)}{_gate(status)}"
                ),
            ),
            ("Networks", "\n".join(_network_texts(status, show_all)) or "none"),
        ]
    if status.get("recovery"):
        lines.append(("Recovery", status["recovery"]))
    drops = _drops(status, show_all)
    if drops:
        lines.append(("Drops", "   ".join(f"{reason} {n}" for reason, n in drops.items())))
    health = "\n".join(
        f"{_painted(item['level'].upper())}{' ' * (6 - len(item['level']))}{item['text']}"
        + _next(item)
        for item in status["health"]
    )
    lines.append(("Health", health or _painted("ok")))
    notices = "\n".join(f"{item['text']}{_next(item)}" for item in status.get("notices", ()))
    if notices:
        lines.append(("Notices", notices))
    return output.key_value_lines(lines)


def _next(item: JsonObject) -> str:
    return f"\n      next: {output.runnable(item['hint'])}" if item.get("hint") else ""


def _painted(state: str) -> str:
    return terminal.paint(state, terminal.state_style(state))


def _drops(status: JsonObject, show_all: bool) -> dict[str, int]:
    """Return the drops to show: not the few that each start of a member causes."""
    drops = {reason: count for reason, count in sorted(status["drops"].items()) if count}
    if show_all:
        return drops
    members = 1 if status["cluster"] is None else sum(status["cluster"]["members"].values())
    usual = DROPS_PER_MEMBER * members
    return {
        reason: count
        for reason, count in drops.items()
        if reason not in DROPS_OF_A_START or count > usual
    }


def _cluster_text(cluster: JsonObject | None) -> str:
    if cluster is None:
        return "none"
    members = cluster["members"]
    total = sum(count for state, count in members.items() if state != "left")
    states = ", ".join(
        terminal.paint(f"{count} {state}", terminal.state_style(state))
        for state, count in members.items()
        if count
    )
    text = f"{cluster['id']}   {output.count_text(total, 'node')}: {states}"
    holders = cluster.get("authority_holders")  # an older agent does not say
    if holders is not None:
        text += f"   authority held by {output.count_text(holders, 'node') if holders else 'none'}"
    if cluster["partitioned"]:
        split = cluster["partitioned"]
        split_text = f"PARTITIONED: sees {split['seen']} of {split['total']}"
        text += f"   {terminal.paint(split_text, 'red')}"
    return text


def _network_texts(status: JsonObject, show_all: bool) -> Iterator[str]:
    networks, native = status["networks"], status.get("native_path") or {}
    general = native.get("why")  # the line of the data path says it
    idle = [] if show_all else [network["name"] for network in networks if _is_idle(network)]
    if len(idle) < NETWORKS_FOLDED_MIN:
        idle = []
    shown = [network for network in networks if network["name"] not in idle]
    width = max((len(network["name"]) for network in shown), default=0)
    for network in shown:
        ranges = " ".join(network["subnets"])
        rows = network["rows"]
        kernel = {
            "absent": "no sandbox here",
            "none": f"{network.get('driver')} on {network.get('parent')}",
        }.get(
            network["sandbox"],
            f"sandbox {_painted(network['sandbox'])}   {_rows_text(rows)}",
        )
        yield (
            f"{network['name']:<{width}}   vni {network['vni']}   {ranges}"
            f"   {output.count_text(network['endpoints_total'], 'endpoint')}"
            f" ({network['endpoints_local']} here)   {kernel}{_policies_text(network)}"
            f"{_path_text(network, general)}"
        )
        yield from (f"{'':<{width}}   plug {line}" for line in plugs_text(network).splitlines())
    if idle:
        names = " ".join(idle[:NETWORKS_NAMED_MAX]) + (" ..." if idle[NETWORKS_NAMED_MAX:] else "")
        yield terminal.paint(
            f"{output.count_text(len(idle), 'network')} without a container here: {names}", "dim"
        )


def _path_text(network: JsonObject, general: str | None) -> str:
    """Return why a network takes a slower path than this host's others; nothing if it does not."""
    why = network.get("data_path_why")
    return "" if not why or why == general else f"   {network['data_path']} path: {why}"


def _policies_text(network: JsonObject) -> str:
    """Return what decides on connections, and where they may lead; nothing without both."""
    count = network.get("policies")  # an older agent does not say
    policies = f"   {count} {'policy' if count == 1 else 'policies'}" if count else ""
    words = ("default deny", "isolate ports")
    policies += "".join(f"   router {name}" for name in network.get("routers") or ())
    return policies + "".join(f"   {word}" for word in words if network.get(word.replace(" ", "_")))


def _is_idle(network: JsonObject) -> bool:
    """Return whether this host has nothing on a network."""
    return network["endpoints_local"] == 0 and network["sandbox"] in ("absent", "none")


def _rows_text(rows: JsonObject) -> str:
    text = f"rows {rows['actual']}/{rows['desired']}"
    return text if rows["actual"] == rows["desired"] else terminal.paint(text, "red")


def run_verify(args: Namespace) -> int:
    """Compare the kernel with the records."""
    timeout_s = args.paths.timeout_s
    if timeout_s is None:
        with contextlib.suppress(NotFoundError):  # an agent of before
            ApiClient(args.paths).get("/healthz")  # one that hangs is told from a busy one
    client = ApiClient(  # the agent reads every sandbox
        args.paths, TIMEOUT_S if timeout_s is None else timeout_s
    )
    found = client.get("/v1/verify", repair=1 if args.repair else None)
    differences = found["differences"]
    if args.json:
        output.print_json(found)
    else:
        for difference in differences:
            output.print_result(f"{difference['network']}: {difference['text']}")
        if not differences:
            output.print_note("no differences: the kernel matches the records")
        elif found["repaired"]:
            output.print_note(f"{output.count_text(len(differences), 'difference')} repaired")
        elif args.repair:
            output.print_note("some differences could not be repaired; see: overlayd status")
        else:
            output.print_note("to repair: sudo overlayd verify --repair")
    return DegradedError.exit_code if differences and not found["repaired"] else 0


def run_events(args: Namespace) -> int:
    """Show events; with --follow, keep printing new ones."""
    client = ApiClient(args.paths)
    _require_kinds(args.kinds)
    if args.follow:
        return _follow(client, args)
    listed = client.get("/v1/events", since=parse_since(args.since, time.time()))
    found = [event for event in listed["events"] if _is_wanted(event, args.kinds)]
    for event in found:
        if args.json:
            output.print_json_line(event)
        else:
            output.print_result(event_line(event))
    if not found:
        output.print_note("no events")
    return 0


def _require_kinds(kinds: Sequence[str]) -> None:
    """Raise UsageError for a kind that no event has."""
    if not kinds:
        return
    from overlay.agent.process.event_kinds import EVENT_KINDS  # noqa: PLC0415  rarely needed

    for kind in kinds:
        if kind not in EVENT_KINDS:
            known = ", ".join(sorted(EVENT_KINDS))
            raise UsageError(f"unknown kind {kind!r}", hint=f"Use one of {known}", field="kinds")


def _is_wanted(event: JsonObject, kinds: Sequence[str]) -> bool:
    return not kinds or event["kind"] in kinds


def _follow(client: ApiClient, args: Namespace) -> int:
    now = time.time()
    since = parse_since(args.since, now)
    for event in client.stream("/v1/events", since=now if since is None else since, follow=1):
        if not _is_wanted(event, args.kinds):
            continue
        if args.json:
            output.print_json_line(event)
        else:
            print(event_line(event), flush=True)
    output.print_note("the agent has exited")
    return AgentNotRunningError.exit_code


def parse_since(text: str | None, now: float) -> float | None:
    """Return the time of `--since` in seconds since 1970; raises UsageError."""
    if text is None:
        return None
    unit = SECONDS_BY_UNIT.get(text[-1:])
    try:
        return float(text) if unit is None else now - float(text[:-1]) * unit
    except ValueError as error:
        raise UsageError(
            f"invalid time {text!r}",
            hint="Use an age such as 30s, 10m, 2h or 1d, or seconds since 1970",
            field="since",
        ) from error


def event_line(event: JsonObject) -> str:
    """Return one event in one line: time, kind, subject, text."""
    seconds = event["time"]
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    moment = f"{clock}.{int(seconds % 1 * 1000):03}"
    about = " ".join(str(event[key]) for key in ("network", "endpoint", "peer") if event.get(key))
    return "  ".join(part for part in (moment, event["kind"], about, event["text"]) if part)


def _gate(status: JsonObject) -> str:
    """Return whether the gate translates, with which ports, and if not, why."""
    gate = status.get("gate") or {}
    if not gate.get("active"):
        return f"   gate off ({gate['why']})" if gate.get("why") else ""
    ports = gate.get("ports")  # None: an agent of before
    return f"   gate on (ports {ports['first']}-{ports['last']})" if ports else "   gate on"


def _data_path(status: JsonObject) -> str:
    """Return whether the eBPF paths are on, and if not, why."""
    found, native = status.get("fast_path"), status.get("native_path")
    if found is None:
        return ""
    if not found["active"]:
        return f"   fast path off ({found['why']})"
    if native is None or native["mode"] == "off":  # None: an agent of before
        return "   fast path on"
    if not native["active"]:
        return f"   fast path on   native path off ({native['why']})"
    return "   native path on"
