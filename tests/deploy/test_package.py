from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from overlay import __version__
from overlay.agent.process import config
from overlay.agent.state import state_file

ROOT = Path(__file__).parent.parent.parent


def test_the_package_is_complete(unpacked: Path) -> None:
    """Program, unit, group, configuration, manual page and completions are in their directories."""
    wanted = [
        "opt/overlayd/bin/overlayd",
        "usr/lib/systemd/system/overlayd.service",
        "usr/lib/systemd/system-preset/80-overlayd.preset",
        "usr/lib/sysusers.d/overlayd.conf",
        "usr/share/bash-completion/completions/overlayd",
        "usr/share/zsh/vendor-completions/_overlayd",
        "usr/share/fish/vendor_completions.d/overlayd.fish",
        "usr/lib/systemd/system/overlayd-textfile.service",
        "usr/lib/systemd/system/overlayd-textfile.timer",
        "usr/share/overlayd/monitoring/overlayd-textfile",
        "usr/share/overlayd/monitoring/alerts.yml",
        "usr/share/overlayd/monitoring/grafana.json",
    ]

    assert [path for path in wanted if not (unpacked / path).is_file()] == []
    assert (unpacked / "usr/bin/overlayd").readlink() == Path("/opt/overlayd/bin/overlayd")
    for page in ("man8/overlayd.8.gz", "man5/overlayd.toml.5.gz"):
        assert b".TH" in gzip.decompress((unpacked / "usr/share/man" / page).read_bytes())
    changes = (unpacked / "usr/share/doc/overlayd/changelog.gz").read_bytes()
    assert gzip.decompress(changes) == (ROOT / "CHANGELOG.md").read_bytes()


def test_the_package_has_the_files_of_the_page(unpacked: Path) -> None:
    """Those of `overlayd web`, which are no Python."""
    (libraries,) = unpacked.glob("opt/overlayd/lib/python3.*/site-packages")
    files = [path for path in (ROOT / "overlay/web/static").rglob("*") if path.is_file()]

    assert len(files) > 10
    for path in files:
        assert (libraries / path.relative_to(ROOT)).read_bytes() == path.read_bytes()


def test_nothing_is_packaged_in_other_directories(unpacked: Path) -> None:
    """Other files could collide with other packages, or stay behind."""
    tops = {
        str(path.relative_to(unpacked).parent)
        for path in unpacked.rglob("*")
        if path.is_file() and "site-packages" not in path.parts
    }

    assert tops <= {
        "DEBIAN",
        "etc/overlayd",
        "opt/overlayd",
        "opt/overlayd/bin",
        "usr/bin",
        "usr/lib/systemd/system",
        "usr/lib/systemd/system-preset",
        "usr/lib/sysusers.d",
        "usr/share/bash-completion/completions",
        "usr/share/doc/overlayd",
        "usr/share/fish/vendor_completions.d",
        "usr/share/man/man5",
        "usr/share/man/man8",
        "usr/share/overlayd/monitoring",
        "usr/share/zsh/vendor-completions",
    }


