"""The entry point: exit codes, error reports, and start-up cost."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from overlay.errors import ERROR_BY_CODE
from overlay.unix_http import UnixConnection

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent, Run


def test_without_an_agent_the_exit_code_is_3(overlayd: Run) -> None:
    """Without a socket, stderr has the cause and the next step, and stdout is empty."""
    outcome = overlayd("status")

    assert (outcome.code, outcome.out) == (3, "")
    assert "error: no agent runs on this host" in outcome.err
    assert "api.sock" in outcome.err
    assert "sudo overlayd join" in outcome.err


def test_a_stale_socket_means_that_the_agent_died(overlayd: Run, agent: FakeAgent) -> None:
    """A socket without a listener is distinguished from a missing socket."""
    path = agent.run_dir / "api.sock"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))  # bound and closed: connections are refused
    outcome = overlayd("status")

    assert outcome.code == 3
    assert "has died" in outcome.err


@pytest.mark.parametrize("code", sorted(ERROR_BY_CODE))
def test_each_error_of_the_agent_has_its_exit_code(
    overlayd: Run, agent: FakeAgent, code: str
) -> None:
    """The code in the agent's answer decides the exit code; its three texts are shown."""
    kind = ERROR_BY_CODE[code]
    agent.fail("GET /v1/status", code, kind.http_status, what="W", why="Y", hint="H")
    outcome = overlayd("status")

    assert outcome.code == kind.exit_code
    assert outcome.err == "error: W\n  why:   Y\n  next:  H\n"


def test_with_json_an_error_is_an_object_too(overlayd: Run, agent: FakeAgent) -> None:
    """With --json, stdout has a JSON object even on failure."""
    agent.fail("GET /v1/networks/blue", "not-found", 404, what="no network blue")
    outcome = overlayd("network", "inspect", "blue", "--json")

    assert outcome.code == 5
    answer = json.loads(outcome.out)
    assert answer["schema"] == "overlayd.error/v1"
    assert answer["error"]["code"] == "not-found"


def test_an_answer_that_is_not_json_is_reported(overlayd: Run, agent: FakeAgent) -> None:
    """Another program on the socket causes one clear error and no traceback."""
    agent.answer("GET /v1/status", b"hello")
    outcome = overlayd("status")

    assert outcome.code == 1
    assert "not a JSON object" in outcome.err


def test_an_error_that_is_not_json_is_reported(overlayd: Run, agent: FakeAgent) -> None:
    """A plain HTTP error is shown with its status."""
    agent.answer("GET /v1/status", b"boom", 500)
    outcome = overlayd("status")

    assert outcome.code == 1
    assert "HTTP 500" in outcome.err
    assert "boom" in outcome.err


@pytest.mark.parametrize(
    "words", [("nettwork",), ("network",), ("attach", "web"), ("status", "--chekc")]
)
def test_a_wrong_line_exits_with_2(overlayd: Run, words: tuple[str, ...]) -> None:
    """Usage errors exit with 2 and print the usage to stderr, and nothing to stdout."""
    outcome = overlayd(*words)

    assert (outcome.code, outcome.out) == (2, "")
    assert "usage: overlayd" in outcome.err


def test_a_mistyped_verb_gets_the_nearest_one(overlayd: Run) -> None:
    """The error suggests the closest command, or lists the few allowed values."""
    assert "unknown command 'nettwork'; did you mean 'network'?" in overlayd("nettwork").err
    assert "did you mean 'inspect'?" in overlayd("network", "inspct", "x").err
    assert (
        "SHELL: invalid value 'tcsh'; use one of bash, zsh, fish"
        in overlayd("completion", "tcsh").err
    )


