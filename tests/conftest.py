"""The package of this tree as a fixture, rebuilt if it is old, and the record of a whole run."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tests import platform_record

# No test times its machine: examples may take as long as a loaded one needs.
settings.register_profile(
    "patient",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("patient")

ROOT = Path(__file__).parent.parent
SOURCES = ("overlay", "deploy", "pyproject.toml")
ON_HOSTS = re.compile(r"\bmark\.(netns|e2e)\b")  # scripts/test finds the tests on hosts by this


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse files whose marks are not written there, and begin with the simulator's storms.

    `make test` would not find the former. A storm takes up to a minute, and at the end only one
    worker would compute.
    """
    on_hosts = {item.path for item in items if any(map(item.get_closest_marker, ("netns", "e2e")))}
    missed = [path for path in on_hosts if not ON_HOSTS.search(path.read_text(encoding="utf-8"))]
    if missed:
        raise pytest.UsageError(f"write the mark netns or e2e in {', '.join(map(str, missed))}")
    items.sort(key=lambda item: not item.nodeid.startswith("tests/sim/"))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the record of a run that passed, once, if the environment asks for it."""
    if exitstatus or hasattr(session.config, "workerinput"):
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    passed = [] if reporter is None else reporter.stats.get("passed", [])
    platform_record.write_if_asked(ROOT / "build/platforms", [each.nodeid for each in passed])


@pytest.fixture(scope="session")
def package() -> Path:
    """Return the Debian package built from this tree."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("no dpkg-deb here: packages are built on Debian and its derivatives")
    (ROOT / "build").mkdir(exist_ok=True)
    # Several workers may request it at once; the first one builds it.
    with (ROOT / "build/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _fresh() or _built()


def _fresh() -> Path | None:
    newest = max(
        path.stat().st_mtime
        for source in SOURCES
        for path in [ROOT / source, *(ROOT / source).rglob("*")]
        if path.is_file() and "__pycache__" not in path.parts
    )
    found = [p for p in ROOT.glob("build/overlayd_*.deb") if p.stat().st_mtime >= newest]
    return max(found, key=lambda path: path.stat().st_mtime) if found else None


def _built() -> Path:
    done = subprocess.run(
        [ROOT / "deploy/deb/build.sh"],
        env=os.environ | {"DPKG_DEB_COMPRESSOR_LEVEL": "1"},  # a sixth of the usual time
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return ROOT / done.stdout.strip()


@pytest.fixture(scope="session")
def unpacked(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the package's files, and its control files under DEBIAN."""
    folder = tmp_path_factory.mktemp("package") / "root"
    subprocess.run(["dpkg-deb", "--raw-extract", package, folder], check=True, timeout=60)
    return folder
