"""The name by which Docker finds the plugin goes with overlayd, and nothing else does."""

from __future__ import annotations

from pathlib import Path

from overlay.docker_socket import SOCKET_NAME, remove_plugin_socket


def test_the_socket_and_empty_folders_are_removed(tmp_path: Path) -> None:
    """An agent makes them on a host whose Docker does not run."""
    folder = tmp_path / "docker" / "plugins"
    folder.mkdir(parents=True)
    (folder / SOCKET_NAME).touch()

    assert remove_plugin_socket(folder) == [str(folder / SOCKET_NAME)]
    assert list(tmp_path.iterdir()) == []
    assert remove_plugin_socket(folder) == []


def test_others_plugins_stay(tmp_path: Path) -> None:
    """A folder that is in use is Docker's."""
    folder = tmp_path / "docker" / "plugins"
    folder.mkdir(parents=True)
    (folder / SOCKET_NAME).touch()
    (folder / "other.sock").touch()
    remove_plugin_socket(folder)

    assert [path.name for path in folder.iterdir()] == ["other.sock"]
