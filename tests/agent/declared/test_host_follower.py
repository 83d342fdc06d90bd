"""A host follows its declared objects: one failure, very many, and one of the pass itself."""

from __future__ import annotations

import errno
from pathlib import Path

from overlay import limits
from overlay.agent.declared.host_follower import HostFollower
from overlay.agent.process.event_log import EventLog
from overlay.errors import ConflictError


class Things(HostFollower):
    """Things of which some fail."""

    name = "declared things"
    things = "things"

    def __init__(self, directory: Path, errors: list[Exception | None]) -> None:
        super().__init__(EventLog(directory))
        self.errors = errors
        self.made: list[int] = []
        self.before: OSError | None = None

    async def reconcile(self) -> None:
        """Make all."""
        self.failures = {}
        if self.before is not None:
            raise self.before
        for number, error in enumerate(self.errors):
            with self.noting(f"thing {number}"):
                if error is not None:
                    raise error
                self.made.append(number)
        self.require_all()


async def test_one_that_fails_holds_up_no_other(tmp_path: Path) -> None:
    """Whether overlayd refuses it or the kernel; the pass is tried again."""
    refused = ConflictError("it is in use", why="by vm2", hint="Wait")
    things = Things(tmp_path, [refused, None, OSError(errno.ENOBUFS, "no buffer space"), None])
    await things.attempt()

    assert things.made == [1, 3]
    assert things.fault is not None
    shown = [(fault.text, fault.hint) for fault in things.faults()]
    assert shown == [
        ("thing 0 is declared for this host, and not in force: it is in use: by vm2", "Wait"),
        ("thing 2 is declared for this host, and not in force: no buffer space",
         "The agent retries automatically"),
    ]  # fmt: skip


async def test_of_very_many_the_first_are_shown(tmp_path: Path) -> None:
    """A member may declare as many as it has records; `status` stays readable."""
    most = limits.DECLARED_FAULTS_MAX
    things = Things(tmp_path, [ConflictError("no") for _ in range(most)])
    await things.attempt()
    assert len(list(things.faults())) == most

    things.errors += things.errors
    await things.attempt()
    *shown, last = things.faults()
    assert len(shown) == most
    assert last.text == f"{most} further things are declared for this host, and not in force"


async def test_a_pass_that_ends_early_is_told(tmp_path: Path) -> None:
    """It names no object, and must not look like success."""
    things = Things(tmp_path, [])
    things.before = OSError(errno.ENOMEM, "no memory")
    await things.attempt()

    (fault,) = things.faults()
    assert fault.text == "objects declared for this host are not in force: no memory"
    things.before = None
    await things.attempt()
    assert list(things.faults()) == []
