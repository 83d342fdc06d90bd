"""Names of the states of a capture in the API."""

from __future__ import annotations

from overlay.agent.api.schema.diagnosis import CaptureStateName
from overlay.agent.capture.far_end import SILENT
from overlay.core.protocol.capture import CaptureState

_NAMES: dict[int, CaptureStateName] = {
    SILENT: "silent",
    CaptureState.CAPTURING: "capturing",
    CaptureState.FORBIDDEN: "forbidden",
    CaptureState.UNKNOWN_ENDS: "unknown-ends",
    CaptureState.BUSY: "busy",
    CaptureState.NO_PACKET_SOCKETS: "no-packet-sockets",
    CaptureState.BAD_FILTER: "bad-filter",
    CaptureState.ENDED: "ended",
    CaptureState.TOO_LONG: "too-long",
    CaptureState.FAILED: "failed",
}


def state_name(state: int) -> CaptureStateName:
    """Return the name of a state; one of a newer version counts as a failure."""
    return _NAMES.get(state, "failed")
