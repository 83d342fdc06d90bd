"""The manual page overlayd.toml(5), generated from the definition of the configuration.

Owns: the layout of the page. Does not: know any key by name, but for the examples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay import __version__
from overlay.agent.process.config import CHOICES, CONFIG_DEFAULT, KINDS, Config
from overlay.cli.manual.key_texts import TEXTS
from overlay.cli.manual.roff import escaped, literal, pairs

if TYPE_CHECKING:
    from collections.abc import Iterator

_DESCRIPTION = """\
TOML, read by `overlayd agent` when it starts. Every key is optional, and a key that is not listed
here is an error. `systemctl reload overlayd` (SIGHUP) applies log_level; the other keys need a
restart, which loses no packet. The settings of a cluster (ports, token, underlay) are options of
`overlayd join` instead.
"""
_TYPES = {
    "Path": "path", "str": "string", "bool": "boolean", "int": "integer", "float": "seconds",
}  # fmt: skip
EXAMPLES = (
    ("A host whose group may manage containers, with metrics for a local Prometheus:",
     'api_group = "netops"\nmetrics_listen = "127.0.0.1:9469"\n'),
    ("A cluster in which every network between hosts is encrypted (the same on all hosts):",
     'encryption = "required"\nkey_rotation_interval_s = 43200\n'),
)  # fmt: skip


def page() -> str:
    """Return the whole page."""
    lines = [
        f'.TH OVERLAYD.TOML 5 "" "overlayd {__version__}" "File Formats"',
        ".nh",
        ".ad l",
        ".SH NAME",
        "overlayd.toml \\- configuration of the overlayd agent",
        ".SH SYNOPSIS",
        f".B {escaped(str(CONFIG_DEFAULT))}",
        ".SH DESCRIPTION",
        *(escaped(line) for line in _DESCRIPTION.splitlines()),
        ".SH KEYS",
        *pairs((f"{key} ({_TYPES[KINDS[key]]})", _text(key)) for key in KINDS),
        ".SH EXAMPLES",
        *_examples(),
        "Check a file before a restart:",
        *literal(["  sudo overlayd config check"]),
        ".SH SEE ALSO",
        ".BR overlayd (8)",
    ]
    return "\n".join(lines)


def _text(key: str) -> str:
    default = getattr(Config(), key)
    shown = {True: "true", False: "false"}.get(default, f'"{default}"')
    if isinstance(default, float | int) and not isinstance(default, bool):
        shown = f"{default:g}"
    choices = f" One of {', '.join(CHOICES[key])}." if key in CHOICES else ""
    return f"{TEXTS[key]}.{choices} Default: {shown}."


def _examples() -> Iterator[str]:
    for text, lines in EXAMPLES:
        yield text
        yield from literal(f"  {line}" for line in lines.splitlines())
        yield ".PP"
