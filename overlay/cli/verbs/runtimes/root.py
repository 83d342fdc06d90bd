"""Refuse verbs that change which programs runtimes start, unless the caller is root."""

from __future__ import annotations

import os

from overlay.errors import ForbiddenError


def require_root() -> None:
    """Raise ForbiddenError for a caller other than root."""
    if os.geteuid() != 0:
        raise ForbiddenError("only root may change what runtimes start", hint="Use sudo")
