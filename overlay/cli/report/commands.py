"""Run a program for its output, bounded in time and size."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from typing import TYPE_CHECKING

from overlay import limits

if TYPE_CHECKING:
    from collections.abc import Sequence


def output_of(words: Sequence[str], size_max: int = limits.REPORT_FILE_SIZE_MAX) -> str:
    """Return what a program prints, below its command line; never raises.

    A program that is missing, fails, hangs or prints too much says so in the text.
    """
    head = f"$ {' '.join(words)}\n"
    try:
        process = subprocess.Popen(
            list(words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C", "PAGER": "cat"},
            start_new_session=True,
        )
    except OSError as error:
        return f"{head}(cannot run {words[0]}: {error.strerror})\n"
    expired = threading.Event()
    timer = threading.Timer(limits.REPORT_COMMAND_TIMEOUT_S, _kill, (process, expired))
    timer.start()
    try:
        assert process.stdout is not None
        raw = process.stdout.read(size_max + 1)
        if len(raw) > size_max:  # it has more to say
            _kill(process)
        code = process.wait()
        process.stdout.close()
    finally:
        timer.cancel()
    text = raw.decode(errors="replace")
    if expired.is_set():
        text += f"\n(stopped after {limits.REPORT_COMMAND_TIMEOUT_S:g} s)\n"
    elif code > 0:
        text += f"(exit code {code})\n"
    return head + text


def _kill(process: subprocess.Popen[bytes], expired: threading.Event | None = None) -> None:
    """Kill a program and those that it has started; they may hold its output open."""
    if expired is not None:
        expired.set()
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
