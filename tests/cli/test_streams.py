"""Closed standard streams, foreign encodings and Ctrl-C end without a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

OVERLAYD = f"{sys.executable} -m overlay.cli.main"


def shell(line: str, **environ: str) -> subprocess.CompletedProcess[bytes]:
    """Run a shell's command line in which O is overlayd."""
    return subprocess.run(
        ["sh", "-c", f'O="{OVERLAYD}"; {line}'], env={**os.environ, **environ},
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip


def test_a_closed_stdout_is_an_error(tmp_path: Path) -> None:
    """The answer is lost; the message says so."""
    done = shell(f"cd {tmp_path}; $O version >&-")

    assert (done.returncode, done.stdout) == (1, b"")
    assert b"cannot write the answer" in done.stderr
    assert b"Traceback" not in done.stderr


def test_with_a_closed_stderr_no_message_is_in_the_answer(tmp_path: Path) -> None:
    """Neither an error nor anything else of stderr; the exit code remains."""
    for line, code in (("members", 3), ("nosuchverb", 2), ("members --json", 3)):
        done = shell(f"$O {line} --run-dir {tmp_path} 2>&-" if code == 3 else f"$O {line} 2>&-")

        assert done.returncode == code
        assert b"error: " not in done.stdout


def test_all_streams_may_be_closed(tmp_path: Path) -> None:
    """As a daemon starts a program."""
    done = shell(f"$O members --run-dir {tmp_path} <&- >&- 2>&-; echo $?")

    assert done.stdout == b"3\n"


@pytest.mark.parametrize("locale", ["C", "POSIX", "en_US.ISO-8859-1", ""])
def test_any_bytes_of_an_argument_are_reported(tmp_path: Path, locale: str) -> None:
    """In every locale; also characters that the terminal does not have."""
    environ = {"LC_ALL": locale, "PYTHONIOENCODING": "", "PYTHONCOERCECLOCALE": "0"}
    for name in (r"\377\376", r"\342\202\254"):
        line = f"$O container exec \"$(printf '{name}')\" true --run-dir {tmp_path}"
        done = shell(line, **environ)

        assert done.returncode == 5, done.stderr
        assert b"Traceback" not in done.stderr


def test_a_token_of_other_bytes_is_refused(tmp_path: Path) -> None:
    """From standard input, in a UTF-8 locale."""
    line = f"printf '\\377' | $O join 192.0.2.1 --token-file - --run-dir {tmp_path}"
    done = shell(line, LC_ALL="C.UTF-8")

    assert done.returncode == 2
    assert b"does not contain a join token" in done.stderr


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("line", ["version", "status --wait --timeout 60", "man"])
def test_an_interrupt_at_any_moment_leaves_no_traceback(tmp_path: Path, line: str) -> None:
    """From the first import of overlayd's on; the exit code is the shell's, or the verb's own."""
    command = [sys.executable, "-X", "importtime", "-m", "overlay.cli.main", *line.split()]
    environ = {**os.environ, "OVERLAYD_RUN_DIR": str(tmp_path)}
    for step in range(3):
        with subprocess.Popen(
            command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            # Each import is a line on stderr; these are the first ones of all verbs.
            seen = 0
            for text in process.stderr:
                seen += "overlay.cli." in text
                if seen > step:
                    break
            process.send_signal(signal.SIGINT)
            rest = process.stderr.read()

        assert process.returncode in (0, 130, -signal.SIGINT), rest
        assert "Traceback" not in rest
