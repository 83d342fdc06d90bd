"""The install script changes nothing unless what it installs runs."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def install(target: Path, *words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run the script for a tree below `target`, without an index."""
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHON": "/usr/bin/python3",
        "DESTDIR": str(target),
        "PIP_NO_INDEX": "1",
        "PYTHONPATH": str(cwd),
    }
    script = [str(DEPLOY / "install.sh"), *words]
    return subprocess.run(
        script, env=environ, cwd=cwd, capture_output=True, text=True, check=False, timeout=280
    )


@pytest.fixture
def working(tmp_path: Path) -> Path:
    """Return a target with an installation, which each test must find unchanged."""
    program = tmp_path / "opt/overlayd/bin/overlayd"
    program.parent.mkdir(parents=True)
    program.write_text("the working version")
    return tmp_path


def test_help_prints_help(working: Path) -> None:
    """And nothing else happens."""
    for word in ("--help", "-h"):
        done = install(working, word)

        assert done.returncode == 0
        assert "deploy/install.sh --remove" in done.stdout
        assert "umask" not in done.stdout
    assert (working / "opt/overlayd/bin/overlayd").read_text() == "the working version"


@pytest.mark.parametrize("words", [["--halp"], ["-r"], ["remove"], [""], ["--remove", "x"]])
def test_unknown_words_are_refused(working: Path, words: list[str]) -> None:
    """Neither an option of pip's nor a mistyped --remove reaches anything."""
    done = install(working, *words)

    assert (done.returncode, done.stdout) == (2, "")
    assert "--help" in done.stderr
    assert (working / "opt/overlayd/bin/overlayd").read_text() == "the working version"


def test_a_version_that_does_not_install_changes_nothing(working: Path, tmp_path: Path) -> None:
    """A wheel that is none, and libraries that cannot be had."""
    wheel = tmp_path / "overlayd-9-py3-none-any.whl"
    wheel.write_text("not a wheel")
    done = install(working, str(wheel))

    assert done.returncode != 0
    assert (working / "opt/overlayd/bin/overlayd").read_text() == "the working version"
    assert sorted(path.name for path in (working / "opt").iterdir()) == ["overlayd"]


def test_code_of_the_current_folder_is_not_run(working: Path, tmp_path: Path) -> None:
    """Root may run the script anywhere, such as in a folder of downloads."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    for name in ("venv", "ensurepip", "pip", "site", "sitecustomize"):
        (folder / f"{name}.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    wheel = tmp_path / "overlayd-9-py3-none-any.whl"
    wheel.write_text("not a wheel")
    install(working, str(wheel), cwd=folder)

    assert not (folder / "ran").exists()


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.sh")), ids=lambda path: path.name)
def test_python_runs_isolated_in_every_script(path: Path) -> None:
    """With -I: neither the current folder nor PYTHONPATH is searched for modules."""
    calls = re.findall(
        r'^[^#\n]*"\$(?:python|tools|name|new/[a-z/]*python)" (-\S+)',
        path.read_text(),
        re.MULTILINE,
    )

    assert set(calls) <= {"-I"}


@pytest.mark.parametrize("name", ["requirements.lock", "build.lock"])
def test_every_locked_library_has_hashes(name: str) -> None:
    """And one exact version, as pip requires it with --require-hashes."""
    entries = [
        entry
        for entry in re.split(r"\n(?=\S)", (DEPLOY / name).read_text())
        if entry and not entry.startswith("#")
    ]

    assert len(entries) > 2
    for entry in entries:
        assert re.match(r"[\w.-]+==[\w.]+( ; [^\\]+)? \\\n", entry), entry.splitlines()[0]
        assert HASH.search(entry), entry.splitlines()[0]


def test_every_dependency_is_locked() -> None:
    """The lock has each requirement of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {re.split(r"[<>=\[]", each)[0].lower() for each in project["dependencies"]}
    locked = set(
        re.findall(r"^([\w.-]+)==", (DEPLOY / "requirements.lock").read_text(), re.MULTILINE)
    )

    assert named <= locked
