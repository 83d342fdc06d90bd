"""The file of a report: bounded, and its owner's alone."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from typing import TYPE_CHECKING

import pytest
from overlay import limits
from overlay.cli.report.bundle import Bundle, write_private
from overlay.cli.report.commands import output_of
from overlay.errors import ConflictError, OverlayError

if TYPE_CHECKING:
    from pathlib import Path


def files(raw: bytes) -> dict[str, str]:
    """Return the texts of a tar.gz by name."""
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        found = {}
        for entry in archive.getmembers():
            file = archive.extractfile(entry)
            assert file is not None
            found[entry.name] = file.read().decode()
        return found


def test_a_long_file_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a table the beginning stays, of a log the end; it says how much is missing."""
    monkeypatch.setattr(limits, "REPORT_FILE_SIZE_MAX", 10)
    bundle = Bundle("r")
    bundle.add("table.txt", "0123456789 and more")
    bundle.add("log.txt", "older, the newest", keep_end=True)

    assert files(bundle.content()) == {
        "r/table.txt": "0123456789\n(cut: 9 more characters)\n",
        "r/log.txt": "(cut: 7 more characters)\nthe newest",
    }


def test_a_secret_at_the_cut_is_removed_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a token would not be recognised: texts are redacted before they are cut."""
    monkeypatch.setattr(limits, "REPORT_FILE_SIZE_MAX", 10)
    bundle = Bundle("r")
    bundle.add("log.txt", "ovt1." + "aB3" * 30 + "ZZZZZZ", keep_end=True)

    assert "ZZZ" not in files(bundle.content())["r/log.txt"]


def test_a_report_has_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files for which there is no room are left out, and named."""
    monkeypatch.setattr(limits, "REPORT_SIZE_MAX", 10)
    bundle = Bundle("r")
    for name, text in (("a", "12345678"), ("b", "12345678"), ("c", "12")):
        bundle.add(name, text)

    assert bundle.names == ["a", "c"]
    assert bundle.left_out == ["b"]


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    """Whatever the umask is; an existing file is kept, and no link is followed."""
    former = os.umask(0)
    try:
        write_private(tmp_path / "report.tar.gz", b"x")
    finally:
        os.umask(former)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")

    assert stat.S_IMODE((tmp_path / "report.tar.gz").stat().st_mode) == 0o600
    for name in ("report.tar.gz", "link"):
        with pytest.raises(ConflictError, match="exists"):
            write_private(tmp_path / name, b"y")
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(OverlayError, match="cannot write"):
        write_private(tmp_path / "none" / "report.tar.gz", b"y")


def test_programs_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is missing, fails, prints without end or hangs with its children costs nothing."""
    monkeypatch.setattr(limits, "REPORT_COMMAND_TIMEOUT_S", 0.2)

    assert output_of(["no-such-program"]).endswith(
        "(cannot run no-such-program: No such file or directory)\n"
    )
    assert output_of(["sh", "-c", "echo told; exit 3"]) == (
        "$ sh -c echo told; exit 3\ntold\n(exit code 3)\n"
    )
    assert len(output_of(["yes"], size_max=100)) < 200
    assert "(stopped after 0.2 s)" in output_of(["sh", "-c", "sleep 1000 & sleep 1000"])
