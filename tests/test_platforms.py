"""The table of platforms says what the records of test runs say, and no more."""

from __future__ import annotations

import json
import platform
from datetime import date
from pathlib import Path

import pytest
from scripts import platforms
from tests import platform_record

FIELDS = {"platform", "machine", "kernel", "python", "runtimes", "tests", "day"}


def test_the_page_has_the_table_of_the_records() -> None:
    """`scripts/platforms.py` writes both; nothing in between was changed by hand."""
    page = platforms.PAGE.read_text(encoding="utf-8")
    records = platforms.stored()

    assert platforms.page_with(page, records) == page
    for name, record in records.items():
        assert set(record) == FIELDS, name
        assert date.fromisoformat(record["day"]).isoformat() == record["day"]
        assert all(record[field] for field in FIELDS - {"runtimes"}), name


def test_a_newer_record_takes_the_place_of_an_older(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of other runs stay; data and page are written together."""
    page = platforms.page_with(platforms.PAGE.read_text(encoding="utf-8"), {})
    old: dict[str, object] = {field: f"old {field}" for field in FIELDS - {"runtimes"}} | {
        "runtimes": {}
    }
    monkeypatch.setattr(platforms, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(platforms, "STORED", tmp_path / "stored.json")
    platforms.PAGE.write_text(page)
    platforms.STORED.write_text(json.dumps({"one": old, "two": old}))
    (tmp_path / "new").mkdir()
    new: dict[str, object] = old | {
        "day": "2026-12-01",
        "runtimes": {"Docker": "20.10", "Podman": "4.3"},
    }
    (tmp_path / "new/two.json").write_text(json.dumps(new))
    platforms.keep(tmp_path / "new")

    assert platforms.stored() == {"one": old, "two": new}
    rows = platforms.PAGE.read_text().splitlines()
    first = rows.index(platforms.HEAD[0]) + 2
    assert [row.split(" | ")[4] for row in rows[first : first + 2]] == [
        "none",
        "Docker 20.10, Podman 4.3",
    ]
    assert rows[first + 2] == ""
    assert rows[first - 3 :: -1] == page.splitlines()[first - 3 :: -1]


def test_a_run_that_passed_writes_what_it_ran_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only if the environment names it; of a tree, that tree's system."""
    (tmp_path / "tree/etc").mkdir(parents=True)
    (tmp_path / "tree/etc/os-release").write_text('NAME="x"\nPRETTY_NAME="Debian 13"\n')
    (tmp_path / "tree/var/lib/dpkg").mkdir(parents=True)
    status = (
        "Package: podman\nVersion: 5.4.2+ds1-2\n\nPackage: docker.io\nVersion: 1:26.1.5+dfsg1-9\n"
        "\nPackage: podman-docker\nVersion: 9.9\n\nPackage: systemd\nVersion: 257-1\n"
    )
    (tmp_path / "tree/var/lib/dpkg/status").write_text(status)
    ids = ["tests/e2e/test_a.py::test_1", "tests/e2e/test_b.py::test_2[x]"]
    monkeypatch.delenv("OVERLAYD_RECORD", raising=False)
    platform_record.write_if_asked(tmp_path / "out", ids)
    assert not (tmp_path / "out").exists()

    monkeypatch.setenv("OVERLAYD_RECORD", "of-tree")
    monkeypatch.setenv("OVERLAYD_RECORD_ROOT", str(tmp_path / "tree"))
    monkeypatch.setenv("OVERLAYD_RECORD_TITLE", "`make some-test`")
    platform_record.write_if_asked(tmp_path / "out", ids)
    written = json.loads((tmp_path / "out/of-tree.json").read_text())

    assert set(written) == FIELDS
    assert written["platform"] == "Debian 13"
    assert written["kernel"] == platform.release()
    assert written["runtimes"] == {"Docker": "26.1.5", "Podman": "5.4.2", "systemd": "257"}
    assert written["tests"] == "`make some-test`: 2 tests of test_a, test_b"
    assert platform_record.described(ids * 7) == "14 tests of test_a, test_b"
    many = [f"tests/test_{number}.py::test_it" for number in range(9)]
    assert platform_record.described(many) == "9 tests"
