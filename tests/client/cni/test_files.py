"""Launcher and conflist: written, replaced and removed only where they are overlayd's."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from overlay.client.cni import files
from overlay.errors import ConflictError


@pytest.fixture
def places(tmp_path: Path) -> files.CniPlaces:
    """Return the folders of a runtime, which do not exist yet."""
    return files.CniPlaces(tmp_path / "cni/bin", tmp_path / "net.d")


def test_the_launcher_starts_the_plugin(places: files.CniPlaces, tmp_path: Path) -> None:
    """With almost no environment, as Podman's cleanup has it, and the chosen run directory."""
    files.install("blue", places, tmp_path / "run")
    version = {"CNI_COMMAND": "VERSION"}
    delete = {"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "a", "CNI_IFNAME": "eth0"}

    def called(environ: dict[str, str]) -> tuple[int, dict[str, object]]:
        raw = b'{"cniVersion": "1.0.0", "name": "blue"}'
        done = subprocess.run(
            [places.launcher], input=raw, env=environ, capture_output=True, check=False, timeout=60
        )
        return done.returncode, json.loads(done.stdout)

    assert called(version)[1]["cniVersion"] == "1.0.0"
    code, error = called(delete)
    assert code == 1
    assert str(tmp_path / "run/api.sock") in str(error["msg"])


def test_the_conflist_suits_old_and_new_runtimes(places: files.CniPlaces, tmp_path: Path) -> None:
    """Old ones take the first version, others choose; each capability is declared."""
    files.install("blue", places, tmp_path)
    conflist = json.loads(places.conflist("blue").read_text())

    assert conflist["cniVersion"] == "1.0.0"
    assert conflist["cniVersions"] == ["1.0.0", "1.1.0"]
    assert conflist["name"] == "blue"
    (plugin,) = conflist["plugins"]
    assert plugin["type"] == "overlayd"
    assert set(plugin["capabilities"]) == {
        "ips", "mac", "aliases", "portMappings", "bandwidth", "dns",
    }  # fmt: skip


def test_a_second_installation_changes_nothing(places: files.CniPlaces, tmp_path: Path) -> None:
    """One that is damaged is written again, and only that."""
    first = files.install("blue", places, tmp_path)
    assert first == [places.launcher, places.conflist("blue")]
    assert files.install("blue", places, tmp_path) == []
    places.launcher.chmod(0o600)

    assert files.install("blue", places, tmp_path) == [places.launcher]
    assert os.access(places.launcher, os.X_OK)


def test_a_foreign_program_is_not_replaced(places: files.CniPlaces, tmp_path: Path) -> None:
    """Nor removed; and a conflist of another plugin is left as it is."""
    places.bin_dir.mkdir(parents=True)
    places.conf_dir.mkdir()
    places.launcher.write_text("#!/bin/sh\n")
    other = places.conf_dir / "10-overlayd-other.conflist"
    other.write_text('{"plugins": [{"type": "bridge"}]}')
    with pytest.raises(ConflictError, match="overlayd did not make it"):
        files.install("blue", places, tmp_path)

    assert files.uninstall(None, places) == []
    assert places.launcher.exists()
    assert other.exists()


def test_the_launcher_goes_with_the_last_network(places: files.CniPlaces, tmp_path: Path) -> None:
    """Also if a conflist was extended by hand; twice is no error."""
    for network in ("blue", "green"):
        files.install(network, places, tmp_path)
    extended = json.loads(places.conflist("green").read_text())
    extended["plugins"].append({"type": "tuning"})
    places.conflist("green").write_text(json.dumps(extended))

    assert files.uninstall("blue", places) == [places.conflist("blue")]
    assert files.uninstall(None, places) == [places.conflist("green"), places.launcher]
    assert not places.bin_dir.exists()
    assert places.conf_dir.exists()  # containerd watches it
    assert files.uninstall(None, places) == []
