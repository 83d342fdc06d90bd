"""The labels of a declared object: those that users give, beside those that only agents set."""

from __future__ import annotations

from collections.abc import Mapping

from overlay.model import LABEL_PREFIX

Labels = tuple[tuple[str, str], ...]


def with_user_labels(labels: Labels, wanted: Mapping[str, str]) -> Labels:
    """Return an object's labels with other user labels, sorted.

    Those that only agents set stay, such as the owner of the file that declares the object.
    """
    own = [pair for pair in labels if pair[0].startswith(LABEL_PREFIX)]
    return tuple(sorted([*wanted.items(), *own]))
