"""A state file that is removed or replaced under a running agent is written anew, whole."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from overlay import failpoint
from overlay.agent.process.event_log import EventLog
from overlay.agent.state import membership_documents
from overlay.agent.state.database import Row, StateDatabase, StoredSegment
from overlay.agent.state.place_watch import PlaceWatch
from overlay.agent.state.previous_copy import PreviousCopy
from overlay.agent.state.state_file import FILE_NAME, PREVIOUS_NAME, copy_state
from overlay.errors import OverlayError

POINTS = ("state.anew.previous", "state.anew.aside", "state.anew.place")
SEGMENTS = [StoredSegment(bytes([n]), 1, n, os.urandom(2000), b"signature") for n in range(60)]


def _remove(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).unlink(missing_ok=True)


def _older(directory: Path) -> None:
    shutil.copy(directory / PREVIOUS_NAME, directory / "other")
    (directory / "other").replace(directory / FILE_NAME)


def _moved(directory: Path) -> None:
    directory.rename(directory.with_name("elsewhere"))


def _foreign(directory: Path) -> None:
    _remove(directory, FILE_NAME)
    (directory / FILE_NAME).write_text("not a database", encoding="ascii")


def _folder(directory: Path) -> None:
    _remove(directory, FILE_NAME)
    (directory / FILE_NAME).mkdir()


DAMAGES: dict[str, Callable[[Path], None]] = {
    "file": lambda where: _remove(where, FILE_NAME),
    "file and copy": lambda where: _remove(where, FILE_NAME, PREVIOUS_NAME),
    "log": lambda where: _remove(where, f"{FILE_NAME}-wal"),
    "all": lambda where: _remove(where, *(each.name for each in where.iterdir())),
    "directory": shutil.rmtree,
    "moved directory": _moved,
    "older file": _older,
    "foreign file": _foreign,
    "folder": _folder,
}


class Node:
    """A running agent's state with a value, a previous copy that lacks it, and its events."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "lib"
        self.run_dir = directory / "run"
        self.state = self.open()
        self.state.commit([Row.of("kind", "key", 1)])
        self.state.keep_backup()
        self.state.commit([Row.of("kind", "key", 2)], segments=SEGMENTS)
        (directory / "events").mkdir(exist_ok=True)
        self.event_log = EventLog(directory / "events")
        self.watch = PlaceWatch(self.state, self.event_log)

    def open(self) -> StateDatabase:
        """Start the agent, or another one after it."""
        return StateDatabase(self.directory, self.run_dir)

    def after_a_kill(self, to: Path) -> tuple[object, bool, bool]:
        """Return what a start on the files as they are has: whether all, and what is noted."""
        shutil.copytree(self.directory, to / "lib")
        shutil.copytree(self.run_dir, to / "run")
        state = StateDatabase(to / "lib", to / "run")
        found = state.get("kind", "key")
        is_lost = membership_documents.LOST.find(state) is not None
        is_whole = list(state.segments()) == SEGMENTS
        state.close()
        return found, is_whole, is_lost


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """Return a node whose agent runs."""
    return Node(tmp_path)


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_lost_file_is_written_anew_at_the_interval(
    node: Node, tmp_path: Path, damage: str
) -> None:
    """A kill afterwards loses nothing, and the agent says what it repaired."""
    DAMAGES[damage](node.directory)
    await node.watch.attempt()

    assert node.watch.fault is None
    assert [each["kind"] for each in node.event_log.since(0)] == ["repaired"]
    for name in (FILE_NAME, PREVIOUS_NAME):
        assert stat.S_IMODE((node.directory / name).stat().st_mode) == 0o600
    assert list(node.directory.glob("*.new*")) == []
    assert node.after_a_kill(tmp_path / "next") == (2, True, False)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_commit_after_a_loss_is_in_the_file(node: Node, tmp_path: Path, damage: str) -> None:
    """It is answered only when a restart has it, and so are those that follow."""
    DAMAGES[damage](node.directory)
    node.state.commit([Row.of("kind", "key", 3)])
    assert node.after_a_kill(tmp_path / "first")[0] == 3
    node.state.commit([Row.of("kind", "key", 4)])

    assert node.after_a_kill(tmp_path / "second") == (4, True, False)
    node.state.close()
    reopened = node.open()
    assert (reopened.get("kind", "key"), reopened.restored_backup) == (4, False)


