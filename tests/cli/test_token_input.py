"""Where a join token comes from."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from overlay.cli.token_input import read_token, refuse_token_arguments
from overlay.errors import NotFoundError, OverlayError, UsageError

TOKEN = "ovt1.AAAAexample"


def test_no_source_means_no_token() -> None:
    """Without a file and a variable there is none, which is no error yet."""
    assert read_token(None, {}) is None


def test_it_is_read_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Blanks around it do not matter; a private file gives no warning."""
    path = tmp_path / "token"
    path.write_text(f"  {TOKEN}\n")
    path.chmod(0o600)

    assert read_token(str(path), {}) == TOKEN
    assert capsys.readouterr().err == ""


def test_a_file_that_others_can_read_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is used, but its owner is told."""
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o644)

    assert read_token(str(path), {}) == TOKEN
    assert f"chmod 600 {path}" in capsys.readouterr().err


def test_it_is_read_from_standard_input() -> None:
    """`--token-file -` reads a pipe."""
    assert read_token("-", {}, io.StringIO(f"{TOKEN}\n")) == TOKEN


def test_it_is_read_from_the_environment_last() -> None:
    """OVERLAYD_TOKEN counts where no file is named."""
    environ = {"OVERLAYD_TOKEN": TOKEN}

    assert read_token(None, environ) == TOKEN
    assert read_token("-", environ, io.StringIO("ovt1.other")) == "ovt1.other"


@pytest.mark.parametrize("text", ["", " \n", "secret", f"{TOKEN} {TOKEN}", "ovt1." + "x" * 5000])
def test_what_is_no_token_is_refused_with_a_way_to_get_one(text: str) -> None:
    """An empty or wrong file is told at once, with the next step."""
    with pytest.raises(UsageError) as caught:
        read_token("-", {}, io.StringIO(text))
    assert "overlayd token show" in caught.value.hint


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    """A wrong path has its own exit code."""
    with pytest.raises(NotFoundError):
        read_token(str(tmp_path / "none"), {})


def test_a_directory_is_an_error(tmp_path: Path) -> None:
    """What can't be read as a file says so."""
    with pytest.raises(OverlayError, match="cannot read the token file"):
        read_token(str(tmp_path), {})


def test_a_token_among_the_arguments_is_refused() -> None:
    """Other users see arguments: it must be treated as leaked."""
    with pytest.raises(UsageError, match="must not be given as an argument") as caught:
        refuse_token_arguments(["192.168.56.11", TOKEN])
    assert "leaked" in caught.value.why
