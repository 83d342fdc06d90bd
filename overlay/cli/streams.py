"""Make the standard streams safe, whatever the caller has done to them.

Owns: descriptors that are closed, and text that the terminal's encoding does not have.
Does not: know what is printed.
"""

from __future__ import annotations

import io
import os
import sys

# stdout is opened for reading: the answer cannot be written, and that is an error.
_MODES = (os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)


def prepare() -> None:
    """Open the standard descriptors that are closed, and let no character fail.

    A socket or file that is opened later would get the descriptor of a closed one, and with it
    the messages. Without stderr, print() writes to stdout.
    """
    for descriptor, mode in enumerate(_MODES):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)  # the lowest free descriptor is this one
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for the rest of the process
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - as above
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - as above
    for stream, errors in (
        (sys.stdin, "replace"),
        (sys.stdout, "backslashreplace"),
        (sys.stderr, "backslashreplace"),
    ):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)
