"""Command `trace`: what packets between two containers meet on both hosts, and one real attempt.

Owns: the options, and what is printed. Does not: judge (the agents do), or send anything
(`cli.packets.attempt`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.cli import output
from overlay.client.api import ApiClient, JsonObject
from overlay.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup

_MARKS = {"ok": "ok", "warn": "warn", "drop": "DROP", "unknown": "?"}
_UNKNOWN_EXIT_CODE = 4


def register(words: VerbGroup) -> None:
    """Add the verb of this module."""
    trace = words.verb(
        "trace",
        run_trace,
        "explain what packets between two containers meet, on both hosts",
        "Explain what packets from container A to container B meet, step by step on both hosts:\n"
        "what is planned from the records, compared with what the kernels have.  Then try it once\n"
        "(as root, and where A is on this host).  Nothing is changed.\n"
        "Exits with 0 if nothing would drop a packet, 1 if something would, 4 if a host did not\n"
        "answer.\n\n"
        "  sudo overlayd trace web db\n"
        "  sudo overlayd trace web 10.32.0.7 --proto tcp --dport 5432",
    )
    trace.add_argument("source", metavar="ENDPOINT", help="name, alias or address of A")
    trace.add_argument("target", metavar="ENDPOINT", help="the same of B")
    trace.add_argument("--proto", choices=("icmp", "tcp", "udp"), help="(default: icmp)")
    trace.add_argument(
        "--dport", type=_port, metavar="PORT", help="where a program should listen in B"
    )
    trace.add_argument("--network", metavar="NETWORK", help="where names are on several")
    trace.add_argument("--no-send", action="store_true", help="explain only")
    family = trace.add_mutually_exclusive_group()
    family.add_argument("-4", dest="family", action="store_const", const="4", help="IPv4 only")
    family.add_argument("-6", dest="family", action="store_const", const="6", help="IPv6 only")


def run_trace(args: Namespace) -> int:
    """Explain the way, try it, and say what follows."""
    protocol = args.proto or ("icmp" if args.dport is None else "tcp")
    if args.dport is not None and protocol == "icmp":
        raise UsageError("--dport needs --proto tcp or udp", why="ICMP has no ports")
    client = ApiClient(args.paths)
    found = client.get(
        "/v1/trace",
        source=args.source,
        target=args.target,
        network=args.network,
        family=args.family,
        protocol=protocol,
        port=args.dport,
    )
    found["attempt"] = None if args.no_send else _attempt(client, found)
    if args.json:
        output.print_json(found)
    else:
        output.print_result("\n".join(_lines(found)))
    outcome, attempt = found["verdict"]["outcome"], found["attempt"]
    if outcome == "drop" or (attempt is not None and attempt["answered"] is False):
        return 1
    if found["target"]["kind"] == "outside" and attempt is not None and attempt["answered"]:
        return 0  # no agent there can say more
    return _UNKNOWN_EXIT_CODE if outcome == "unknown" else 0


def _attempt(client: ApiClient, found: JsonObject) -> JsonObject | None:
    from overlay.cli.packets import attempt  # noqa: PLC0415  not needed with --no-send

    return attempt.attempt(client, found)


# --- output -----------------------------------------------------------------------------


def _lines(found: JsonObject) -> list[str]:
    source, target, verdict = found["source"], found["target"], found["verdict"]
    port = f" port {found['port']}" if found["port"] is not None else ""
    ends = " to ".join(
        f"{each['name']} ({each['ip']}) on {each['node']}" for each in (source, target)
    )
    lines = [f"{ends}, network {found['network']}, {found['protocol']}{port}"]
    for leg in found["legs"]:
        lines += _leg_lines(leg)
    lines += ["", f"verdict  {verdict['text']}"]
    if found["attempt"] is not None:
        lines.append(f"tried    {found['attempt']['text']}")
        if found["attempt"]["last_seen"]:
            lines.append(f"seen     {found['attempt']['last_seen']}")
    if verdict["hint"]:
        lines.append(f"next     {verdict['hint']}")
    elif found["attempt"] is not None and found["attempt"]["answered"] is False:
        lines.append(f"next     {_after_failed_attempt(found)}")
    return lines


def _after_failed_attempt(found: JsonObject) -> str:
    """Return what to do where only the attempt has failed."""
    return (
        f"Look for a filter in {found['target']['name']} (nft list ruleset in its namespace), and "
        "for one between the hosts that probes pass"
    )


def _leg_lines(leg: JsonObject) -> list[str]:
    """Return the steps of a leg; one of the answer's is a line where all is well."""
    does = "sends" if leg["phase"] == "send" else "receives"
    head = f"{leg['node']} {does}{' the answer' if leg['answer'] else ''}"
    shown = leg["findings"]
    if leg["answer"]:
        shown = [each for each in shown if each["outcome"] != "ok"]
        if not shown:
            return ["", f"{head}: all {len(leg['findings'])} steps ok"]
    width = max((len(each["step"]) for each in shown), default=0)
    return [
        "",
        head,
        *(
            f"  {_MARKS[each['outcome']]:<4}  {each['step']:<{width}}  {each['text']}"
            for each in shown
        ),
    ]


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65_535:
        raise UsageError(f"invalid port {text!r}", hint="From 1 to 65535")
    return int(text)
