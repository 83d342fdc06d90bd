"""Throughput, packets, round trips and requests of each contender, in interleaved rounds."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Sequence
from typing import Any

from scripts.benchmark import requests
from scripts.benchmark.contenders import Contender

MEASURES = ("tcp", "udp", "rtt", "request", "requests")
_PORT = "5999"
_PING_COUNT = 20_000
_TRIES = 20
_TOOK = re.compile(r"time (\d+)ms")
# Ahead of all other programs, so that other load on the machine hardly matters.
FIRST = ("chrt", "-f", "1") if shutil.which("chrt") else ()

Samples = dict[str, dict[str, list[float]]]
"""Contender -> measure -> one value per round: Mbit/s, packets/s, microseconds, responses/s."""


def measure(
    contenders: Sequence[Contender], rounds: int, seconds: int, tell: Callable[[str], None]
) -> Samples:
    """Measure every contender once per round, starting with another one each time."""
    contenders = [each.prefixed(FIRST, FIRST) for each in contenders]
    samples: Samples = {each.name: {name: [] for name in MEASURES} for each in contenders}
    for number in range(rounds):
        tell(f"round {number + 1} of {rounds}")
        turn = number % len(contenders)
        for contender in [*contenders[turn:], *contenders[:turn]]:
            found = samples[contender.name]
            found["tcp"].append(tcp(contender, seconds))
            found["udp"].append(udp(contender, seconds))
            found["rtt"].append(rtt(contender))
            found["request"].append(requests.rate(contender, seconds, size=1, connections=1))
            found["requests"].append(requests.rate(contender, seconds, size=128, connections=16))
    return samples


def tcp(contender: Contender, seconds: int) -> float:
    """Return the throughput of one stream as received, in Mbit/s."""
    end = _iperf(contender, seconds)["end"]
    return float(end["sum_received"]["bits_per_second"]) / 1e6


def udp(contender: Contender, seconds: int) -> float:
    """Return the 64-byte datagrams received per second from a sender at full speed."""
    shown = _iperf(contender, seconds, "-u", "-b", "0", "-l", "64")["end"]["sum"]
    return (float(shown["packets"]) - float(shown["lost_packets"])) / float(shown["seconds"])


def rtt(contender: Contender) -> float:
    """Return the time from packet to packet of a flood ping, in microseconds."""
    one, two = contender.ends
    shown = one.run("ping", "-f", "-q", "-c", str(_PING_COUNT), two.address)
    found = _TOOK.search(shown)
    assert found is not None, shown
    return 1000 * int(found[1]) / _PING_COUNT


def _iperf(contender: Contender, seconds: int, *options: str) -> Any:
    one, two = contender.ends
    two.run("iperf3", "-s", "-1", "-D", "-p", _PORT)
    command = ("iperf3", "-c", two.address, "-p", _PORT, "-t", str(seconds), "-J", *options)
    for _ in range(_TRIES):
        with contextlib.suppress(RuntimeError):  # the server may not listen yet
            return json.loads(one.run(*command))
    return json.loads(one.run(*command))
