"""The options of a container runtime's network (`-o`) that overlayd follows.

One that it would not follow is refused: with `encrypted`, as Docker's own overlay driver has it,
a network would be in clear that its user believes to be encrypted.
"""

from __future__ import annotations

from overlay.errors import ConflictError, UsageError

TYPE_CHECKING = False  # typing itself takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

NETWORK_OPTION: Final = "overlayd.network"
"""Names the network of the cluster."""

_ENCRYPTED: Final = "encrypted"
_ON, _OFF = ("", "true"), "false"
_MTU: Final = ("mtu", "com.docker.network.driver.mtu")  # of Podman, and of Docker
_MTU_HINT: Final = "Leave it out, and set it for all hosts: overlayd network set NAME --mtu BYTES"


class DriverOptions:
    """The options of one network."""

    def __init__(self, options: Mapping[str, Any], runtime: str) -> None:
        """Read the options. Raises UsageError for one that is unknown, or has a wrong value."""
        unknown = sorted(set(options) - {NETWORK_OPTION, _ENCRYPTED})
        if unknown:
            known = f"-o {NETWORK_OPTION}=NAME, -o {_ENCRYPTED}=true"
            raise UsageError(
                f"unknown option {unknown[0][:64]}",
                why=f"overlayd knows two options of {runtime} networks, and would not follow this "
                "one",
                hint=_MTU_HINT if unknown[0] in _MTU else known,
            )
        asked = str(options.get(_ENCRYPTED, _OFF)).lower()
        if asked not in {*_ON, _OFF}:
            raise UsageError(
                f"-o {_ENCRYPTED}={asked[:64]} is neither true nor false",
                hint=f"-o {_ENCRYPTED}=true, or leave it out",
            )
        self.name = str(options.get(NETWORK_OPTION) or "")  # empty if not told
        self.encrypted = asked in _ON


def clear_network_error(name: str) -> ConflictError:
    """Return the error about an existing network that was to be encrypted, and is not."""
    return ConflictError(
        f"network {name} exists and is not encrypted",
        hint=f"Encrypt it on all hosts: overlayd encryption on {name}; or leave -o {_ENCRYPTED} "
        "out",
    )
