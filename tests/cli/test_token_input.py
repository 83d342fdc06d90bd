"""Reading a join token from a file, standard input or the environment."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from overlay.cli.token_input import read_token
from overlay.errors import NotFoundError, OverlayError, UsageError

if TYPE_CHECKING:
    from tests.fake_agent import Run

TOKEN = "ovt1.AAAAexample"


def test_no_source_means_no_token() -> None:
    """Without a file and a variable there is no token, and no error."""
    assert read_token(None, {}) is None


def test_it_is_read_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Surrounding whitespace is ignored, and a private file causes no warning."""
    path = tmp_path / "token"
    path.write_text(f"  {TOKEN}\n")
    path.chmod(0o600)

    assert read_token(str(path), {}) == TOKEN
    assert capsys.readouterr().err == ""


def test_a_file_that_others_can_read_causes_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The token is used, and the warning has the command that fixes it."""
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o644)

    assert read_token(str(path), {}) == TOKEN
    assert f"chmod 600 {path}" in capsys.readouterr().err


def test_it_is_read_from_standard_input() -> None:
    """`--token-file -` reads a pipe."""
    assert read_token("-", {}, io.StringIO(f"{TOKEN}\n")) == TOKEN


def test_it_is_read_from_the_environment_last() -> None:
    """OVERLAYD_TOKEN is used if no file is named."""
    environ = {"OVERLAYD_TOKEN": TOKEN}

    assert read_token(None, environ) == TOKEN
    assert read_token("-", environ, io.StringIO("ovt1.other")) == "ovt1.other"


@pytest.mark.parametrize("text", ["", " \n", "secret", f"{TOKEN} {TOKEN}", "ovt1." + "x" * 5000])
def test_an_invalid_token_is_refused_with_a_next_step(text: str) -> None:
    """The error of an empty or wrong input names the command that prints a token."""
    with pytest.raises(UsageError) as caught:
        read_token("-", {}, io.StringIO(text))
    assert "overlayd token show" in caught.value.hint


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    """A wrong path is reported as not found."""
    with pytest.raises(NotFoundError):
        read_token(str(tmp_path / "none"), {})


def test_a_directory_is_an_error(tmp_path: Path) -> None:
    """A directory in place of the file cannot be read."""
    with pytest.raises(OverlayError, match="cannot read the token file"):
        read_token(str(tmp_path), {})


@pytest.mark.parametrize(
    "words",
    [
        ("join", "192.168.56.11", TOKEN),
        ("join", "192.168.56.11", "--token", TOKEN),
        ("join", f"--token={TOKEN}"),
        ("--token", TOKEN, "join"),
        ("jion", TOKEN),
        ("token", "revoke", TOKEN),
    ],
)
def test_a_token_among_the_arguments_is_refused(overlayd: Run, words: tuple[str, ...]) -> None:
    """Before any other error, which would repeat it; it must be treated as leaked."""
    outcome = overlayd(*words)

    assert outcome.code == 2
    assert "must not be given as an argument" in outcome.err
    assert "leaked" in outcome.err
    assert TOKEN not in outcome.err


def test_a_containers_command_may_have_a_token(overlayd: Run) -> None:
    """The arguments of other programs are not overlayd's."""
    outcome = overlayd("container", "exec", "ovt-none", "--", "echo", TOKEN)

    assert "no such container" in outcome.err
