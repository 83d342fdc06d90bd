"""From a network namespace back to the container that it belongs to."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from overlay.agent.runtimes.engines import EngineContainer
from overlay.agent.runtimes.namespace_owner import owner_of
from overlay.agent.runtimes.targets import TargetSources
from tests.agent.runtimes.test_targets import ID, FakeRuntime

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a network namespace"),
]


@pytest.fixture
def pid() -> Iterator[int]:
    """Run a process in a namespace of its own; its parent's command has a container's id."""
    shim = subprocess.Popen(
        ["sh", "-c", "unshare --net sh -c 'echo $$; cat'; true", ID],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert shim.stdout is not None
    yield int(shim.stdout.readline())
    shim.communicate()


def identity_of(pid: int) -> tuple[int, int]:
    """Return the identity of a process's namespace."""
    status = Path(f"/proc/{pid}/ns/net").stat()
    return (status.st_dev, status.st_ino)


def owner(pid: int, sources: TargetSources) -> str:
    """Return the text of the target that a process's namespace belongs to."""
    found = owner_of(identity_of(pid), sources)
    assert found is not None
    found.close()
    return found.text


def test_a_name_comes_before_a_runtime(pid: int, tmp_path: Path) -> None:
    """A named namespace is that name's; without one, it is a container's, else a process's."""
    docker = FakeRuntime("docker", "Docker", {ID: EngineContainer("docker", "web", ID, pid, "")})
    nothing = FakeRuntime("podman", "Podman", {}, broken=True)
    names = tmp_path / "netns"
    names.mkdir()
    assert owner(pid, TargetSources(netns_dir=names, runtimes=(nothing,))) == f"pid:{pid}"
    known = TargetSources(netns_dir=names, runtimes=(nothing, docker))
    assert owner(pid, known) == "docker:web"

    (names / "c1").symlink_to(f"/proc/{pid}/ns/net")
    (names / "ov-00abcd-010203").symlink_to(f"/proc/{pid}/ns/net")

    assert owner(pid, known) == "netns:c1"


def test_a_namespace_that_is_gone_has_no_owner(tmp_path: Path) -> None:
    """Nothing has the identity."""
    assert owner_of((0, 0), TargetSources(netns_dir=tmp_path, runtimes=())) is None
