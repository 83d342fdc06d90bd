"""The operations on each kind of object that applying a file needs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from overlay.core.apply.items import DeclaredItem
from overlay.core.apply.plan import PlannedStep


class ObjectKind(Protocol):
    """One kind of object: what is present, and how a step of a plan is carried out."""

    def present(self) -> Iterable[DeclaredItem]:
        """Return the objects that exist, with all their settings."""

    async def check(self, step: PlannedStep) -> None:
        """Raise the error with which a step would be refused now; changes nothing."""

    async def carry_out(self, step: PlannedStep) -> None:
        """Create, change or remove an object; raises OverlayError, and may be repeated then."""
