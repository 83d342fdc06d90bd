"""Requests and responses over TCP: many small packets both ways, with all cores busy."""

from __future__ import annotations

import subprocess
import tempfile
from functools import cache
from pathlib import Path

from scripts.benchmark.contenders import Contender

_SOURCE = Path(__file__).with_suffix(".c")
_PORT = "5998"
_END_TIMEOUT_S = 30.0


@cache
def _program() -> str:
    """Compile the program; return its path. A script would measure its interpreter."""
    made = Path(tempfile.mkdtemp(prefix="overlayd-bench-")) / "requests"
    subprocess.run(["cc", "-O2", "-o", str(made), str(_SOURCE)], check=True)
    return str(made)


def rate(contender: Contender, seconds: int, *, size: int, connections: int) -> float:
    """Return the responses per second, of `size` bytes each."""
    one, two = contender.ends
    server = subprocess.Popen([*two.enter, _program(), "server", _PORT, str(size)])
    try:
        words = ("client", _PORT, str(size), two.address, str(connections), str(seconds))
        shown = one.run(_program(), *words)
        server.wait(_END_TIMEOUT_S)
    finally:
        server.kill()
        server.wait()
    return float(shown)
