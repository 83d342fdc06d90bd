"""Command `capture`: a container's frames, decapsulated, on this host and at the far end.

Owns: the options, and the last words. Does not: read frames (`cli.capture`), or find containers
(the agent does).
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from overlay import limits
from overlay.cli import output
from overlay.client.api import ApiClient, JsonObject
from overlay.errors import DegradedError, ForbiddenError, UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.capture.interface import InterfaceCounts
    from overlay.cli.capture.session import CaptureResult
    from overlay.cli.capture.sinks import CaptureSink
    from overlay.cli.capture.sources import FarSource, LocalSource
    from overlay.cli.parser import VerbGroup
    from overlay.core.capture.classic_bpf import Program
    from overlay.strict_arguments import StrictParser

_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}
_MIB = 2**20


def register(words: VerbGroup) -> None:
    """Add the verb of this module."""
    capture = words.verb(
        "capture",
        run_capture,
        "show or record the packets of a container here",
        "Show the packets of a container of this host, as it sends and receives them: outside\n"
        "VXLAN, before any encryption, and also those of the fast path.  -w writes a pcapng file\n"
        "for Wireshark; its comments name host, direction, VNI and VTEPs.  With --both-ends the\n"
        "peer's host captures, too, and both are merged by time.  Needs root.\n"
        "Exits with 0, or with 4 if the far end was wanted and could not be captured.\n"
        "--json prints one object a line.\n\n"
        "  sudo overlayd capture web --seconds 10\n"
        "  sudo overlayd capture web --filter 'tcp port 5432' --count 20\n"
        "  sudo overlayd capture web --peer db --both-ends -w web-db.pcapng",
    )
    capture.add_argument(
        "container", metavar="ENDPOINT", help="name, alias, address or target of a container here"
    )
    capture.add_argument(
        "--peer", metavar="ENDPOINT", help="only packets from and to it: name, alias or address"
    )
    capture.add_argument(
        "--both-ends", action="store_true", help="capture at the peer, on whichever host, too"
    )
    capture.add_argument("--network", metavar="NETWORK", help="one of its networks only")
    capture.add_argument(
        "-f",
        "--filter",
        default="",
        metavar="EXPRESSION",
        help="only packets that match, as for tcpdump: pcap-filter(7)",
    )
    _add_bounds(capture)


def _add_bounds(capture: StrictParser) -> None:
    """Add where packets go, and when the capture ends."""
    capture.add_argument(
        "-w", "--write", metavar="FILE", help="write a pcapng file; - writes to stdout"
    )
    capture.add_argument(
        "--seconds",
        type=_seconds,
        default=limits.CAPTURE_SECONDS_DEFAULT,
        metavar="S",
        help=f"end after S seconds (default: {limits.CAPTURE_SECONDS_DEFAULT:g})",
    )
    capture.add_argument(
        "-c",
        "--count",
        type=_count,
        default=limits.CAPTURE_FRAMES_DEFAULT,
        metavar="N",
        help=f"end after N packets (default: {limits.CAPTURE_FRAMES_DEFAULT})",
    )
    capture.add_argument(
        "--max-size",
        type=_size,
        default=limits.CAPTURE_FILE_SIZE_DEFAULT,
        metavar="BYTES",
        help="end when so much is written, such as 500K, 64M, 2G "
        f"(default: {limits.CAPTURE_FILE_SIZE_DEFAULT // _MIB}M)",
    )
    capture.add_argument(
        "-s",
        "--snap",
        type=_snap,
        default=limits.CAPTURE_SNAP_MAX,
        metavar="BYTES",
        help=f"keep so much of each packet (default: all; {limits.CAPTURE_PEER_SNAP_MAX} of those "
        "that another host sends)",
    )


def run_capture(args: Namespace) -> int:
    """Capture until something ends it, and say what has come of it."""
    _require_possible(args)
    from overlay.cli.capture.sources import FarSource, LocalSource  # noqa: PLC0415  rarely needed

    program = _program(args)
    client = ApiClient(args.paths)
    words = {"container": args.container, "peer": args.peer, "network": args.network}
    found = client.get("/v1/capture", **words, both_ends=1 if args.both_ends else None)
    with contextlib.ExitStack() as undo:
        local: list[LocalSource] = []
        for tap in found["taps"]:
            source = LocalSource(tap, program or _all(), args.snap)
            undo.enter_context(source.tap)
            local.append(source)
        far = None
        if found["far"] is not None:
            words["network"] = found["far"]["network"]
            far = FarSource(client, found["far"], program, args.snap, words)
        return _captured(args, found, local, far)


def _captured(
    args: Namespace, found: JsonObject, local: list[LocalSource], far: FarSource | None
) -> int:
    from overlay.cli.capture.session import CaptureBounds, CaptureSession  # noqa: PLC0415  as above

    bounds = CaptureBounds(args.seconds, args.count, args.max_size)
    with contextlib.closing(_sink(args, found)) as sink:
        result = CaptureSession(local, far, sink, bounds, found["way"] or "").run()
        counts = _counts(local, far, result)
        sink.finish(counts)
    if not args.json:
        _show_summary(local, far, result, counts)
    elif args.write != "-":
        output.print_json_line(_summary(far, result, counts))
    return DegradedError.exit_code if result.is_partial else 0


def _sink(args: Namespace, found: JsonObject) -> CaptureSink:
    from overlay.cli.capture.interface import KnownAddresses  # noqa: PLC0415  as above
    from overlay.cli.capture.sinks import FileSink, JsonSink, LineSink  # noqa: PLC0415  as above

    known = KnownAddresses(found["addresses"])
    if args.write is not None:
        note = f"overlayd capture {args.container}" + (f" --peer {args.peer}" if args.peer else "")
        return FileSink(args.write, args.snap, args.filter, note, known)
    return JsonSink(known) if args.json else LineSink()


def _counts(
    local: list[LocalSource], far: FarSource | None, result: CaptureResult
) -> list[InterfaceCounts]:
    from overlay.cli.capture.interface import InterfaceCounts  # noqa: PLC0415  as above

    counts: list[InterfaceCounts] = []
    for source in local:
        source.tap.read_counts()
        captured = result.counts[source.interface]
        counts.append(InterfaceCounts(source.interface, captured, source.tap.dropped))
    if far is not None:
        note = f"{far.lost} messages of it were lost on the way" if far.lost else ""
        captured = result.counts[far.interface]
        counts.append(InterfaceCounts(far.interface, captured, far.dropped, note))
    return counts


def _summary(
    far: FarSource | None, result: CaptureResult, counts: list[InterfaceCounts]
) -> JsonObject:
    clock = None if far is None else far.clock
    return {
        "schema": "overlayd.capture-summary/v1",
        "ended": result.ended,
        "seconds": round(result.seconds, 3),
        "partial": result.is_partial,
        "clock_ahead_ms": None if clock is None else round(clock[0] / 1e6, 3),
        "clock_error_ms": None if clock is None else round(clock[1] / 1e6, 3),
        "lost_messages": 0 if far is None else far.lost,
        "interfaces": [
            {
                "node": at.node,
                "container": at.container,
                "interface": at.ifname,
                "captured": captured,
                "dropped": dropped,
            }
            for at, captured, dropped, _ in counts
        ],
    }


def _show_summary(
    local: list[LocalSource],
    far: FarSource | None,
    result: CaptureResult,
    counts: list[InterfaceCounts],
) -> None:
    from overlay.cli.capture.session import clock_text  # noqa: PLC0415  as above

    parts = [
        f"{captured} of {at.container} on {at.node}" + (f" ({dropped} dropped)" if dropped else "")
        for at, captured, dropped, _ in counts
    ]
    output.print_note(
        f"{result.total} packets in {result.seconds:.1f} s: {', '.join(parts)}; {result.ended}"
    )
    if any(each.dropped for each in counts):
        output.warn(
            "packets were dropped, because they came faster than they can be taken",
            "--filter takes fewer of them, --snap 128 less of each",
        )
    if far is None:
        return
    if far.clock is not None:
        output.print_note(clock_text(far, local[0].interface.node))
    if far.lost:
        output.warn(
            f"{far.lost} messages with packets of {far.interface.node} were lost on the way",
            "A filter (--filter) or --snap makes them fewer",
        )


def _require_possible(args: Namespace) -> None:
    if args.both_ends and args.peer is None:
        raise UsageError(
            "--both-ends needs --peer",
            why="another host shows only what it exchanges with a container of this one",
            hint=f"sudo overlayd capture {args.container} --peer ENDPOINT --both-ends",
        )
    if args.json and args.write == "-":
        raise UsageError("--json and -w - both write to stdout", hint="Give -w a file")
    if os.geteuid() != 0:
        raise ForbiddenError("only root may capture packets", hint="Use sudo")


def _program(args: Namespace) -> Program | None:
    """Return the compiled filter; raises OverlayError."""
    if not args.filter.strip():
        return None
    from overlay.kernel.capture import libpcap  # noqa: PLC0415  only a filter needs it

    program = libpcap.compiled(args.filter)
    if args.both_ends and len(program) > limits.CAPTURE_PEER_FILTER_MAX:
        raise UsageError(
            f"the filter {args.filter!r} is too long for the far end",
            why=f"it has {len(program)} instructions, and one message has room for "
            f"{limits.CAPTURE_PEER_FILTER_MAX}",
            hint="Use a simpler filter, or leave --both-ends out",
        )
    return program


def _all() -> Program:
    from overlay.core.capture.classic_bpf import ALL  # noqa: PLC0415  rarely needed

    return ALL


# --- options ----------------------------------------------------------------------------


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= limits.CAPTURE_SECONDS_MAX:
        raise UsageError(
            f"invalid number of seconds {text!r}",
            hint=f"Above 0, and up to {limits.CAPTURE_SECONDS_MAX:.0f}, which is a week",
        )
    return seconds


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > 12 or int(text) == 0:
        raise UsageError(f"invalid count {text!r}", hint="A number of packets, such as 100")
    return int(text)


def _size(text: str) -> int:
    unit = text[-1:].upper()
    digits = text[:-1] if unit in _UNITS else text
    is_number = digits.isdecimal() and len(digits) < 14
    size = int(digits) * _UNITS.get(unit, 1) if is_number else 0
    if not 0 < size <= limits.CAPTURE_FILE_SIZE_MAX:
        raise UsageError(
            f"invalid size {text!r}", hint="Bytes, such as 500K, 64M or 2G; up to 1024G"
        )
    return size


def _snap(text: str) -> int:
    size = int(text) if text.isdecimal() and len(text) < 9 else 0
    if not 1 <= size <= limits.CAPTURE_SNAP_MAX:
        raise UsageError(
            f"invalid size {text!r}", hint=f"From 1 to {limits.CAPTURE_SNAP_MAX} bytes a packet"
        )
    return size
