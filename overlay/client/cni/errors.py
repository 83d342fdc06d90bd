"""Errors of the CNI plugin: the specification's codes, and the agent's errors in their form.

The specification gives the codes below 100 a meaning, and leaves the others to plugins.
"""

from __future__ import annotations

from overlay.errors import (
    AgentNotRunningError,
    ConflictError,
    DegradedError,
    NotFoundError,
    OverlayError,
    TimedOutError,
    UsageError,
)

TYPE_CHECKING = False  # typing itself takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

INCOMPATIBLE_VERSION: Final = 1
UNSUPPORTED_FIELD: Final = 2
UNKNOWN_CONTAINER: Final = 3
INVALID_ENVIRONMENT: Final = 4
INPUT_OUTPUT_FAILURE: Final = 5
UNDECODABLE: Final = 6
INVALID_CONFIG: Final = 7
TRY_AGAIN_LATER: Final = 11
NOT_AVAILABLE: Final = 50
LIMITED_CONNECTIVITY: Final = 51
REFUSED: Final = 100  # what was asked for contradicts what exists: an address that is taken
NOT_AS_EXPECTED: Final = 101  # CHECK found a difference
FAILED: Final = 102  # the host did not allow it, or overlayd has a defect

# The variable that has what a field of the agent's request names.
_VARIABLES: Final[Mapping[str, str]] = {
    "container_id": "CNI_CONTAINERID",
    "ifname": "CNI_IFNAME",
    "target": "CNI_NETNS",
}
_CODES: Final[Mapping[type[OverlayError], int]] = {
    UsageError: INVALID_CONFIG,
    NotFoundError: INVALID_CONFIG,
    ConflictError: REFUSED,
    AgentNotRunningError: TRY_AGAIN_LATER,
    TimedOutError: TRY_AGAIN_LATER,
    DegradedError: TRY_AGAIN_LATER,
}


class CniError(Exception):
    """An error as the plugin writes it: code, message, and what to do next."""

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        self.code = code
        self.msg = msg
        self.details = details
        super().__init__(msg)

    def body(self, version: str) -> dict[str, object]:
        """Return the error as JSON of a version of the specification."""
        body: dict[str, object] = {"cniVersion": version, "code": self.code, "msg": self.msg}
        return body | {"details": self.details} if self.details else body


def of_agent(error: OverlayError) -> CniError:
    """Return an error of the agent, or of the connection to it, in CNI's form."""
    msg = f"{error.what}: {error.why}" if error.why else error.what
    variable = _VARIABLES.get(error.field)
    if isinstance(error, UsageError) and variable:
        return CniError(INVALID_ENVIRONMENT, f"{variable}: {msg}", error.hint)
    return CniError(_CODES.get(type(error), FAILED), msg, error.hint)
