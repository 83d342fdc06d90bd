"""Listen on a Unix socket whose name may be left from another process."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Final

_ANSWER_TIMEOUT_S: Final = 1.0


async def is_served(path: Path) -> bool:
    """Return whether a live process listens on a socket."""
    try:
        _, writer = await asyncio.wait_for(
            asyncio.open_unix_connection(str(path)), _ANSWER_TIMEOUT_S
        )
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def bind(path: Path) -> socket.socket:
    """Return a socket with this name, in place of any other; only its owner may connect to it.

    Raises OSError.
    """
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(mask)
    return listener
