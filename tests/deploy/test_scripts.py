from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SHELL = (
    "arm64", "bench", "container_image", "debian13", "examples_tools",
    "package_tools", "packages", "setup", "test",
)  # fmt: skip
SCRIPTS = sorted(
    [
        *ROOT.glob("deploy/**/*.sh"),
        *ROOT.glob("vagrant/*.sh"),
        *(ROOT / "scripts" / name for name in SHELL),
    ]
)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shell_accepts_every_script(path: Path) -> None:
    """The shell named in its first line finds no syntax error."""
    shell = path.read_text().splitlines()[0].rpartition("/")[2].split()[-1]
    done = subprocess.run([shell, "-n", path], capture_output=True, check=False, timeout=10)

    assert done.stderr == b""


def test_the_container_has_the_units_capabilities() -> None:
    """The command at the head of the Containerfile lists the unit's bounding set."""
    unit = (ROOT / "deploy/overlayd.service").read_text()
    recipe = (ROOT / "deploy/Containerfile").read_text()
    bounding = re.findall(r"^CapabilityBoundingSet=(.*)$", unit, re.MULTILINE)
    (shown,) = re.findall(r"--cap-add (\S+)", recipe)

    assert {f"CAP_{name}" for name in shown.split(",")} == {
        name for line in bounding for name in line.split()
    }


def test_building_a_package_installs_no_debian_package() -> None:
    """An operator builds it on a host: what tests need, such as a browser, stays away."""
    for target in ("deb", "rpm"):
        done = subprocess.run(
            ["make", "-n", "--no-print-directory", target],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        assert done.stdout.strip() == f"deploy/{target}/build.sh"


def test_a_package_for_an_unknown_architecture_is_refused() -> None:
    """Before anything is fetched or built; the message has those that are known."""
    done = subprocess.run(
        [ROOT / "deploy/deb/build.sh"],
        env={"PATH": "/usr/bin:/bin", "ARCHITECTURE": "arm"},
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip

    assert done.returncode == 2
    assert "ARCHITECTURE arm is neither this machine's (" in done.stderr
    assert "nor amd64 or arm64" in done.stderr
