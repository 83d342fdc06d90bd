"""The parameters of the host's loopback that a gate changes, and their record.

A gate's namespace has the record in an alias; the run directory has it, too, as others may delete
the namespace. Like the parameters it does not survive a boot.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from overlay import failpoint

# A reply to the host's own connection comes back to the loopback, from one of its addresses.
PARAMETERS: Final = frozenset({"accept_local", "route_localnet"})
RECORD_NAME: Final = "loopback.json"
_FOLDER: Final = Path("/proc/sys/net/ipv4/conf/lo")


def switched_off() -> set[str]:
    """Return the parameters that are off in the thread's namespace."""
    return {each for each in PARAMETERS if _is(each, "0")}


def switch(names: Iterable[str], *, is_on: bool) -> None:
    """Set parameters of the thread's namespace."""
    failpoint.failpoint("gate.sysctl")
    for each in names:
        with suppress(OSError):
            (_FOLDER / each).write_text(str(int(is_on)), encoding="ascii")


def restore_left(run_dir: Path | None) -> list[str]:
    """Switch off what a gate has switched on whose namespace is gone.

    Returns the sysctls that this changed.
    """
    left = sorted(each for each in read_record(run_dir) if _is(each, "1"))
    if left:
        switch(left, is_on=False)
    write_record(run_dir, ())
    return [f"ipv4/conf/lo/{each}" for each in left]


def _is(name: str, value: str) -> bool:
    try:
        return (_FOLDER / name).read_text(encoding="ascii").strip() == value
    except OSError:
        return False


def read_record(run_dir: Path | None) -> set[str]:
    """Return what a gate has switched on, as the run directory has it."""
    if run_dir is not None:
        with suppress(OSError, ValueError):
            found = json.loads((run_dir / RECORD_NAME).read_text(encoding="ascii"))
            if isinstance(found, list):
                return {each for each in PARAMETERS if each in found}
    return set()


def write_record(run_dir: Path | None, names: Collection[str]) -> None:
    """Replace what the run directory has. Without that the alias alone is the record."""
    if run_dir is None or read_record(run_dir) == set(names):
        return
    failpoint.failpoint("gate.loopback-record")
    record, draft = run_dir / RECORD_NAME, run_dir / f"{RECORD_NAME}.new"
    with suppress(OSError):
        if names:
            draft.write_text(json.dumps(sorted(names)), encoding="ascii")
            draft.replace(record)
        else:
            record.unlink(missing_ok=True)
