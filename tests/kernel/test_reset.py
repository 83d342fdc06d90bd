from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING

import pytest
from overlay.errors import OverlayError
from overlay.kernel import container_files, netns, reset
from overlay.kernel.nft.foreign_rules import ForeignRules
from overlay.kernel.sandbox import veth
from overlay.kernel.sandbox.container_namespace import SANDBOX_NAME
from overlay.kernel.sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kernel.conftest import Host, World

pytestmark = pytest.mark.netns


def removed_here(world: World, host: Host) -> list[str]:
    """Reset from inside the host; return only this test's objects."""
    with netns.inside(world.fd(host.name)):
        return reset.remove_everything(lambda name: name.startswith(world.prefix))


def test_everything_of_overlayd_is_removed(world: World, two_hosts: tuple[Host, Host]) -> None:
    """Sandboxes, interfaces, bare containers and tables are removed."""
    one, two = two_hosts
    first, _ = world.plug(one, two)
    bare = world.claim("bare")
    os.close(veth.create_namespace(bare))
    if shutil.which("nft"):
        world.run(one.name, "nft", "add", "table", "inet", "overlayd")
    removed = removed_here(world, one)

    assert f"sandbox {one.sandbox.name}" in removed
    assert f"container namespace {bare}" in removed
    assert not netns.exists(one.sandbox.name)
    assert not netns.exists(bare)
    assert "eth0" not in world.run(first, "ip", "-o", "link")
    if shutil.which("nft"):
        assert "overlayd" not in world.run(one.name, "nft", "list", "tables")
    assert removed_here(world, one) == []


def test_objects_of_others_are_kept(world: World) -> None:
    """Namespaces, devices and tables of others are kept."""
    host = world.host()
    lookalike = world.namespace("ov-000001")
    other = world.namespace("web")
    world.run(host.name, "ip", "link", "add", "docker0", "type", "bridge")
    if shutil.which("nft"):
        world.run(host.name, "nft", "add", "table", "inet", "filter")
    removed = removed_here(world, host)

    assert removed == [f"sandbox {host.sandbox.name}"]
    assert netns.exists(lookalike)
    assert netns.exists(other)
    assert "docker0" in world.run(host.name, "ip", "-o", "link")
    if shutil.which("nft"):
        assert "filter" in world.run(host.name, "nft", "list", "tables")


def test_what_a_crash_left_of_containers_is_removed(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name without a namespace, and files without a name; those of others are kept."""
    monkeypatch.setattr(container_files, "FILES_DIRECTORY", tmp_path)
    host = world.host()
    ours, files, theirs, taken = (world.claim(each) for each in ("a", "b", "c", "d"))
    for name in (ours, files, theirs):
        (tmp_path / name).mkdir()
        (tmp_path / name / "hosts").write_text(f"{container_files.OWN_MARK}\n")
    (tmp_path / theirs / "hosts").write_text("127.0.0.1 localhost\n")
    for name in (ours, theirs):
        netns.path_of(name).touch()
    (tmp_path / f"{files}-x").symlink_to(files)  # it shared that one's files, and goes after them
    (tmp_path / world.namespace("d")).mkdir()
    (tmp_path / taken / "hosts").write_text(f"{container_files.OWN_MARK}\n")

    removed = removed_here(world, host)

    assert f"name of a container {ours}" in removed
    assert f"files of container {files}" in removed
    assert f"files of container {files}-x" in removed
    assert ours not in netns.names()
    assert netns.exists(taken)
    assert theirs in netns.names()
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([theirs, taken])
    netns.path_of(theirs).unlink()


def test_an_unreadable_name_does_not_stop_a_reset(world: World) -> None:
    """An unusual file among the namespaces' names is reported.

    Everything else is removed.
    """
    host = world.host()
    world.run(host.name, "ip", "link", "add", "up0", "type", "bridge")
    world.run(host.name, "ip", "link", "set", "up0", "alias", "overlayd:uplink")
    strange = netns.path_of(f"{world.prefix}a")  # before the sandbox's, in the order of names
    strange.symlink_to(strange)
    try:
        with pytest.raises(OverlayError, match="may be left") as caught:
            removed_here(world, host)
    finally:
        strange.unlink()

    assert strange.name in caught.value.why
    assert not netns.exists(host.sandbox.name)
    assert "up0" not in world.run(host.name, "ip", "-o", "link")


@pytest.mark.parametrize("name", ["ov-800001", "ov-800001-3f9c21"])
def test_sandbox_names(name: str) -> None:
    """The names of sandboxes are recognized when their namespace is gone."""
    assert SANDBOX_NAME.fullmatch(name)
    assert not SANDBOX_NAME.fullmatch(f"{name}-web")


def test_devices_in_the_host_namespace(world: World) -> None:
    """A device in the host's namespace with overlayd's alias is removed too."""
    host = world.host()
    world.run(host.name, "ip", "link", "add", "up0", "type", "bridge")
    world.run(host.name, "ip", "link", "set", "up0", "alias", "overlayd:uplink")
    assert "interface up0" in removed_here(world, host)
    assert "up0" not in world.run(host.name, "ip", "-o", "link")


def test_open_sandbox_can_be_reset(world: World) -> None:
    """A sandbox that a process has open is emptied nevertheless."""
    host = world.host()
    assert host.converge() == []
    removed_here(world, host)
    assert host.sandbox.read().links == {}
    with netns.inside(world.fd(host.name)):
        again = Sandbox.open(world.claim("again"), create=True)
    again.close()


def test_what_the_kernel_refuses_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """And stops nothing else: such as the rules that were added to Docker's."""
    host = world.host()

    def refuse(_rules: ForeignRules) -> bool:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(ForeignRules, "remove_accept_rules", refuse)
    with pytest.raises(OverlayError, match="may be left") as caught:
        removed_here(world, host)

    assert caught.value.why == "rules in DOCKER-USER: Operation not permitted"
    assert not netns.exists(host.sandbox.name)
