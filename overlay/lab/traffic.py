"""A steady stream of numbered packets, to count those that a fault costs.

Run as a program in a namespace:

    send ADDRESS PORT PER_SECOND      until standard input ends; then prints how many
    receive PORT                      until standard input ends; then prints which, and when

The receiver may be told in the end how many were sent, and then waits longer for those under way.
Every packet carries a number of 8 bytes. Times are of the monotonic clock, which all lab hosts
share, and those of arrivals are the kernel's: a loaded machine may run the receiver much later.
Uses only the standard library, as it runs inside containers.
"""

from __future__ import annotations

import itertools
import json
import select
import socket
import struct
import sys
import time
from typing import Any

NUMBER = struct.Struct("!Q")
_BUFFER_SIZE = 16 * 1024 * 1024
_BURST_MAX = 50  # after a stall of the machine: catch up, but not all at once
_POLL_S = 0.5
_LATE_S = 2.0  # a packet that is still missing may be under way so long
_STAMP = struct.Struct("@qq")  # struct timespec
_SO_TIMESTAMPNS = 35  # asm-generic/socket.h; messages with the time have the same number


def send(address: str, port: int, per_second: int) -> dict[str, Any]:
    """Send numbered packets at a steady rate.

    Packets that the kernel refuses count as sent.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sent, refused = 0, 0
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.connect((address, port))
        started = time.monotonic()
        while True:
            due = min(int((time.monotonic() - started) * per_second) - sent, _BURST_MAX)
            for _ in range(due):
                try:
                    sender.send(NUMBER.pack(sent))
                except OSError:
                    refused += 1
                sent += 1
            if select.select([sys.stdin], [], [], 1 / per_second)[0]:
                return {"sent": sent, "refused": refused}


def receive(port: int) -> dict[str, Any]:
    """Receive packets until standard input ends; it may have their number.

    Returns their number, the missing ones, and the longest silence.
    """
    seen: set[int] = set()
    times: list[float] = []
    duplicates = 0
    expected = 0
    since_boot_s = time.monotonic() - time.time()
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        receiver.setsockopt(socket.SOL_SOCKET, 33, _BUFFER_SIZE)  # SO_RCVBUFFORCE
        receiver.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        receiver.bind(("::", port))
        print("ready", flush=True)
        ended = False
        while True:
            waited_s = _LATE_S if len(seen) < expected else _POLL_S
            sources = [receiver, *([] if ended else [sys.stdin])]
            readable = select.select(sources, [], [], waited_s)[0]
            if receiver in readable:
                data, messages, _, _ = receiver.recvmsg(64, socket.CMSG_SPACE(_STAMP.size))
                (number,) = NUMBER.unpack(data)
                duplicates += number in seen
                seen.add(number)
                times.append(_arrived(messages) + since_boot_s)
            elif ended:
                break  # silence after the end: no packet is under way
            if sys.stdin in readable:
                ended, expected = True, int(sys.stdin.readline() or 0)
    last = max(seen, default=-1)
    missing = [number for number in range(last + 1) if number not in seen]
    silences = [after - before for before, after in itertools.pairwise(times)]
    return {
        "received": len(seen),
        "last": last,
        "missing": missing[:1000],
        "duplicates": duplicates,
        "first_at": times[0] if times else None,
        "last_at": times[-1] if times else None,
        "silence_max_s": round(max(silences, default=0.0), 3),
    }


def _arrived(messages: list[tuple[int, int, bytes]]) -> float:
    """Return when the kernel received a packet, in seconds since 1970."""
    stamps = (data for _, kind, data in messages if kind == _SO_TIMESTAMPNS)
    seconds, nanoseconds = _STAMP.unpack(next(stamps))
    return float(seconds + nanoseconds / 1e9)


def main(words: list[str]) -> int:
    """Run the sender or the receiver; return the exit code."""
    match words:
        case ["send", address, port, per_second]:
            print(json.dumps(send(address, int(port), int(per_second))))
        case ["receive", port]:
            print(json.dumps(receive(int(port))))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
