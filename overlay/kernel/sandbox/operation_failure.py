"""An operation on a sandbox that the kernel refused."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from overlay.core.dataplane.link_state import Bridge, Link, Vxlan
from overlay.core.dataplane.operations import ChangeLink, DeleteLink, Operation, PutLink


@dataclass(frozen=True, slots=True)
class OperationFailure:
    """An operation that the kernel refused, and its reason."""

    operation: Operation
    errno: int
    reason: str

    @property
    def is_of_network(self) -> bool:
        """Whether the network has no bridge or tunnel because of it."""
        match self.operation:
            case PutLink(Bridge() | Vxlan()):
                return True
            case ChangeLink(_, Vxlan()):  # it exists, but could not be set up
                return self.errno in {errno.EEXIST, errno.EADDRINUSE}
        return False


def link_of(operation: Operation) -> Link | None:
    """Return the link that an operation creates, changes or deletes; None if it is about a row."""
    match operation:
        case PutLink(link) | ChangeLink(_, link) | DeleteLink(link):
            return link
    return None
