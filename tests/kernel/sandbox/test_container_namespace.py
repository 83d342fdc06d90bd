"""Containers' namespaces are told from the host's and from sandboxes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from overlay.errors import ConflictError
from overlay.kernel import netns
from overlay.kernel.host import default_route, macvlan
from overlay.kernel.netlink.link_lookup import find_link
from overlay.kernel.sandbox import container_namespace, veth
from overlay.model import Mac

if TYPE_CHECKING:
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns


def test_a_container_can_be_a_target(world: World) -> None:
    """A namespace of anybody's, and one of `overlayd container`, is accepted."""
    name = world.namespace("c")
    container_namespace.require_container(world.fd(name), name)
    world.run(name, "ip", "link", "set", "lo", "alias", "overlayd:container")

    container_namespace.require_container(world.fd(name), name)
    world.run(name, "ip", "link", "set", "lo", "down")
    world.run(name, "ip", "link", "set", "lo", "name", "renamed")
    container_namespace.require_container(world.fd(name), name)


def test_disabled_ipv6_is_seen_in_the_namespace(world: World) -> None:
    """Setting it for all interfaces sets it for new ones."""
    name = world.namespace("c")
    assert not container_namespace.has_ipv6_disabled(world.fd(name))
    for scope in ("all", "default"):
        world.run(name, "sysctl", "-qw", f"net.ipv6.conf.{scope}.disable_ipv6=1")
        assert container_namespace.has_ipv6_disabled(world.fd(name))
        world.run(name, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0")


def test_a_sandbox_is_no_target(world: World) -> None:
    """Its descriptor shows what it is, also after it has lost its name."""
    sandbox = world.host().sandbox
    descriptor = world.fd(sandbox.name)
    netns.remove(sandbox.name)

    with pytest.raises(ConflictError, match="is a namespace of overlayd's own") as caught:
        container_namespace.require_container(descriptor, "/somewhere")
    assert caught.value.why
    assert caught.value.hint


def test_an_unfinished_sandbox_is_no_target(world: World) -> None:
    """One that has only its name yet is refused by its name."""
    name = f"ov-00beef-{os.getpid():x}"
    world.names.append(name)
    descriptor = netns.create(name)
    world.open.append(descriptor)

    with pytest.raises(ConflictError, match="is a namespace of overlayd's own"):
        container_namespace.require_container(descriptor, "/somewhere")


def test_the_host_is_no_target() -> None:
    """The agent's own namespace is refused."""
    with (
        netns.closing(netns.own_fd()) as own,
        pytest.raises(ConflictError, match="host's own network namespace"),
    ):
        container_namespace.require_container(own, "/somewhere")


def test_a_stored_path_is_checked_when_opened_again(world: World, tmp_path: Path) -> None:
    """An inode that a sandbox has by now, or the host, is not a container's."""
    path = tmp_path / "stored"
    container = world.namespace("c")
    sandbox = world.host().sandbox.name
    for place in (netns.path_of(container), netns.path_of(sandbox), Path(netns.OWN_NAMESPACE)):
        path.unlink(missing_ok=True)
        path.symlink_to(place)
        found = place.stat()
        descriptor = container_namespace.open_same(path, (found.st_dev, found.st_ino))
        assert (descriptor is not None) == (place.name == container)
        if descriptor is not None:
            os.close(descriptor)
        with container_namespace.socket_in(path, (found.st_dev, found.st_ino)) as inside:
            assert (inside is not None) == (place.name == container)
        assert container_namespace.open_same(path, (found.st_dev, found.st_ino + 1)) is None


def test_the_way_out_is_read_in_the_same_namespace(world: World, tmp_path: Path) -> None:
    """A path that leads to another namespace by now says nothing about the container."""
    path = tmp_path / "stored"
    attached, other = world.namespace("a"), world.namespace("b")
    for name in (attached, other):
        world.run(name, "ip", "link", "add", "eth0", "type", "bridge")
        world.run(name, "ip", "link", "set", "eth0", "up")
        world.run(name, "ip", "address", "add", "10.32.0.2/16", "dev", "eth0")
        world.run(name, "ip", "route", "add", "default", "via", "10.32.0.1")
    identity = netns.identity(world.fd(attached))

    path.symlink_to(netns.path_of(attached))
    assert default_route.leads_out_by(str(path), identity, "eth0", 4)
    path.unlink()
    path.symlink_to(netns.path_of(other))
    assert not default_route.leads_out_by(str(path), identity, "eth0", 4)


def test_no_interface_is_made_in_a_sandbox(world: World) -> None:
    """Both kinds of interfaces are refused there, and nothing is made."""
    sandbox = world.host().sandbox
    descriptor = world.fd(sandbox.name)
    with pytest.raises(ConflictError, match="c is a namespace of overlayd's own"):
        veth.attach_interface(
            sandbox,
            port_name="ve0",
            bridge="br0",
            netns_fd=descriptor,
            container="c",
            ifname=None,
            mac=Mac(b"\x02\0\0\0\0\1"),
            addresses=[],
            mtu=1450,
            gateway=None,
        )
    with pytest.raises(ConflictError, match="c is a namespace of overlayd's own"):
        macvlan.attach_interface(
            kind="macvlan",
            parent="eth0",
            mark="ve0",
            netns_fd=descriptor,
            container="c",
            ifname=None,
            mac=None,
            addresses=[],
            gateways=[],
        )

    assert find_link(sandbox.socket, "ve0") == 0
