"""Command `ping`: real echo requests from a container of this host, and the way that they take.

Owns: the options, the loop, and what is printed. Does not: find containers (the agent does), or
know packets (`kernel.icmp_echo`).
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from overlay.cli import output
from overlay.client.api import ApiClient, JsonObject
from overlay.errors import ConflictError, OverlayError, UsageError
from overlay.limits import IP_PACKET_SIZE_MAX
from overlay.model import parse_ip

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup
    from overlay.kernel.icmp_echo import EchoAnswer, IcmpEcho

_SIZE_DEFAULT = 56  # as ping(8)
_INTERVAL_MIN_S = 0.01
_KIND_TEXTS = {
    "fast": "fast path (eBPF)",
    "bridge": "through the bridge",
    "parent": "by the parent interface",
}


def register(words: VerbGroup) -> None:
    """Add the verb of this module."""
    ping = words.verb(
        "ping",
        run_ping,
        "send echo requests from a container here to one anywhere",
        "Send echo requests (ICMP or ICMPv6) from a container of this host to a container of the\n"
        "cluster, and show the way that they take.  Ctrl-C shows the summary.\n"
        "Exits with 0 if any was answered, else with 1.  --json prints one object a line.\n\n"
        "  sudo overlayd ping db\n"
        "  sudo overlayd ping 10.32.0.7 --from web -c 3\n"
        "  sudo overlayd ping db --size 1422     the largest that fits, in IPv4 with 1450 bytes\n"
        "  overlayd ping db -c 0                 show the way only",
    )
    ping.add_argument("target", metavar="ENDPOINT", help="name, alias or address")
    ping.add_argument(
        "--from",
        dest="source",
        metavar="CONTAINER",
        help="a container of this host (default: the first one on the network of ENDPOINT)",
    )
    ping.add_argument("--network", metavar="NETWORK", help="where a name is on several")
    ping.add_argument("-c", "--count", type=_count, metavar="N", help="stop after N requests")
    ping.add_argument(
        "-i", "--interval", type=_positive, default=1.0, metavar="S", help="seconds between two"
    )
    ping.add_argument(
        "-W", "--wait", type=_positive, default=1.0, metavar="S", help="seconds for each answer"
    )
    ping.add_argument(
        "-s",
        "--size",
        type=_size,
        default=_SIZE_DEFAULT,
        metavar="BYTES",
        help="of the payload; headers add 28 (IPv6: 48), and nothing is sent in fragments",
    )
    family = ping.add_mutually_exclusive_group()
    family.add_argument("-4", dest="family", action="store_const", const="4", help="IPv4 only")
    family.add_argument("-6", dest="family", action="store_const", const="6", help="IPv6 only")


@dataclass(slots=True)
class _Tally:
    """The counts of requests and answers."""

    sent: int = 0
    times_ms: list[float] = field(default_factory=list)


def run_ping(args: Namespace) -> int:
    """Show the way, then send until told to stop."""
    found = ApiClient(args.paths).get(
        "/v1/ping",
        target=args.target,
        source=args.source,
        network=args.network,
        family=args.family,
    )
    if args.json:
        output.print_json_line(found)
    else:
        output.print_result("\n".join(_way_lines(found)))
    if args.count == 0:
        return 0
    tally = _Tally()
    with _opened(found, args.size) as echo, contextlib.suppress(KeyboardInterrupt):
        _send_all(args, echo, tally)
    _show_summary(args, found, tally)
    return 0 if tally.times_ms else 1


# --- sending ----------------------------------------------------------------------------


def _send_all(args: Namespace, echo: IcmpEcho, tally: _Tally) -> None:
    started = time.monotonic()
    while args.count is None or tally.sent < args.count:
        tally.sent += 1
        refusal = echo.send(tally.sent)
        if refusal:
            _show(args, tally, tally.sent, None, refusal)
        else:
            _await(args, echo, tally)
        if args.count is None or tally.sent < args.count:
            _rest(args, echo, tally, started + tally.sent * args.interval)


def _await(args: Namespace, echo: IcmpEcho, tally: _Tally) -> None:
    """Show what answers the newest request, and earlier ones that come late."""
    deadline = time.monotonic() + args.wait
    while (answer := echo.wait(deadline)) is not None:
        _show_answer(args, tally, answer)
        if answer.sequence == tally.sent & 0xFFFF:
            return
    _show(args, tally, tally.sent, None, f"no answer within {args.wait:g} s")


def _rest(args: Namespace, echo: IcmpEcho, tally: _Tally, until: float) -> None:
    while (answer := echo.wait(until)) is not None:
        _show_answer(args, tally, answer)


def _show_answer(args: Namespace, tally: _Tally, answer: EchoAnswer) -> None:
    number = tally.sent - ((tally.sent - answer.sequence) & 0xFFFF)
    _show(args, tally, number, answer.seconds * 1000, answer.problem)


@contextlib.contextmanager
def _opened(found: JsonObject, size: int) -> Iterator[IcmpEcho]:
    """Open the socket where the source is; raises OverlayError."""
    from overlay.cli.packets import namespace  # noqa: PLC0415  not needed to show the way only
    from overlay.kernel.icmp_echo import IcmpEcho  # noqa: PLC0415  as above

    source, target = found["source"], found["target"]
    with namespace.opened(found) as descriptor:
        try:
            echo = IcmpEcho(descriptor, parse_ip(source["ip"]), parse_ip(target["ip"]), size)
        except OSError as error:
            raise _not_opened(source, error) from error
    with contextlib.closing(echo):
        yield echo


def _not_opened(source: JsonObject, error: OSError) -> OverlayError:
    if error.errno == errno.EADDRNOTAVAIL:
        return ConflictError(
            f"{source['name']} does not have its address {source['ip']}",
            why="a program in the container has removed it, or its interface is gone",
            hint="overlayd verify --repair",
        )
    return OverlayError(
        f"cannot send from {source['name']}",
        why=error.strerror or str(error),
        hint="A raw socket needs CAP_NET_RAW, which sudo gives",
    )


# --- output -----------------------------------------------------------------------------


def _way_lines(found: JsonObject) -> list[str]:
    source, target = found["source"], found["target"]
    lines = [
        f"{_party(source)} to {_party(target)}, network {found['network']}",
        f"way   {_way(found)}",
    ]
    if target["kind"] == "outside":
        lines.append("note  no agent runs there: BGP EVPN has the address")
    elif target["kind"] == "plugged":
        lines.append("note  no agent runs there: it is a machine behind a plugged interface")
    elif target["node_state"] not in ("alive", "left"):
        lines.append(f"note  the agent of {target['node']} is {target['node_state']}")
    return lines + [f"note  {text}" for text in _notes(found)]


def _party(party: JsonObject) -> str:
    where = "on this host" if party["kind"] == "gateway" else f"on {party['node']}"
    return f"{party['name']} ({party['ip']}) {where}"


def _way(found: JsonObject) -> str:
    way = found["way"]
    if way["kind"] == "parent":
        return "the parent interface, without overlayd"
    parts = []
    if way["peer_vtep"]:
        parts.append(f"VXLAN {way['local_vtep']} to {way['peer_vtep']}, VNI {way['vni']}")
    else:
        parts.append("within this host")
    if way["routed"]:
        target = found.get("target_network", found["network"])
        is_elsewhere = target != found["network"]
        where = f"to network {target}" if is_elsewhere else "between two subnets"
        parts.append(f"routed by the gateway {where}")
    parts += [_KIND_TEXTS[way["kind"]], f"packets up to {way['fits']} bytes fit"]
    return ", ".join(parts)


def _notes(found: JsonObject) -> Iterator[str]:
    probed, target = found["way"]["probed"], found["target"]
    if found["source"]["kind"] == "gateway":
        yield "no container here is on this network: sent from its gateway"
    if probed is None:
        return
    if probed["sending"] in ("lost", "damaged"):
        yield f"probes to {target['node']} do not arrive: overlayd members"
    elif probed["sending"] == "silent":
        yield f"{target['node']} reports no probes: overlayd members"
    if probed["receiving"] in ("lost", "damaged"):
        yield f"probes from {target['node']} do not arrive here: overlayd members"


def _show(args: Namespace, tally: _Tally, number: int, ms: float | None, problem: str) -> None:
    """Print what happened to one request."""
    if ms is not None and not problem:
        tally.times_ms.append(ms)
    if args.json:
        output.print_json_line(
            {
                "schema": "overlayd.ping-echo/v1",
                "sequence": number,
                "ms": None if ms is None or problem else round(ms, 3),
                "problem": problem or None,
            }
        )
    else:
        print(f"{number:<5} {problem or f'{ms:.3f} ms'}", flush=True)


def _show_summary(args: Namespace, found: JsonObject, tally: _Tally) -> None:
    times, sent = tally.times_ms, tally.sent
    lost = 100 * (sent - len(times)) / sent if sent else 0.0
    if args.json:
        output.print_json_line(
            {
                "schema": "overlayd.ping-summary/v1",
                "sent": sent,
                "answered": len(times),
                "min_ms": round(min(times), 3) if times else None,
                "average_ms": round(sum(times) / len(times), 3) if times else None,
                "max_ms": round(max(times), 3) if times else None,
            }
        )
        return
    text = f"{sent} sent, {len(times)} answered, {lost:.0f} % lost"
    if times:
        average = sum(times) / len(times)
        text += f"; min {min(times):.3f}, average {average:.3f}, max {max(times):.3f} ms"
    output.print_result(text)
    if sent and not times:
        names = f"{found['source']['name']} {found['target']['name']}"
        output.print_note(f"next:  overlayd trace {names}   (where packets would be dropped)")


# --- options ----------------------------------------------------------------------------


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise UsageError(f"invalid count {text!r}", hint="A number, such as 5; 0 sends nothing")
    return int(text)


def _positive(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not _INTERVAL_MIN_S <= seconds <= 3600:
        raise UsageError(
            f"invalid number of seconds {text!r}", hint=f"From {_INTERVAL_MIN_S:g} to 3600"
        )
    return seconds


def _size(text: str) -> int:
    largest = IP_PACKET_SIZE_MAX - 60  # the longest header of IPv4
    size = int(text) if text.isdecimal() and len(text) < 9 else -1
    if not 0 <= size <= largest:
        raise UsageError(f"invalid size {text!r}", hint=f"From 0 to {largest} bytes")
    return size