def test_the_package_runs_from_its_own_folder(unpacked: Path) -> None:
    """Program and libraries load from the package only, and are compiled in advance."""
    (libraries,) = unpacked.glob("opt/overlayd/lib/python3.*/site-packages")
    code = "import overlay.agent.main, overlay.cli.main as m; raise SystemExit(m.main(['version']))"
    python = f"/usr/bin/{libraries.parent.name}"
    before = sorted(unpacked.rglob("*"))
    done = subprocess.run(
        [python, "-SP", "-c", code],
        env={"PYTHONPATH": str(libraries)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (done.stdout, done.stderr) == (f"overlayd {__version__}\n", "")
    assert sorted(unpacked.rglob("*")) == before


def test_no_path_of_the_building_machine_is_left(unpacked: Path) -> None:
    """Scripts and settings of the environment have the installed paths."""
    (script,) = [
        path
        for path in (unpacked / "opt/overlayd/bin").iterdir()
        if path.is_file() and not path.is_symlink()
    ]
    texts = [script.read_text(), (unpacked / "opt/overlayd/pyvenv.cfg").read_text()]

    assert texts[0].startswith("#!/opt/overlayd/bin/python -I\n")
    assert (unpacked / "opt/overlayd/bin/python3").readlink() == Path("/usr/bin/python3")
    assert not [text for text in texts if str(ROOT) in text or "/tmp/" in text]  # noqa: S108


def test_control_names_the_python_it_was_built_for(unpacked: Path) -> None:
    """Compiled libraries need one minor version of Python, as dpkg must know.

    The package has the version that the program prints.
    """
    control = (unpacked / "DEBIAN/control").read_text()
    (libraries,) = unpacked.glob("opt/overlayd/lib/python3.*")
    minor = int(libraries.name.partition(".")[2])

    assert f"python3 (>= 3.{minor}~), python3 (<< 3.{minor + 1})" in control
    assert f"Version: {__version__}-1\n" in control
    assert not re.search(r"@[A-Z]+@", control)


def test_the_package_scripts_are_valid_shell(unpacked: Path) -> None:
    """Every placeholder is filled, and sh accepts each script."""
    for name in ("preinst", "postinst", "prerm", "postrm"):
        script = unpacked / "DEBIAN" / name
        assert os.access(script, os.X_OK)
        assert "@" not in script.read_text()
        subprocess.run(["sh", "-n", script], check=True, timeout=10)
    text = (unpacked / "DEBIAN/preinst").read_text()
    assert f"python3 -I - {state_file.FORMAT_VERSION} " in text


def test_the_sample_configuration_shows_the_defaults() -> None:
    """Each line, uncommented, is the agent's default."""
    sample = (ROOT / "deploy/overlayd.toml").read_text()
    lines = [line[2:] for line in sample.splitlines() if re.match(r"# \w+ = ", line)]
    shown = tomllib.loads("\n".join(lines))
    defaults = config.Config()

    assert shown == {
        key: str(value) if isinstance(value, Path) else value
        for key in shown
        for value in [getattr(defaults, key)]
    }
    assert set(shown) >= {"state_dir", "run_dir", "api_group", "log_level"}


def test_systemd_accepts_the_unit(unpacked: Path, tmp_path: Path) -> None:
    """Every line is known, except one that older versions ignore."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    text = (unpacked / "usr/lib/systemd/system/overlayd.service").read_text()
    unit = tmp_path / "overlayd.service"
    # The program is not installed on this machine; only the unit is checked.
    unit.write_text(text.replace("/usr/bin/overlayd", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    told = [line for line in done.stderr.splitlines() if "overlayd" in line]

    assert [line for line in told if not line.endswith("ignoring: notify-reload")] == []


def test_the_unit_never_gives_up() -> None:
    """After a long outage at boot, systemd would not start it any more by default."""
    unit = (ROOT / "deploy/overlayd.service").read_text()
    head = unit.partition("[Service]")[0]

    assert "\nStartLimitIntervalSec=0\n" in head
    assert "\nRestart=on-failure\n" in unit


def test_the_unit_has_no_private_mount_namespace() -> None:
    """No setting gives the service its own mounts (systemd.exec(5)): /run/netns is one.

    Seen with systemd 252: `ip netns exec` failed for namespaces that the agent had created.
    """
    unit = (ROOT / "deploy/overlayd.service").read_text()
    keys = {line.partition("=")[0] for line in unit.splitlines() if not line.startswith("#")}
    isolating = {
        "BindPaths", "BindReadOnlyPaths", "DynamicUser", "ExecPaths", "InaccessiblePaths",
        "MountFlags", "NoExecPaths", "PrivateDevices", "PrivateIPC", "PrivateMounts",
        "PrivateNetwork", "PrivateTmp", "PrivateUsers", "ProcSubset", "ProtectControlGroups",
        "ProtectHome", "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables",
        "ProtectProc", "ProtectSystem", "ReadOnlyPaths", "ReadWritePaths", "RootDirectory",
        "RootImage", "TemporaryFileSystem",
    }  # fmt: skip

    assert keys & isolating == set()


def test_no_record_depends_on_where_it_was_built(unpacked: Path) -> None:
    """So two builds of a commit are equal: RECORD has no hash of what names the build's folder."""
    records = list(unpacked.glob("opt/overlayd/lib/python3.*/site-packages/*.dist-info/RECORD"))

    assert len(records) > 10
    for record in records:
        assert "/bin/" not in record.read_text()
        assert "direct_url.json" not in record.read_text()


def test_the_pages_name_the_packages_of_this_version() -> None:
    """So a line that is pasted finds the file that `make deb` has written."""
    page = (ROOT / "docs/start/install.md").read_text()
    named = re.findall(r"overlayd[_-](\d+\.\d+\.\d+)-1[._]", page)

    assert len(named) >= 3
    assert set(named) == {__version__}
