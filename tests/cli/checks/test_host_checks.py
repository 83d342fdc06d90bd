"""Checks of the host: state directory, disk, configuration, start at boot, clock."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from overlay import limits
from overlay.agent.state.database import StateDatabase
from overlay.cli.checks import clock, host_checks
from overlay.cli.checks.evidence import Evidence, Finding
from overlay.client.paths import Paths

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the state directory is root's")
Made = Callable[..., Evidence]


@pytest.fixture
def seen(tmp_path: Path) -> Made:
    """Return evidence of a host whose directories are below a temporary one."""

    def make(status: dict[str, Any] | None = None, *, chosen: bool = True) -> Evidence:
        paths = Paths(
            tmp_path / "state",
            tmp_path / "run",
            tmp_path / "overlayd.toml",
            (("--run-dir", str(tmp_path / "run")),) if chosen else (),
        )
        return Evidence(paths, status=status)

    return make


def levels(found: Any) -> list[str]:
    """Return the levels of findings."""
    return [each.level for each in found]


def only(found: Any) -> Finding:
    """Return the one finding."""
    (one,) = found
    assert isinstance(one, Finding)
    return one


@needs_root
@pytest.mark.parametrize(("mode", "level"), [(0o700, "ok"), (0o750, "error"), (0o777, "error")])
def test_the_state_directory_is_roots_alone(
    seen: Made, tmp_path: Path, mode: int, level: str
) -> None:
    """It has this node's keys; the remedy is the command."""
    StateDatabase(tmp_path / "state").close()
    (tmp_path / "state").chmod(mode)
    (tmp_path / "state" / "state.db").touch()
    found = only(host_checks.check_state_directory(seen()))

    assert found.level == level
    assert (level == "ok") == (f"chmod 700 {tmp_path}/state" not in found.remedy)


@needs_root
def test_own_files_of_another_user_are_reported(seen: Made, tmp_path: Path) -> None:
    """An agent that has dropped its rights cannot write them."""
    StateDatabase(tmp_path / "state").close()
    os.chown(tmp_path / "state" / "state.db", 65534, 65534)

    assert (
        f"chown -R root: {tmp_path}/state" in only(host_checks.check_state_directory(seen())).remedy
    )


@pytest.mark.parametrize("is_file", [False, True])
def test_a_foreign_state_directory_keeps_its_owner(
    seen: Made, tmp_path: Path, *, is_file: bool
) -> None:
    """Whatever a wrong path names, its rights are not overlayd's to change."""
    path = tmp_path / "state"
    if is_file:
        path.touch(0o644)
    else:
        path.mkdir(0o755)
        (path / "app").mkdir()
    found = only(host_checks.check_state_directory(seen()))

    assert found.level == "error"
    assert "chmod" not in found.remedy
    assert "chown" not in found.remedy
    assert ("is a file, not a directory" if is_file else "it holds app") in found.text


def test_a_link_that_leads_nowhere_is_an_error(seen: Made, tmp_path: Path) -> None:
    """No agent starts with it."""
    (tmp_path / "state").symlink_to("/nonexistent/x")
    assert "leads nowhere" in only(host_checks.check_state_directory(seen())).text


def test_an_empty_state_directory_is_a_note(seen: Made, tmp_path: Path) -> None:
    """No agent has used it."""
    (tmp_path / "state").mkdir(0o755)
    assert only(host_checks.check_state_directory(seen())).level == "note"


def test_a_missing_state_directory_depends_on_the_agent(seen: Made, tmp_path: Path) -> None:
    """Without an agent the host never joined; with one the directory was removed."""
    status = {"state_dir": str(tmp_path / "state")}

    assert only(host_checks.check_state_directory(seen())).level == "note"
    found = only(host_checks.check_state_directory(seen(status)))
    assert found.level == "error"
    assert "Do not restart" in found.remedy


