"""The names of all files that overlayd writes into its state directory and its run directory.

Owns: which name is overlayd's, and which proves that a directory is. What another part of the
program writes there must be named here: `reset` deletes nothing else.
"""

from __future__ import annotations

from typing import Final

STATE_DIR: Final = "/var/lib/overlayd"
RUN_DIR: Final = "/run/overlayd"
STATE_FILE: Final = "state.db"
WITNESS_FILE: Final = "state"

_PARTS = (
    "",
    "-wal",
    "-shm",
    "-journal",
)  # of a SQLite database (https://www.sqlite.org/tempfiles.html)


def _databases(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}{part}" for name in names for part in _PARTS)


_STATE = _databases(STATE_FILE)
_COPIES = _databases(
    f"{STATE_FILE}.new",
    f"{STATE_FILE}.damaged",
    f"{STATE_FILE}.replaced",
    "state.previous.db",
    "state.previous.db.new",
)
_RUN = ("identities", "sysctls.json", "loopback.json")
# Other programs may use these names, too: they prove nothing.
_COMMON = (
    "lock", "events.jsonl", "events.new", "evpn.json", "evpn.new", "evpn-host.json",
    "evpn-host.new", WITNESS_FILE, "identities.new", "sysctls.json.new", "loopback.json.new",
    "api.sock", "agent.log", "web.sock",
)  # fmt: skip

MARKS: Final = frozenset((*_STATE, *_COPIES, *_RUN))
"""A directory with one of these files is overlayd's."""

FILES: Final = (*_COMMON, *_COPIES, *_RUN, *_STATE)
"""All files, in the order in which they are deleted: a directory is overlayd's until the end, and a
state file does not outlive its write-ahead log by more than a moment."""

FOLDERS: Final = {
    "evpn": ("plan.json", "plan.new", "supervisor.lock", "supervisor.log"),
    "damaged": (*_STATE, *_COPIES),  # as the error about a damaged state file advises
}
"""Folders, with the files in them that are overlayd's."""

NOBODYS: Final = frozenset(("lost+found",))
"""Names that file systems make themselves."""
