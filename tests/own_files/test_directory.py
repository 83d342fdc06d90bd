"""What of a directory is overlayd's, and what reset deletes of it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from overlay.agent.evpn import settings_file
from overlay.agent.process import config, event_log
from overlay.agent.state import file_place, identity_trail, state_file, witness
from overlay.agent.state.database import Row, StateDatabase
from overlay.client import paths
from overlay.errors import ConflictError, OverlayError
from overlay.kernel.evpn import supervisor
from overlay.kernel.gate import loopback
from overlay.kernel.host import sysctl_record
from overlay.own_files import directory, names, refusal


def test_every_name_that_is_written_is_known() -> None:
    """Reset deletes what is in this list, and nothing else."""
    written = {
        state_file.FILE_NAME, state_file.PREVIOUS_NAME, config.LOCK_NAME, event_log._FILE_NAME,
        supervisor.SETTINGS_NAME, settings_file._CHOICE_NAME, identity_trail.TRAIL_NAME,
        witness.WITNESS_NAME, sysctl_record.MEMORY_NAME, loopback.RECORD_NAME, paths.SOCKET_NAME,
        paths.LOG_NAME, file_place.REPLACED_NAME,
    }  # fmt: skip

    assert written <= set(names.FILES)
    assert {supervisor._PLAN, supervisor._LOCK} <= set(names.FOLDERS[supervisor._DIRECTORY])
    assert names.MARKS.issubset(names.FILES)


def test_all_files_of_a_used_directory_are_own(tmp_path: Path) -> None:
    """Also while the state file is open, and after its copy."""
    state = StateDatabase(tmp_path / "state", tmp_path / "run")
    state.commit([Row.of("kind", "key", 1)])
    state.keep_backup()
    found = directory.contents(tmp_path / "state")
    run = directory.contents(tmp_path / "run")
    state.close()

    assert not found.others
    assert found.is_marked
    assert not run.others
    assert run.is_marked


def test_what_is_of_others_stays(tmp_path: Path) -> None:
    """Neither their files are deleted, nor their folders, nor what links lead to."""
    folder = tmp_path / "data"
    StateDatabase(folder).close()
    (folder / "app").mkdir()
    (folder / "app" / "state.db").touch()
    (folder / "notes").touch()
    (folder / "evpn").mkdir()
    (folder / "evpn" / "plan.json").touch()
    (folder / "evpn" / "theirs").touch()
    (folder / "agent.log").symlink_to(folder / "notes")

    assert directory.delete_own(folder) == (True, ("app", "evpn/theirs", "notes"))
    assert sorted(str(each.relative_to(folder)) for each in folder.rglob("*")) == [
        "app", "app/state.db", "evpn", "evpn/theirs", "notes",
    ]  # fmt: skip


def test_a_directory_of_others_is_not_touched(tmp_path: Path) -> None:
    """A common name proves nothing."""
    (tmp_path / "lock").touch()
    (tmp_path / "events.jsonl").touch()
    (tmp_path / "app").touch()

    assert directory.delete_own(tmp_path) == (False, ("app",))
    assert (tmp_path / "lock").exists()


def test_a_killed_deletion_is_finished_by_the_next(tmp_path: Path) -> None:
    """A directory is overlayd's until the last of its files is gone."""
    folder = tmp_path / "data"
    state = StateDatabase(folder)
    state.keep_backup()
    state.close()
    (folder / "state.db-wal").touch()
    (folder / "evpn.json").touch()
    (folder / "theirs").touch()
    count = len(directory.contents(folder).own)
    for _ in range(count):
        found = directory.contents(folder)
        assert found.is_marked
        found.own[0].unlink()

    assert directory.contents(folder).own == ()
    assert count >= 5


def test_another_programs_state_file_is_not_own(tmp_path: Path) -> None:
    """A database with tables and without overlayd's mark stays."""
    with sqlite3.connect(tmp_path / "state.db") as database:
        database.execute("CREATE TABLE theirs (x)")
    database.close()

    assert directory.delete_own(tmp_path) == (False, ("state.db",))


def test_an_own_directory_is_deleted_completely(tmp_path: Path) -> None:
    """Also the one within the other, and the folder that an error advises for damaged files."""
    folder = tmp_path / "state"
    run = folder / "run"
    StateDatabase(folder, run).close()
    (folder / "damaged").mkdir()
    (folder / "damaged" / "state.db").touch()
    (folder / "lost+found").mkdir()

    assert directory.contents(folder, run).others == ()
    assert directory.delete_own(run, folder) == (True, ())
    (folder / "lost+found").rmdir()
    assert directory.delete_own(folder, run) == (True, ())
    assert not folder.exists()
    assert directory.delete_own(folder) == (False, ())


def test_an_agent_refuses_a_directory_of_others(tmp_path: Path) -> None:
    """It names what is there, and what to choose; an empty one and a missing one are accepted."""
    state, run = tmp_path / "state", tmp_path / "run"
    state.mkdir()
    refusal.refuse_foreign(state, run)
    (state / "db").touch()
    with pytest.raises(ConflictError, match="it holds db, and no state of overlayd") as refused:
        refusal.refuse_foreign(state, run)
    assert "--state-dir" in refused.value.hint
    with pytest.raises(ConflictError, match="the run directory"):
        refusal.refuse_foreign(run, state)


def test_an_agent_accepts_its_directory_with_a_file_more(tmp_path: Path) -> None:
    """What an operator puts there, beside the state, does not keep it from its state."""
    StateDatabase(tmp_path / "state", tmp_path / "run").close()
    (tmp_path / "state" / "notes").touch()
    (tmp_path / "run" / "other.sock").touch()

    refusal.refuse_foreign(tmp_path / "state", tmp_path / "run")


def test_the_other_directory_may_be_inside(tmp_path: Path) -> None:
    """Before the first start, too, as the log is there first."""
    (tmp_path / "run").mkdir()

    refusal.refuse_foreign(tmp_path, tmp_path / "run")
    refusal.refuse_foreign(tmp_path / "run", tmp_path / "run")


@pytest.mark.parametrize("is_link", [False, True])
def test_an_agent_refuses_what_is_no_directory(tmp_path: Path, *, is_link: bool) -> None:
    """Not with the advice to free space."""
    path = tmp_path / "state"
    if is_link:
        path.symlink_to("/nonexistent/x")
    else:
        path.touch()
    with pytest.raises(OverlayError, match="cannot use the state directory") as refused:
        refusal.refuse_foreign(path, tmp_path / "run")

    assert "Free space" not in refused.value.hint
    assert str(path) in refused.value.hint
