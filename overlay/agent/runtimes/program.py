"""Run a container runtime's own program, with a bound on its time; call it in a thread."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import Final

from overlay.errors import OverlayError

TIMEOUT_S: Final = 15.0  # of a program that waits for its daemon


@dataclass(frozen=True, slots=True)
class ProgramResult:
    """The output of a program that has ended."""

    code: int
    out: str
    err: str


def run_program(*words: str, timeout_s: float = TIMEOUT_S) -> ProgramResult | None:
    """Run a program to its end; None if it is not installed.

    Raises OverlayError if it cannot be started, or does not end in time.
    """
    program = shutil.which(words[0])
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *words[1:]],
            capture_output=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise OverlayError(
            f"{words[0]} does not answer",
            why=f"it has not ended within {timeout_s:g} s",
            hint=f"Try it yourself: {' '.join(words)}",
        ) from error
    except OSError as error:
        raise OverlayError(
            f"cannot run {program}",
            why=str(error),
            hint=f"Try it yourself: {' '.join(words)}",
        ) from error
    out, err = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
    return ProgramResult(done.returncode, out, err.strip())
