"""Tables, blocks and durations."""

from __future__ import annotations

from pathlib import Path

import pytest
from overlay.cli import output


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    """Two spaces separate columns, lines have no trailing space, empty cells are dashes."""
    text = output.table(("NAME", "X"), [("a", None), ("longer", ["1", "2"]), ("", True)])

    assert text == "NAME    X\na       -\nlonger  1 2\n-       yes"


def test_a_table_may_have_no_header() -> None:
    """Scripts read columns without a header."""
    assert output.table(("NAME",), [("a",)], show_header=False) == "a"


def test_a_blocks_further_lines_are_indented() -> None:
    """All lines of a value start in one column."""
    assert (
        output.key_value_lines([("Key", "1\n2"), ("Longer", "3")])
        == "Key     1\n        2\nLonger  3"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (60, "1m 00s"), (3725, "1h 02m"), (4 * 86400 + 7200, "4d 02h")],
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    """Durations are short and read at a glance."""
    assert output.duration(seconds) == text


def test_counts_have_a_plural() -> None:
    """One node, two nodes."""
    assert [output.count_text(n, "node") for n in (0, 1, 2)] == ["0 nodes", "1 node", "2 nodes"]


@pytest.mark.parametrize(
    ("program", "uid", "expected"),
    [
        ("/srv/venv/bin/overlayd", 1000, "sudo /srv/venv/bin/overlayd join, or overlayd status"),
        ("/srv/venv/bin/overlayd", 0, "sudo overlayd join, or overlayd status"),
        ("/srv/overlay/cli/main.py", 1000, "sudo overlayd join, or overlayd status"),
    ],
)
def test_sudo_finds_a_program_outside_its_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str, uid: int, expected: str
) -> None:
    """A virtual environment's bin is not on the PATH that sudo sets; root needs no sudo."""
    monkeypatch.setattr("sys.argv", [program])
    monkeypatch.setattr("os.geteuid", lambda: uid)
    monkeypatch.setattr(output, "SUDO_PATH", [str(tmp_path)])
    text = "sudo overlayd join, or overlayd status"
    assert output.runnable(text) == expected
    (tmp_path / "overlayd").touch()

    assert output.runnable(text) == text
