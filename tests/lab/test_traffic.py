"""The receiver of numbered packets: when each arrived, and how long it waits for late ones."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from overlay.lab import traffic

PAUSE_S = 0.2


def received(deed: Callable[[subprocess.Popen[str], Callable[[int], None]], str]) -> dict[str, Any]:
    """Do something with a receiver and what sends to it; end it by the text that is returned."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, traffic.__file__, "receive", str(port)]
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) as process,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        sender.connect(("127.0.0.1", port))
        told = deed(process, partial(send, sender))
        found: dict[str, Any] = json.loads(process.communicate(told)[0])
    return found


def send(sender: socket.socket, number: int) -> None:
    """Send the packet of a number."""
    sender.send(traffic.NUMBER.pack(number))


def test_an_arrival_is_when_the_kernel_had_the_packet() -> None:
    """A receiver that runs much later, as on a loaded machine, does not move it."""
    sent: list[float] = []

    def deed(process: subprocess.Popen[str], sends: Callable[[int], None]) -> str:
        process.send_signal(signal.SIGSTOP)
        sends(0)
        sent.append(time.monotonic())
        time.sleep(PAUSE_S)
        process.send_signal(signal.SIGCONT)
        return "1\n"

    found = received(deed)

    assert found["received"] == 1
    assert found["last_at"] < sent[0] + PAUSE_S


def test_it_names_what_is_missing_and_what_came_twice() -> None:
    """With the number of those that were sent, and without."""

    def deed(_process: subprocess.Popen[str], sends: Callable[[int], None]) -> str:
        for number in (0, 2, 2, 3):
            sends(number)
        return told

    for told in ("", "5\n"):
        found = received(deed)
        shown = (found["received"], found["missing"], found["duplicates"])
        assert shown == (3, [1], 1), told
