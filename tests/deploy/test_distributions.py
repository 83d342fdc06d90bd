from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from overlay import __version__

ROOT = Path(__file__).parent.parent.parent


def run(*command: str | Path) -> str:
    """Run a command that must succeed; return its stdout."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with wheel and source distribution, built without an index."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", folder],
        cwd=ROOT, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return folder


def test_the_wheel_installs_into_a_clean_environment(distributions: Path, tmp_path: Path) -> None:
    """Its command line, which needs no library, prints its version there."""
    (wheel,) = distributions.glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps",
        "--no-index", wheel)  # fmt: skip

    assert run(tmp_path / "venv/bin/overlayd", "version") == f"overlayd {__version__}\n"


def test_the_source_distribution_builds_the_same_wheel(distributions: Path, tmp_path: Path) -> None:
    """It contains all files for building, testing and packaging."""
    (wheel,) = distributions.glob("*.whl")
    (source,) = distributions.glob("*.tar.gz")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-index",
        "--no-build-isolation", "-w", tmp_path, source)  # fmt: skip
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()
    assert {"deploy/deb/build.sh", "vagrant/Vagrantfile", "tests/test_tidy.py", "Makefile"} <= names


def test_the_install_script_installs_and_removes(
    distributions: Path, package: Path, tmp_path: Path
) -> None:
    """Run twice, it installs a working program; removal keeps the configuration."""
    (wheel,) = distributions.glob("*.whl")
    wheels = next(package.parent.glob("wheels-*/aiohttp-*.whl")).parent
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHON": "/usr/bin/python3",
        "DESTDIR": str(tmp_path),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
    }
    script = [str(ROOT / "deploy/install.sh"), str(wheel)]
    for _ in range(2):
        subprocess.run(script, env=environ, check=True, capture_output=True, timeout=280)
    unit = (tmp_path / "etc/systemd/system/overlayd.service").read_text()
    program = tmp_path / "opt/overlayd/bin/overlayd"

    assert program.read_text().startswith("#!/opt/overlayd/bin/python -I\n")
    assert "ExecStart=/usr/local/bin/overlayd agent\n" in unit
    assert run(program.parent / "python", "-I", program, "version").startswith("overlayd ")
    run("env", f"DESTDIR={tmp_path}", script[0], "--remove")
    left = [path for path in tmp_path.rglob("*") if not path.is_dir()]
    assert left == [tmp_path / "etc/overlayd/overlayd.toml"]
