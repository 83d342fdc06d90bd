"""The owner of a service or policy: the file that declares it, as a reserved label."""

from __future__ import annotations

from overlay.model import LABEL_PREFIX

_OWNER = LABEL_PREFIX + "owner"
Labels = tuple[tuple[str, str], ...]


def owner_of(labels: Labels) -> str:
    """Return the owner, or an empty text."""
    return dict(labels).get(_OWNER, "")


def with_owner(labels: Labels, owner: str) -> Labels:
    """Return labels with another owner, or with none."""
    found = {key: value for key, value in labels if key != _OWNER}
    if owner:
        found[_OWNER] = owner
    return tuple(sorted(found.items()))


def user_texts(labels: Labels) -> tuple[str, ...]:
    """Return the labels that are not overlayd's own, as texts."""
    return tuple(f"{key}={value}" for key, value in labels if not key.startswith(LABEL_PREFIX))
