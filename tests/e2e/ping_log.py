"""Read from the output of a ping which of its packets had no answer."""

from __future__ import annotations

import re


def lost_pings(log: str, under_way_max: int) -> list[int]:
    """Return the numbers of the pings without an answer; ping has ended.

    It does not wait for the answers to its last packets, so up to `under_way_max` may lack one.
    """
    summary = re.search(r"(\d+) packets transmitted", log)
    assert summary is not None, log[-300:]
    answered = {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", log)}
    sent, last = int(summary[1]), max(answered, default=0)
    end = last if sent - last <= under_way_max else sent + 1
    return sorted(set(range(1, end)) - answered)


def last_begun(log: str) -> float:
    """Return when the last answered ping was sent, in seconds since 1970; 0: none. Needs -D."""
    times = re.findall(r"\[([\d.]+)\] .* time=([\d.]+) ms", log)
    return max((float(at) - float(took_ms) / 1000 for at, took_ms in times), default=0.0)
