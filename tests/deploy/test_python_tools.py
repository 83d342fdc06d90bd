"""Wheel and source distribution by the tools that people use for them (make packages)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from overlay import __version__

pytestmark = pytest.mark.packages
ROOT = Path(__file__).parent.parent.parent
TOOLS = ROOT / "build/package-tools/bin"


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return wheel and source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", folder],
        cwd=ROOT, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return sorted(folder.iterdir(), key=lambda path: path.suffix, reverse=True)


@pytest.fixture(scope="module")
def libraries(package: Path) -> Path:
    """Return the folder with the libraries' wheels, from which the package was made."""
    return next(package.parent.glob("wheels-*/aiohttp-*.whl")).parent


def run(*words: str | Path, **variables: str | Path) -> str:
    """Run a tool that must succeed; return what it printed."""
    environ = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/root")}
    done = subprocess.run(
        words,
        env=environ | {name: str(value) for name, value in variables.items()},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_twine_finds_nothing_to_complain_of(distributions: list[Path]) -> None:
    """The description is rendered as an index would, and each field is valid."""
    told = run(TOOLS / "twine", "check", "--strict", *distributions)

    assert told.count("PASSED") == 2


def test_pipx_installs_runs_and_removes(
    distributions: list[Path], libraries: Path, tmp_path: Path
) -> None:
    """The wheel, with its libraries from a folder alone; nothing is left after `uninstall`."""
    places: dict[str, str | Path] = {
        "PIPX_HOME": tmp_path / "home",
        "PIPX_BIN_DIR": tmp_path / "bin",
        "PIPX_MAN_DIR": tmp_path / "man",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": f"{libraries} {TOOLS.parent / 'wheels'}",
    }
    (wheel,) = [path for path in distributions if path.suffix == ".whl"]
    run(TOOLS / "pipx", "install", "--python", "/usr/bin/python3", wheel, **places)

    assert run(tmp_path / "bin/overlayd", "version") == f"overlayd {__version__}\n"
    assert "join" in run(tmp_path / "bin/overlayd", "help")
    run(TOOLS / "pipx", "uninstall", "overlayd", **places)
    assert list((tmp_path / "bin").iterdir()) == []
    assert not list((tmp_path / "home").glob("venvs/overlayd*"))
