"""Errors of requests to the agent: failed connections, error answers, answers that are not JSON.

Owns: their words, with cause and next step. It imports nothing slow: the plugins that runtimes
start use it, too.
"""

from __future__ import annotations

import json

from overlay import limits
from overlay.errors import (
    ERROR_BY_CODE,
    AgentNotRunningError,
    ForbiddenError,
    OverlayError,
    TimedOutError,
)

TYPE_CHECKING = False  # typing itself takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Any


def connection_error(error: Exception, path: str, log: str, timeout_s: float) -> OverlayError:
    """Return the error of a connection to the socket at `path`; `log`: the agent's log file."""
    match error:
        case FileNotFoundError():
            return AgentNotRunningError(
                "no agent runs on this host",
                why=f"there is no API socket at {path}",
                hint="sudo overlayd join     (starts one; its log is "
                f"{log} or `journalctl -u overlayd`)",
            )
        case ConnectionRefusedError():
            return AgentNotRunningError(
                "the agent on this host has died",
                why=f"its API socket {path} exists, but no process listens on it",
                hint=f"See the end of {log} or `journalctl -u overlayd`, then: sudo overlayd join",
            )
        case PermissionError():
            return ForbiddenError(
                f"you may not use the agent's API socket {path}",
                why="it is open to root and the group overlayd",
                hint="Use sudo, or add yourself to that group",
            )
        case TimeoutError() | BlockingIOError():  # it no longer accepts connections
            return TimedOutError(
                "the agent did not answer in time",
                why=f"no answer from {path} within {timeout_s:g} s",
                hint="Try again; if it stays so, restart the agent, which loses no packet: "
                "sudo systemctl restart overlayd (without systemd: end it, sudo overlayd join)",
            )
        case ConnectionResetError() | BrokenPipeError():
            return AgentNotRunningError(
                "the agent closed the connection before its answer was complete",
                why=str(error) or type(error).__name__,
                hint=f"See the end of {log} or `journalctl -u overlayd`",
            )
    hint = "Choose a shorter --run-dir" if len(path) > limits.SOCKET_PATH_SIZE_MAX else ""
    return OverlayError(f"cannot reach the agent at {path}", why=str(error), hint=hint)


def decoded(raw: bytes, status: int) -> dict[str, Any]:
    """Return the JSON object of an answer; raises OverlayError for anything else."""
    try:
        value = json.loads(raw)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise OverlayError(
            "the agent's answer is not a JSON object",
            why=f"HTTP {status}: {raw[:200].decode(errors='replace')!r}",
            hint="The versions may differ: compare `overlayd version` with `overlayd status`",
        )
    return value


def answered_error(raw: bytes, status: int) -> OverlayError:
    """Return the error that the agent has answered with."""
    try:
        body = json.loads(raw)["error"]
        kind = ERROR_BY_CODE.get(body["code"], OverlayError)
        rest = {name: str(body.get(name) or "") for name in ("why", "hint", "field")}
        return kind(str(body["what"]), **rest)
    except (ValueError, KeyError, TypeError):
        return OverlayError(
            f"the agent answered HTTP {status}",
            why=raw[:200].decode(errors="replace").strip(),
            hint="See its log: journalctl -u overlayd",
        )
