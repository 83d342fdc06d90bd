"""The steps that the registries of named objects share: to find one, to compare, to write.

Services, policies and routers are such objects. Owns: the words of the errors. Does not: know the
rules for a valid object of any kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from overlay import limits
from overlay.agent.declared.service import DeclaredService
from overlay.agent.records.known_names import known_text, meant_text
from overlay.errors import ConflictError, NotFoundError, UsageError


@dataclass(frozen=True, slots=True)
class NamedKind:
    """A kind of named object; its verbs are `overlayd NOUN create` and so on."""

    number: int  # of its declared objects
    noun: str
    plural: str
    smaller: str  # a hint for a definition that no record can take

    def missing(self, name: str, known: Sequence[str]) -> NotFoundError:
        """Return the error for a name that no object of the kind has."""
        why = f"known {self.plural}: {known_text(known)}"
        return NotFoundError(
            f"there is no {self.noun} {name!r}",
            why=why if known else f"the cluster has no {self.noun}",
            hint=meant_text(name, known)
            or f"overlayd {self.noun} {'ls' if known else 'create --help'}",
        )

    def require_same(
        self, name: str, compared: Iterable[tuple[str, bool]], network: str = ""
    ) -> None:
        """Raise ConflictError if an existing object differs from the one that was asked for.

        `compared` says of each part, by its name, whether it differs; `network` is the network of
        the existing one.
        """
        differing = ", ".join(part for part, is_other in compared if is_other)
        if differing:
            place = f"is on network {network}, and " if network else ""
            raise ConflictError(
                f"a different {self.noun} {name!r} exists already",
                why=f"it {place}differs in: {differing}",
                hint=f"To see it: overlayd {self.noun} inspect {name}; to change it: overlayd "
                f"{self.noun} set {name}; or choose another name",
            )

    def write(self, declared: DeclaredService, name: str, body: bytes) -> None:
        """Write an object; raises UsageError if a record cannot take it."""
        if len(body) > limits.DECLARED_BODY_SIZE_MAX:
            raise UsageError(
                f"{self.noun} {name} is too large for a record",
                why=f"it takes {len(body)} bytes of {limits.DECLARED_BODY_SIZE_MAX}",
                hint=self.smaller,
            )
        declared.put(self.number, name, body)