def test_usage_errors_are_in_plain_words(overlayd: Run) -> None:
    """The error names the option and the value it needs, not argparse's own message."""
    attach = ("attach", "web", "--network", "blue")

    assert "error: no command given" in overlayd("network").err
    assert "error: unexpected argument: x" in overlayd("version", "x").err
    assert "missing: --network" in overlayd("attach", "web").err
    assert "--ip needs a value" in overlayd(*attach, "--ip").err
    wrong = overlayd(*attach, "--gateway-priority", "high").err
    assert "--gateway-priority takes a whole number, not 'high'" in wrong
    unknown = overlayd("token", "ls", "--bogus").err
    assert "error: unknown option --bogus\n" in unknown
    assert "next:  overlayd token ls --help" in unknown


@pytest.mark.parametrize("verb", ["lab", "sim"])
def test_lab_and_sim_get_their_words_unparsed(
    overlayd: Run, verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The words after lab or sim go to their own main, whose exit code is returned."""
    import types  # noqa: PLC0415

    stand_in = types.ModuleType(f"overlay.{verb}.main")

    def main(words: list[str]) -> int:
        print(words)  # noqa: T201
        return 4

    stand_in.__dict__["main"] = main
    monkeypatch.setitem(sys.modules, f"overlay.{verb}.main", stand_in)
    outcome = overlayd("--run-dir", "/x", verb, "up", "--hosts", "3", "--", "-v")

    assert outcome.code == 4
    assert outcome.out == "['up', '--hosts', '3', '--', '-v']\n"
    assert capsys.readouterr().out == ""


def test_a_closed_pipe_is_not_an_error() -> None:
    """`overlayd --help | true` exits with 0 and prints nothing to stderr."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "overlay.cli.main", "--help"],
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
        timeout=30,
    )
    os.close(writer)

    assert (done.returncode, done.stderr) == (0, b"")


def test_status_imports_little(agent: FakeAgent) -> None:
    """Start-up stays quick: no module that takes tens of milliseconds is imported."""
    agent.fail("GET /v1/status", "failed", 500)
    slow = "asyncio aiohttp pyroute2 msgpack cryptography subprocess dataclasses shutil tomllib"
    text = (
        "import sys; from overlay.cli.main import main; main(['status']);"
        f"print([name for name in '{slow}'.split() if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", text],
        env={"OVERLAYD_RUN_DIR": str(agent.run_dir), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )

    assert done.stdout == "[]\n"


def test_a_socket_path_that_is_too_long_has_a_hint(overlayd: Run, tmp_path: Path) -> None:
    """A run directory longer than a socket address allows gives a hint, not a traceback."""
    outcome = overlayd("--run-dir", str(tmp_path / ("x" * 120)), "status")

    assert outcome.code == 1
    assert "shorter --run-dir" in outcome.err


def test_an_answer_that_cannot_be_written_is_an_error() -> None:
    """With stdout on a full disk, the exit code is 1 and there is no traceback."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "overlay.cli.main", "version"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "error: cannot write the answer"
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_configuration_errors_name_the_files_keys(overlayd: Run, tmp_path: Path) -> None:
    """Not the options that mean the same: the file has none."""
    path = tmp_path / "overlayd.toml"
    for text, told in (
        ('fast_path = "fast"', "fast_path must be auto, on or off"),
        ('docker_networks = "on"', "docker_networks must be auto or off"),
        ("state_dir = 5", "state_dir must be"),
        ("statedir = 5", "unknown key 'statedir'"),
    ):
        path.write_text(text)
        outcome = overlayd("agent", "--config", str(path))

        assert outcome.code == 2
        assert told in outcome.err
        assert "--fast-path" not in outcome.err
        assert "--state-dir" not in outcome.err


def test_looking_verbs_give_up_sooner(
    overlayd: Run, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --timeout, a question has 5 s, a change 65 s, and so has one for all sandboxes."""
    agent.answer("GET /healthz", {"status": "ok", "issues": 0})
    seen: list[float] = []
    connect = UnixConnection.connect

    def record(connection: UnixConnection) -> None:
        seen.append(connection.timeout or 0.0)
        connect(connection)

    monkeypatch.setattr(UnixConnection, "connect", record)
    for line in ("members", "network rm a", "verify"):
        overlayd(*line.split())

    assert seen == [5.0, 65.0, 5.0, 65.0]
