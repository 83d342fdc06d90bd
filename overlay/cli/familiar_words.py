"""Words that hands type out of habit, and overlayd's own for the same.

Owns: these words. Does not: guess what a mistyped word means (`usage_text`).
"""

from __future__ import annotations

from overlay.errors import UsageError

_OPTIONS_OF_VERSION = (["--version"], ["-V"])
_SECOND_WORDS = {"list": "ls", "remove": "rm", "delete": "rm"}
_VERBS_OF_NODE = {"ls": "members", "rm": "forget", "promote": "promote"}
_GROUPS = (
    "authority", "container", "dns", "endpoint", "evpn", "network", "policy", "router", "service",
    "token",
)  # fmt: skip


def translated(words: list[str]) -> list[str]:
    """Return a command line in overlayd's words.

    Nothing typed asks for help, `help network rm` for that of `network rm`, `--version` for the
    version; `network list` is `network ls`, `network remove` `network rm`, `node ls` `members`.
    """
    if not words:
        return ["--help"]
    if words in _OPTIONS_OF_VERSION:
        return ["version"]
    if words[0] == "help":
        return [*translated(words[1:]), *(["--help"] if words[1:] else [])]
    if words[0] == "node" and len(words) > 1:
        known = _VERBS_OF_NODE.get(_SECOND_WORDS.get(words[1], words[1]))
        return [known, *words[2:]] if known else words
    if len(words) > 1 and words[0] in _GROUPS:
        return [words[0], _SECOND_WORDS.get(words[1], words[1]), *words[2:]]
    return words


def refuse_impossible(words: list[str]) -> None:
    """Raise UsageError for a command of other programs that overlayd has no equal for."""
    if words[:2] == ["service", "scale"]:
        raise UsageError(
            "a service has no number of containers to set",
            why="overlayd starts no containers: those that match the service are its backends",
            hint="Start more with the service's label or alias, such as: docker compose up "
            "--scale web=3; 'overlayd service ps NAME' shows the backends",
        )
