"""A steady stream of numbered packets, to count what a fault costs: `python -m` in a namespace.

    send ADDRESS PORT PER_SECOND      until standard input ends; then says how many
    receive PORT                      until standard input ends; then says which came, and when

Every packet carries a number of 8 bytes. Times are the monotonic clock's, which all lab hosts
share. Standard library only, and no import of ours: it runs inside containers.
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


def send(address: str, port: int, per_second: int) -> dict[str, Any]:
    """Send numbered packets at a steady rate; a packet that the kernel refuses counts as sent."""
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
    """Note every packet: how many, which are missing, the longest silence."""
    seen: set[int] = set()
    times: list[float] = []
    duplicates = 0
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        receiver.setsockopt(socket.SOL_SOCKET, 33, _BUFFER_SIZE)  # SO_RCVBUFFORCE
        receiver.bind(("::", port))
        print("ready", flush=True)
        over = False
        while True:
            readable = select.select([receiver, *([] if over else [sys.stdin])], [], [], _POLL_S)[0]
            if receiver in readable:
                (number,) = NUMBER.unpack(receiver.recv(64))
                duplicates += number in seen
                seen.add(number)
                times.append(time.monotonic())
            elif over:
                break  # silence after the end: nothing is under way any more
            over = over or sys.stdin in readable
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


def main(words: list[str]) -> int:
    """Run one end."""
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
