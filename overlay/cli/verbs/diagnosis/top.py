"""Command `top`: what networks and containers of this host carry, as it happens.

Owns: rates from two readings, and their lines. Does not: count anything; the kernel does.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from overlay.cli import output
from overlay.cli.screen import terminal
from overlay.client.api import ApiClient, JsonObject
from overlay.errors import AgentNotRunningError, TimedOutError, UsageError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterator

    from overlay.cli.parser import VerbGroup

INTERVAL_S = 1.0
DESCRIPTION = """\
Show what each network and container of this host receives and sends, every second, the busiest
first.  On a terminal q or Ctrl-C ends it; in a pipe it prints a line for each.

IN and OUT are as the container sees them; TUNNEL is what the host exchanges with others.  Networks
of the drivers macvlan and ipvlan have no counters on the host.

  overlayd top
  overlayd top --network blue --count 10 --json
"""
UNITS = ("bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s")
COUNTERS = ("receive_bytes", "receive_packets", "transmit_bytes", "transmit_packets")


def register(words: VerbGroup) -> None:
    """Add the verb."""
    top = words.verb("top", run_top, "show live rates of networks and containers", DESCRIPTION)
    top.add_argument("--network", metavar="NETWORK", help="this network only")
    top.add_argument("--count", type=int, metavar="N", help="end after so many updates")


def run_top(args: Namespace) -> int:
    """Show rates until Ctrl-C, `q` or the count."""
    if args.count is not None and args.count < 1:
        raise UsageError("--count must be 1 or more", hint="Such as 10", field="count")
    traffic = _Traffic(ApiClient(args.paths), args.network)
    traffic.update()  # an agent that does not run is an error, not a screen
    try:
        if terminal.can_redraw() and not args.json:
            _show_screen(traffic, args.count)
        else:
            _print_lines(traffic, args.count, as_json=args.json)
    except KeyboardInterrupt:
        pass
    return 0


class _Traffic:
    """The newest reading of the counters, each with its rates since the one before."""

    def __init__(self, client: ApiClient, network: str | None) -> None:
        self.shown: JsonObject = {"networks": [], "endpoints": []}
        self._client = client
        self._network = network

    def update(self) -> None:
        """Read the counters; raises OverlayError."""
        found = self._client.get("/v1/traffic")
        for kind in ("networks", "endpoints"):
            found[kind] = [each for each in found[kind] if self._network in (None, each["network"])]
        passed_s = found["read_at_s"] - self.shown.get("read_at_s", found["read_at_s"])
        if passed_s <= 0 and "read_at_s" in self.shown:
            return  # the agent has not read them again yet
        for kind in ("networks", "endpoints"):
            before = {_key(each): each for each in self.shown[kind]}
            for each in found[kind]:
                each["rates"] = _rates(each, before.get(_key(each)), passed_s)
        self.shown = found


def _key(item: JsonObject) -> tuple[str, str]:
    return (item["network"], item.get("endpoint", ""))


def _rates(now: JsonObject, before: JsonObject | None, passed_s: float) -> JsonObject:
    """Return bytes and packets per second of a network or endpoint; zeros at first."""
    parts = ("counters",) if "counters" in now else ("containers", "tunnel")
    return {
        part: _part_rates(now[part], None if before is None else before[part], passed_s)
        for part in parts
    }


def _part_rates(
    now: JsonObject | None, before: JsonObject | None, passed_s: float
) -> JsonObject | None:
    if now is None:
        return None
    if before is None or passed_s <= 0:
        return dict.fromkeys(COUNTERS, 0.0)
    grown = {  # one that fell began again from zero
        name: now[name] - before[name] if now[name] >= before[name] else now[name]
        for name in COUNTERS
    }
    return {name: round(count / passed_s, 1) for name, count in grown.items()}


# --- lines ----------------------------------------------------------------------------------


def _print_lines(traffic: _Traffic, count: int | None, *, as_json: bool) -> None:
    """Print each update; an error ends it."""
    for _ in _numbers(count):
        time.sleep(INTERVAL_S)
        traffic.update()
        if as_json:
            output.print_json_line(traffic.shown)
            continue
        clock = time.strftime("%H:%M:%S")
        for kind, part in (("networks", "containers"), ("endpoints", "counters")):
            for each in _busiest(traffic.shown[kind], part):
                subject = "/".join(filter(None, _key(each)))
                output.print_result(f"{clock}  {subject}  {_both_ways(each['rates'][part])}")
        sys.stdout.flush()


def _numbers(count: int | None) -> Iterator[int]:
    number = 0
    while count is None or number < count:
        yield number
        number += 1


def _both_ways(rates: JsonObject) -> str:
    return (
        f"in {bit_text(rates['receive_bytes'])} {rates['receive_packets']:.0f} packets/s"
        f"  out {bit_text(rates['transmit_bytes'])} {rates['transmit_packets']:.0f} packets/s"
    )


# --- the screen -----------------------------------------------------------------------------


def _show_screen(traffic: _Traffic, count: int | None) -> None:
    """Redraw the terminal every second until a key ends it; wait for an agent that is away."""
    from overlay.cli.screen.keyboard import whole_screen  # noqa: PLC0415  only for a terminal
    from overlay.cli.screen.watch import draw  # noqa: PLC0415  as above

    with whole_screen() as wait_for_key:
        draw(screen_lines(traffic.shown, "measuring"))
        for _ in _numbers(count):
            if _is_ended(wait_for_key):
                return
            try:
                traffic.update()
                draw(screen_lines(traffic.shown, time.strftime("%H:%M:%S")))
            except (AgentNotRunningError, TimedOutError) as error:
                draw(error.report().splitlines())


def _is_ended(wait_for_key: Callable[[float], str]) -> bool:
    """Wait for the next update; return whether `q` was pressed meanwhile."""
    until = time.monotonic() + INTERVAL_S
    while (left_s := until - time.monotonic()) > 0:
        if "q" in wait_for_key(left_s).lower():
            return True
    return False


def screen_lines(shown: JsonObject, moment: str) -> list[str]:
    """Return the lines of the screen."""
    networks, endpoints = shown["networks"], shown["endpoints"]
    title = (
        f"overlayd top   {moment}   {output.count_text(len(networks), 'network')}, "
        f"{output.count_text(len(endpoints), 'container')}   q ends"
    )
    network_rows = [
        (
            each["network"],
            *_cells(each["rates"]["containers"]),
            *_cells(each["rates"]["tunnel"]),
        )
        for each in _busiest(networks, "containers")
    ]
    endpoint_rows = [
        (each["endpoint"], each["network"], *_cells(each["rates"]["counters"]), each["container"])
        for each in _busiest(endpoints, "counters")
    ]
    ways = ("IN", "PACKETS", "OUT", "PACKETS")
    lines = [terminal.paint(title, "bold"), ""]
    if network_rows:
        tunnel = ("TUNNEL IN", "PACKETS", "TUNNEL OUT", "PACKETS")
        lines += [*output.table(("NETWORK", *ways, *tunnel), network_rows).splitlines(), ""]
    if endpoint_rows:
        headers = ("CONTAINER", "NETWORK", *ways, "TARGET")
        lines += output.table(headers, endpoint_rows).splitlines()
    return lines


def _cells(rates: JsonObject | None) -> tuple[str | None, ...]:
    if rates is None:
        return (None, None, None, None)
    return (
        bit_text(rates["receive_bytes"]),
        f"{rates['receive_packets']:.0f}/s",
        bit_text(rates["transmit_bytes"]),
        f"{rates['transmit_packets']:.0f}/s",
    )


def _busiest(items: list[JsonObject], part: str) -> list[JsonObject]:
    """Return networks or endpoints by their rate, the greatest first, then by name."""

    def order(item: JsonObject) -> tuple[float, tuple[str, str]]:
        rates = item["rates"][part]
        return (-(rates["receive_bytes"] + rates["transmit_bytes"]), _key(item))

    return sorted(items, key=order)


def bit_text(bytes_per_s: float) -> str:
    """Return a rate in bits per second with a unit: `812 bit/s`, `1.2 Mbit/s`."""
    value, power = 8 * bytes_per_s, 0
    while value >= 999.5 and power < len(UNITS) - 1:
        value, power = value / 1000, power + 1
    digits = 1 if power and value < 99.5 else 0
    return f"{value:.{digits}f} {UNITS[power]}"