def test_a_missing_state_file_under_an_agent_is_an_error(seen: Made, tmp_path: Path) -> None:
    """The directory alone is not the state; without an agent, the next start decides."""
    (tmp_path / "state").mkdir(mode=0o700)
    status = {"state_dir": str(tmp_path / "state")}

    found = only(host_checks.check_state_directory(seen(status)))
    assert (found.level, "state.db is gone" in found.text) == ("error", True)
    assert "Do not restart" in found.remedy


def test_a_nearly_full_disk_is_reported(seen: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both directories, before a write fails; a missing one counts as its parent."""
    assert levels(host_checks.check_disk(seen())) == ["ok"]
    monkeypatch.setattr(limits, "DISK_FREE_MIN", 2**62)
    found = list(host_checks.check_disk(seen()))

    assert levels(found) == ["warn", "warn"]
    assert "MiB left" in found[0].text
    assert found[0].remedy.startswith("Free space on /")


def test_a_read_only_disk_is_an_error(seen: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel remounts a damaged file system read-only."""
    statvfs = os.statvfs

    def read_only(path: Path) -> os.statvfs_result:
        values = list(statvfs(path))
        values[8] |= os.ST_RDONLY
        return os.statvfs_result(values)

    monkeypatch.setattr(os, "statvfs", read_only)
    assert levels(host_checks.check_disk(seen())) == ["error", "error"]


def test_a_file_changed_after_the_start_is_noted(seen: Made, tmp_path: Path) -> None:
    """The agent has not read it; that is no problem by itself."""
    path = tmp_path / "overlayd.toml"
    path.write_text("")
    old = time.time() - 3600

    assert levels(host_checks.check_configuration(seen({"uptime_s": 60.0}))) == ["note", "ok"]
    os.utime(path, (old, old))
    assert levels(host_checks.check_configuration(seen({"uptime_s": 60.0}))) == ["ok"]
    path.write_text("colour = 1")
    assert levels(host_checks.check_configuration(seen())) == ["error"]


def test_a_unit_that_is_not_enabled_is_reported(
    seen: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A member whose agent systemd does not start at boot loses its network then."""
    monkeypatch.setattr("overlay.cli.agent_start.unit_installed", lambda: True)
    monkeypatch.setattr(host_checks, "_WANTED", tmp_path / "wanted")
    member = seen({"cluster": {"id": "7f3a9c21"}}, chosen=False)

    assert "systemctl enable" in only(host_checks.check_start_at_boot(member)).remedy
    assert levels(host_checks.check_start_at_boot(seen(chosen=False))) == []
    assert levels(host_checks.check_start_at_boot(seen())) == []
    (tmp_path / "wanted").symlink_to("/lib/systemd/system/overlayd.service")
    assert levels(host_checks.check_start_at_boot(member)) == ["ok"]


def test_a_file_from_the_future_means_a_wrong_clock(seen: Made, tmp_path: Path) -> None:
    """A host without a battery for its clock starts in the past."""
    (tmp_path / "state").mkdir()
    path = tmp_path / "state" / "events.jsonl"
    path.write_text("")

    assert set(levels(clock.check_clock(seen()))) <= {"ok", "note"}
    os.utime(path, (time.time() + 7200, time.time() + 7200))
    found = only(clock.check_clock(seen()))
    assert found.level == "error"
    assert "events.jsonl is 1h 59m in the future" in found.text or "2h 00m" in found.text


@pytest.mark.parametrize(
    ("answer", "level", "text"), [(0, "ok", "synchronized"), (5, "note", "nothing"), (-1, "ok", "")]
)
def test_the_kernel_says_whether_it_is_synchronized(
    seen: Made, monkeypatch: pytest.MonkeyPatch, answer: int, level: str, text: str
) -> None:
    """A clock that nothing synchronizes is no problem yet; a filter may forbid the question."""

    class Library:
        def adjtimex(self, _buffer: object) -> int:
            return answer

    monkeypatch.setattr("ctypes.CDLL", lambda _name: Library())
    found = only(clock.check_clock(seen()))

    assert found.level == level
    assert found.text.startswith(text)
