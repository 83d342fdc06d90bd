"""Kernel objects of another identity of this host are recognized by name and mark."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.host_rules import ForwardingInterface, HostState
from overlay.core.dataplane.link_state import HOST_LINK_PREFIX
from overlay.kernel import former_identity, netns
from overlay.kernel.netlink import link_requests
from overlay.kernel.netlink.link_lookup import find_link
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.kernel.nft.host.host_table import HostTable
from overlay.kernel.sandbox.sandbox import Sandbox
from overlay.model import NodeId

if TYPE_CHECKING:
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns

FORMER, OTHER = NodeId(b"\xf1\x02\x03" + bytes(13)), NodeId(b"\xf2\x02\x03" + bytes(13))


def name_of(node_id: NodeId) -> str:
    """Return the name of a node's sandbox."""
    return f"ov-00abcd-{node_id[:3].hex()}"


@pytest.fixture
def sandboxes() -> Iterator[None]:
    """Make a sandbox of each of two identities, as agents that ended left them."""
    for node_id in (FORMER, OTHER):
        Sandbox.open(name_of(node_id), create=True).close()
    yield
    for node_id in (FORMER, OTHER):
        if netns.exists(name_of(node_id)):
            Sandbox.open(name_of(node_id), create=False).destroy()


@pytest.mark.usefixtures("sandboxes")
def test_only_the_former_identitys_objects_go() -> None:
    """Its sandbox and its uplink are removed; another identity's, and a foreign link, stay."""
    links = {
        f"{HOST_LINK_PREFIX}00abcd{FORMER[:3].hex()}": "overlayd",
        f"{HOST_LINK_PREFIX}00abcd{OTHER[:3].hex()}": "overlayd",
        f"{HOST_LINK_PREFIX}00abce{FORMER[:3].hex()}": "somebody's",
    }
    with NetlinkSocket() as socket:
        for number, (name, alias) in enumerate(links.items()):
            words = ["ip", "link", "add", name, "type", "veth", "peer", "name", f"peer{number}"]
            subprocess.run(words, check=True)
            socket.request(link_requests.set_alias(find_link(socket, name), alias))
        removed = former_identity.remove_objects(FORMER)
        left = [name for name in links if find_link(socket, name)]
        for name in left:
            socket.request(link_requests.delete_link(find_link(socket, name)))

    assert removed == [f"sandbox {name_of(FORMER)}", f"interface {next(iter(links))}"]
    assert left == list(links)[1:]
    assert former_identity.sandboxes_of(FORMER) == []
    assert former_identity.sandboxes_of(OTHER) == [name_of(OTHER)]


def test_what_a_former_identity_opened_is_closed(world: World) -> None:
    """With its table the host would be a router, but for what another identity's guards, too."""
    host = world.namespace("host")
    for name in ("eth1", "eth2"):
        world.run(host, "ip", "link", "add", name, "type", "veth", "peer", f"x{name}")
        world.run(host, "sysctl", "-qw", f"net.ipv4.conf.{name}.forwarding=1")
    links = json.loads(world.run(host, "ip", "-j", "link"))
    indexes = {each["ifname"]: each["ifindex"] for each in links}
    with netns.inside(world.fd(host)):
        for node_id, names in ((FORMER, ("eth1", "eth2")), (OTHER, ("eth2",))):
            opened = frozenset(ForwardingInterface(indexes[name], 4) for name in names)
            with closing(HostTable(node_id)) as table:
                table.write(HostState(opened=opened))
        removed = former_identity.remove_objects(FORMER)

    table_name = f"overlayd_host_{FORMER[:3].hex()}"
    assert removed == ["setting of net/ipv4/conf/eth1/forwarding", f"nftables table {table_name}"]
    switches = [f"net.ipv4.conf.{name}.forwarding" for name in ("eth1", "eth2")]
    assert world.run(host, "sysctl", "-n", *switches).split() == ["0", "1"]


@pytest.mark.usefixtures("sandboxes")
def test_a_sandbox_that_an_agent_has_open_is_held() -> None:
    """Another process has a descriptor of it; one that this process has does not count."""
    path = netns.path_of(name_of(FORMER))
    own = os.open(path, os.O_RDONLY)
    assert not former_identity.is_held(name_of(FORMER))
    with subprocess.Popen(["sh", "-c", f"exec 3<{path}; echo; cat"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as agent:  # fmt: skip
        assert agent.stdout is not None
        agent.stdout.readline()
        assert former_identity.is_held(name_of(FORMER))
        assert former_identity.abandoned_sandboxes() == [name_of(OTHER)]
        agent.communicate()
    os.close(own)

    assert not former_identity.is_held(name_of(FORMER))
    assert former_identity.abandoned_sandboxes() == [name_of(FORMER), name_of(OTHER)]
