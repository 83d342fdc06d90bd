"""The declaration of an API route: its handler, its shapes, its errors."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from overlay.agent.api.schema.field_types import Request
from overlay.errors import ConflictError, ForbiddenError, NotFoundError, OverlayError, UsageError

# Called with the names in the path, then the decoded body, query and caller, where declared.
Handler = Callable[..., Awaitable[Any]]

_FIELDS_THAT_NAME = frozenset({"network", "networks", "node", "parent", "target"})
_ERRORS_ANYWHERE: frozenset[type[OverlayError]] = frozenset(
    {OverlayError, UsageError, ForbiddenError}
)


@dataclass(frozen=True, slots=True)
class ApiOperation:
    """One route.

    `request`: the fields of the body; `query`: the parameters; `response`: a TypedDict, or `str`
    for plain text; `stream`: each line of a response that continues; `works_unjoined`: it also
    works outside a cluster; `needs_caller`: the handler is given the caller; `errors_raised`:
    errors that do not follow from the rest.
    """

    method: str
    path: str
    name: str
    handler: Handler
    root: bool = False
    request: type[Request] | None = None
    query: type[Request] | None = None
    response: Any = None
    stream: Any = None
    works_unjoined: bool = False
    needs_caller: bool = False
    errors_raised: tuple[type[OverlayError], ...] = ()

    def errors(self) -> frozenset[type[OverlayError]]:
        """Return the errors that it can answer with.

        Without a cluster it conflicts, and an object that it names may not exist.
        """
        found = {*_ERRORS_ANYWHERE, *self.errors_raised}
        if not self.works_unjoined:
            found.add(ConflictError)
        fields = {
            field
            for shape in (self.request, self.query)
            if shape is not None
            for field in shape.__struct_fields__
        }
        if self.path_names() or _FIELDS_THAT_NAME & fields:
            found.add(NotFoundError)
        return frozenset(found)

    def path_names(self) -> list[str]:
        """Return the names of the variable parts of the path."""
        return re.findall(r"{(\w+)}", self.path)
