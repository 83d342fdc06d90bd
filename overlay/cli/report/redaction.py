"""Remove from a text everything that could be a secret, whatever it is.

No answer, log or table of overlayd has secrets; this is the second measure, for a file that leaves
the host. A key has 32 bytes, so a text that spells so many is removed, even if it is harmless.
Does not: know the secrets. A passphrase looks like any other text, but no file has one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

REMOVED = "(removed)"
_TOKEN = re.compile(r"ovt1\.[A-Za-z0-9_-]+")
_HEX = re.compile(r"[0-9A-Fa-f]{64,}")
# A path is not mistaken for one: it rarely has 43 such characters with both cases.
_BASE64 = re.compile(r"(?=[a-z0-9+/_-]*[A-Z])(?=[A-Z0-9+/_-]*[a-z])[A-Za-z0-9+/_-]{43,}={0,2}")
_BYTES = re.compile(r"""b(['"])(?:(?!\1)(?:\\.|[^\\\n]))*\\x(?:(?!\1)(?:\\.|[^\\\n]))*\1""")
_URL_PASSWORD = re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")
_RULES: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (_TOKEN, "ovt1." + REMOVED),
    (_BYTES, "b" + REMOVED),
    (_HEX, REMOVED),
    (_BASE64, REMOVED),
    (_URL_PASSWORD, REMOVED),
)


def redacted(text: str) -> str:
    """Return the text without tokens, and without anything that spells 32 bytes."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def without_label_values(value: Any) -> Any:
    """Return an answer of the API with the names of labels, and without their values.

    People write them; a program may read its password there.
    """
    if isinstance(value, dict):
        return {
            key: dict.fromkeys(inner, REMOVED)
            if key == "labels" and isinstance(inner, dict)
            else without_label_values(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [without_label_values(each) for each in value]
    return value
