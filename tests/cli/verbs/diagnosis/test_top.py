"""Command top: rates, lines and the screen."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest
from overlay.cli.verbs.diagnosis import top
from overlay.cli.verbs.diagnosis.top import bit_text, screen_lines
from tests.fake_agent import FakeAgent, Run

ROOT = Path(__file__).parents[4]


def counters(number: int) -> dict[str, int]:
    """Return counters that all have one value."""
    return dict.fromkeys(top.COUNTERS, number)


def reading(at_s: float, number: int, **changed: Any) -> dict[str, Any]:
    """Return an answer of GET /v1/traffic, with changes."""
    network = {"network": "blue", "containers": counters(number), "tunnel": counters(number)}
    endpoint = {"network": "blue", "endpoint": "web", "container": "docker:web"}
    return {
        "schema": "overlayd.traffic/v1",
        "read_at_s": at_s,
        "networks": [network],
        "endpoints": [{**endpoint, "counters": counters(number)}],
    } | changed


class Readings:
    """Gives one answer after the other in place of the agent."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self._answers = list(answers)

    def get(self, _path: str) -> dict[str, Any]:
        """Return the next answer."""
        return self._answers.pop(0)


def rates_after(*answers: dict[str, Any]) -> dict[str, Any]:
    """Return the newest answer with its rates."""
    traffic = top._Traffic(Readings(*answers), None)  # type: ignore[arg-type]  # what it uses of it
    for _ in answers:
        traffic.update()
    return traffic.shown


def test_a_rate_is_growth_by_time() -> None:
    """By the clock of the readings, not that of this program."""
    shown = rates_after(reading(10.0, 1000), reading(12.0, 1500))
    assert shown["networks"][0]["rates"]["containers"]["receive_bytes"] == 250.0
    assert shown["endpoints"][0]["rates"]["counters"]["transmit_packets"] == 250.0


def test_a_counter_that_began_again_is_no_negative_rate() -> None:
    """The interface was made again, or the agent was."""
    shown = rates_after(reading(10.0, 1000), reading(11.0, 40))
    assert shown["networks"][0]["rates"]["tunnel"]["receive_bytes"] == 40.0


def test_one_reading_twice_keeps_the_rates() -> None:
    """The agent reads at most twice a second."""
    shown = rates_after(reading(10.0, 0), reading(11.0, 7), reading(11.0, 7))
    assert shown["networks"][0]["rates"]["containers"]["receive_bytes"] == 7.0


def test_a_new_container_and_a_network_without_tunnel_are_shown() -> None:
    """Without a rate at first, and with a dash."""
    bridge = [{"network": "home", "containers": counters(5), "tunnel": None}]
    shown = rates_after(reading(1.0, 0, endpoints=[]), reading(2.0, 5, networks=bridge))
    assert shown["endpoints"][0]["rates"]["counters"]["receive_bytes"] == 0.0
    (row,) = [line for line in screen_lines(shown, "now") if line.startswith("home")]
    assert row.split()[-4:] == ["-", "-", "-", "-"]


def test_the_busiest_come_first() -> None:
    """Both ways count; equals are in order of name."""

    def of(name: str, number: int) -> dict[str, Any]:
        return {"network": "blue", "endpoint": name, "container": "x", "counters": counters(number)}

    before = reading(1.0, 0, endpoints=[of(name, 0) for name in "abc"])
    after = reading(2.0, 0, endpoints=[of("a", 5), of("b", 9), of("c", 5)])
    lines = screen_lines(rates_after(before, after), "now")
    found = lines[next(n for n, line in enumerate(lines) if line.startswith("CONTAINER")) + 1 :]
    assert [line.split()[0] for line in found] == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (0, "0 bit/s"),
        (101.5, "812 bit/s"),
        (125, "1.0 kbit/s"),
        (150_000, "1.2 Mbit/s"),
        (15_000_000, "120 Mbit/s"),
        (1.25e9, "10.0 Gbit/s"),
        (1e15, "8000 Tbit/s"),
    ],
)
def test_rates_have_units(rate: float, text: str) -> None:
    """Three digits or fewer, in powers of a thousand."""
    assert bit_text(rate) == text


def test_a_pipe_gets_lines(
    overlayd: Run, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One for each network and container, for as many updates as asked."""
    monkeypatch.setattr(top, "INTERVAL_S", 0.0)
    agent.answer("GET /v1/traffic", reading(1.0, 0))
    outcome = overlayd("top", "--count", "3")
    assert (outcome.code, outcome.err) == (0, "")
    lines = [line.split("  ") for line in outcome.out.splitlines()]
    assert [line[1] for line in lines] == ["blue", "blue/web"] * 3
    assert "\x1b" not in outcome.out


def test_json_is_an_object_a_line_with_rates(
    overlayd: Run, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent's answer, with rates at each network and container; --network leaves others out."""
    monkeypatch.setattr(top, "INTERVAL_S", 0.0)
    agent.answer("GET /v1/traffic", reading(1.0, 0))
    outcome = overlayd("top", "--count", "2", "--json")
    objects = [json.loads(line) for line in outcome.out.splitlines()]
    assert len(objects) == 2
    assert objects[1]["networks"][0]["rates"]["tunnel"]["receive_bytes"] == 0.0
    others = json.loads(overlayd("top", "--count", "1", "--json", "--network", "red").out)
    assert (others["networks"], others["endpoints"]) == ([], [])


def test_bad_counts_and_no_agent_are_errors(overlayd: Run) -> None:
    """A screen is not shown for nothing."""
    assert overlayd("top", "--count", "0").code == 2
    assert overlayd("top").code == 3


@pytest.mark.parametrize("end", [b"q", b"\x03"])
@pytest.mark.usefixtures("interruptible")
def test_the_screen_ends_cleanly(agent: FakeAgent, tmp_path: Path, end: bytes) -> None:
    """`q` and Ctrl-C exit with 0, and the terminal is as it was."""
    agent.answer("GET /v1/traffic", reading(1.0, 0))
    main, other = pty.openpty()
    before = termios.tcgetattr(other)
    program = "import sys; from overlay.cli.main import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "--run-dir", str(agent.run_dir), "top"],
        stdin=other,
        stdout=other,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=os.environ | {"TERM": "xterm", "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    try:
        shown = read_until(main, b"CONTAINER")
        assert b"blue" in shown
        if end == b"\x03":
            process.send_signal(signal.SIGINT)  # as its controlling terminal would
        else:
            os.write(main, end)
        rest = read_until(main, b"\x1b[?1049l")
        assert b"\x1b[?25h" in rest
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (0, b"")
        assert termios.tcgetattr(other) == before
    finally:
        process.kill()
        process.communicate()
        os.close(main)
        os.close(other)


def read_until(descriptor: int, text: bytes) -> bytes:
    """Read from a terminal until a text appears."""
    found = b""
    deadline = time.monotonic() + 60
    while text not in found:
        ready, _, _ = select.select([descriptor], [], [], deadline - time.monotonic())
        assert ready, found
        assert time.monotonic() < deadline, found
        found += os.read(descriptor, 4096)
    return found
