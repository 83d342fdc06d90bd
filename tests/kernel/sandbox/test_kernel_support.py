from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from overlay.errors import OverlayError
from overlay.kernel import netns
from overlay.kernel.netlink import codec, link_requests
from overlay.kernel.netlink import socket as netlinksocket
from overlay.kernel.sandbox import kernel_support

if TYPE_CHECKING:
    from tests.kernel.conftest import Host, World

pytestmark = pytest.mark.netns


def test_capable() -> None:
    """Root on a capable kernel lacks nothing; the check leaves no trace."""
    before = netns.names()
    kernel_support.require_kernel_support()

    assert kernel_support.missing_capabilities() == []
    assert netns.names() == before


def test_holder_of_a_vni(world: World, two_hosts: tuple[Host, Host]) -> None:
    """A sandbox's VTEP is found from its own host only."""
    one, two = two_hosts
    for host in (one, two):
        with netns.inside(world.fd(host.name)):
            (holder,) = kernel_support.vni_holders(4789)
            assert (holder.vni, holder.port, holder.ifname) == (host.vni, 4789, "vxlan0")
            assert host.sandbox.name in holder.where
            assert holder.alias == "overlayd"
            assert kernel_support.vni_holders(4790) == []
            assert kernel_support.foreign_vnis(4789) == {host.vni}


def test_a_vtep_is_never_blamed_on_itself(world: World) -> None:
    """A flow-based VXLAN device that has the port is named, and is no longer in the way once gone.

    So is one with the same VNI on the port.
    """
    host = world.host("192.168.56.11")
    other = ("ip", "link", "add", "ovsvx", "type", "vxlan", "external", "dstport", "4789")
    world.run(host.name, *other)
    world.run(host.name, "ip", "link", "set", "ovsvx", "up")
    failures = [*host.converge(), *host.converge()]
    reasons = {each.reason for each in failures if each.is_of_network}
    assert reasons == {"UDP port 4789 is in use by ovsvx in the host's own namespace"}
    world.run(host.name, "ip", "link", "del", "ovsvx")
    assert host.converge() == []

    second = world.host("192.168.56.12")
    vni = ("id", str(second.vni), "dstport", "4789")
    world.run(second.name, "ip", "link", "add", "other", "type", "vxlan", *vni)
    (failure,) = (each for each in second.converge() if each.is_of_network)
    assert failure.reason.startswith("other in the host's own namespace already has VNI")


def test_port_holder(world: World) -> None:
    """A program that holds the UDP port is named.

    The kernel's own VXLAN socket is not.
    """
    with netns.inside(world.fd(world.namespace("a"))):
        assert kernel_support.port_holder(4789) is None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("0.0.0.0", 4789))  # noqa: S104 - alone in a namespace
            holder = kernel_support.port_holder(4789)
    assert holder is not None
    assert "process" in holder


def test_kernel_socket_is_no_holder(world: World, two_hosts: tuple[Host, Host]) -> None:
    """The UDP socket of a VXLAN device belongs to no program."""
    one, _ = two_hosts
    with netns.inside(world.fd(one.name)):
        assert kernel_support.port_holder(4789) is None


def test_a_missing_device_kind_is_reported_with_its_module() -> None:
    """The error for a missing device kind names the module to load."""
    unknown = link_requests._link(
        codec.RTM_NEWLINK,
        codec.NLM_F_CREATE | codec.NLM_F_EXCL,
        [("IFLA_IFNAME", "vxlan0"), link_requests._info("vxlan-unknown", [])],
    )
    with (
        netns.temporary() as netns_fd,
        netlinksocket.NetlinkSocket(netns_fd) as inside,
        pytest.raises(OverlayError, match="this kernel has no VXLAN devices") as caught,
    ):
        kernel_support._try(inside, "VXLAN", unknown)

    assert "modprobe vxlan" in caught.value.hint