def test_a_file_that_is_lost_again_is_written_again(node: Node, tmp_path: Path) -> None:
    """The new file is watched as the first one was."""
    for value in range(3, 8):
        _remove(node.directory, FILE_NAME)
        node.state.commit([Row.of("kind", "key", value)])
    node.state.keep_backup()

    assert node.after_a_kill(tmp_path / "next") == (7, True, False)
    entries = list(Path("/proc/self/fd").iterdir())
    open_files = [str(each.readlink()) for each in entries if each.is_symlink()]
    assert [each for each in open_files if str(node.directory) in each and "deleted" in each] == []


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("damage", ["file", "file and copy", "log", "older file", "foreign file"])
def test_a_kill_while_writing_anew_loses_nothing(tmp_path: Path, point: str, damage: str) -> None:
    """Except before the first copy is in its place, when only memory has the state."""
    context = multiprocessing.get_context("fork")

    def agent() -> None:
        node = Node(tmp_path)
        DAMAGES[damage](node.directory)
        failpoint.failpoint = lambda name: _die() if name == point else None
        node.state.ensure_in_place()

    process = context.Process(target=agent)
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL

    if point == "state.anew.previous":
        return
    state = StateDatabase(tmp_path / "lib", tmp_path / "run")
    assert state.get("kind", "key") == 2
    assert list(state.segments()) == SEGMENTS
    assert membership_documents.LOST.find(state) is None
    assert list((tmp_path / "lib").glob("*.new")) == []


async def test_a_disk_that_refuses_is_an_error_with_advice(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changes are refused, reading goes on, and the file is written when the disk lets it."""
    _remove(node.directory, FILE_NAME, PREVIOUS_NAME)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", _refuse)
        await node.watch.attempt()
        assert node.watch.fault is not None
        assert node.watch.fault.level == "error"
        assert "Do not restart the agent" in node.watch.fault.hint
        with pytest.raises(OverlayError, match="cannot be written anew: No space left"):
            node.state.commit([Row.of("kind", "key", 3)])
    assert node.state.get("kind", "key") == 2
    assert not (node.directory / FILE_NAME).exists(), "no empty file was made"

    again = PlaceWatch(node.state, node.event_log)
    await again.attempt()
    assert again.fault is None
    assert node.after_a_kill(tmp_path / "next") == (2, True, False)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _refuse(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_another_agents_directory_is_left_alone(node: Node) -> None:
    """One that started in the directory that was made again has a state of its own."""
    shutil.rmtree(node.directory)
    other = StateDatabase(node.directory, None)
    other.commit([Row.of("kind", "key", "other")])

    with pytest.raises(OverlayError, match="another agent uses"):
        node.state.commit([Row.of("kind", "key", 3)])
    node.state.close()
    assert other.get("kind", "key") == "other"
    other.keep_backup()


def test_a_copy_never_creates_the_file(node: Node) -> None:
    """A file that is removed between the look and the copy leaves nothing, and the old copy."""
    _remove(node.directory, FILE_NAME)
    before = (node.directory / PREVIOUS_NAME).read_bytes()

    with pytest.raises(OverlayError, match="removed or replaced"):
        node.state.keep_backup()
    with pytest.raises(Exception, match="unable to open"):
        copy_state(node.directory)
    assert not (node.directory / FILE_NAME).exists()
    assert list(node.directory.glob("*.new*")) == []
    assert (node.directory / PREVIOUS_NAME).read_bytes() == before


async def test_the_copy_follows_the_file_that_was_written(node: Node) -> None:
    """The previous copy is made of the new file, in its thread."""
    _remove(node.directory, FILE_NAME)
    copies = PreviousCopy(node.state, node.event_log)
    await copies.attempt()
    node.state.commit([Row.of("kind", "key", 5)])
    await copies.attempt()

    assert copies.fault is None
    _remove(node.directory, FILE_NAME)
    node.state._connection.close()
    os.close(node.state._lock)
    assert node.open().get("kind", "key") == 5


def test_a_state_that_was_wiped_does_not_return(node: Node) -> None:
    """A membership that ended is in no copy that is written for a lost file."""
    _remove(node.directory, FILE_NAME)
    node.state.wipe(keep="containers")

    assert not (node.directory / PREVIOUS_NAME).exists()
    assert node.state.get("kind", "key") is None


def test_copies_and_losses_at_once_lose_nothing(node: Node, tmp_path: Path) -> None:
    """The file is removed again and again while one thread commits and another copies."""
    done = threading.Event()

    def copy() -> None:
        while not done.is_set():
            try:
                node.state.keep_backup()
            except OverlayError:
                continue

    thread = threading.Thread(target=copy)
    thread.start()
    for value in range(40):
        _remove(node.directory, FILE_NAME)
        node.state.commit([Row.of("kind", "key", value)])
    done.set()
    thread.join()

    assert node.after_a_kill(tmp_path / "next") == (39, True, False)
