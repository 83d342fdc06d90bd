from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from overlay.core.dataplane.operations import PutRow
from overlay.core.dataplane.state import AddressRow, GuardRow, SandboxState
from overlay.errors import ConflictError, NotFoundError, OverlayError
from overlay.kernel import netns
from overlay.kernel.bpf.fast_path import FastPath
from overlay.kernel.netlink.link_lookup import find_link
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.kernel.sandbox import veth
from overlay.model import Ip, Mac, mac_for, parse_ip

if TYPE_CHECKING:
    from tests.kernel.conftest import Host, World

pytestmark = pytest.mark.netns

IP = parse_ip("10.32.0.9")
MAC = Mac(b"\2\0\0\0\0\x09")


def attach(
    host: Host,
    netns_fd: int,
    port_name: str = "p9",
    *,
    ifname: str | None = None,
    addresses: tuple[tuple[Ip, int], ...] = ((IP, 16),),
    gateway: Ip | None = None,
    further_gateways: tuple[Ip, ...] = (),
) -> veth.AttachedInterface:
    """Attach with default values for what the test does not need."""
    return veth.attach_interface(
        host.sandbox,
        port_name=port_name,
        bridge="br0",
        netns_fd=netns_fd,
        ifname=ifname,
        mac=MAC,
        addresses=addresses,
        mtu=1450,
        gateway=gateway,
        further_gateways=further_gateways,
    )


@pytest.fixture
def host(world: World) -> Host:
    """Return a host with a converged sandbox and no container."""
    made = world.host()
    assert made.converge() == []
    return made


def test_attached_interface(world: World, host: Host) -> None:
    """The container's eth0 has the requested MAC, MTU, address and route."""
    name = world.namespace("c")
    netns_fd = world.fd(name)
    attached = attach(host, netns_fd, gateway=host.gateway)

    assert attached == veth.AttachedInterface("eth0", default_route=True)
    found = veth.inspect_interface(netns_fd, "eth0")
    assert found is not None
    assert (found.mac, found.mtu, found.up) == (MAC, 1450, True)
    assert found.addresses == {(IP, 16)}
    assert found.alias == "overlayd"
    assert "default via 10.32.0.1 dev eth0" in world.run(name, "ip", "route")


def test_next_free_name(world: World, host: Host) -> None:
    """Without a requested name, the interface is the first free ethN."""
    name = world.namespace("c")
    world.run(name, "ip", "link", "add", "eth0", "type", "bridge")
    assert attach(host, world.fd(name)).ifname == "eth1"


def test_taken_interface_name(world: World, host: Host) -> None:
    """A requested name that is taken is a conflict, and leaves nothing behind."""
    name = world.namespace("c")
    world.run(name, "ip", "link", "add", "net0", "type", "bridge")
    with pytest.raises(ConflictError, match="net0"):
        attach(host, world.fd(name), ifname="net0")
    assert host.sandbox.read() == host.desired()


def test_taken_port(world: World, host: Host) -> None:
    """A port that exists is a conflict: the endpoint is already attached."""
    attach(host, world.fd(world.namespace("c")))
    with pytest.raises(ConflictError, match="p9"):
        attach(host, world.fd(world.namespace("d")))


def test_failure_leaves_nothing(world: World, host: Host) -> None:
    """If the set-up inside the container fails, the pair is deleted."""
    name = world.namespace("c")
    unreachable = parse_ip("172.16.0.1")
    with pytest.raises(OverlayError, match=r"172\.16\.0\.1"):
        attach(host, world.fd(name), gateway=unreachable)
    assert host.sandbox.read() == host.desired()
    assert "eth0" not in world.run(name, "ip", "-o", "link")


def test_missing_bridge(world: World) -> None:
    """Without the bridge an attach raises NotFoundError."""
    host = world.host()
    with pytest.raises(NotFoundError, match="br0"):
        attach(host, world.fd(world.namespace("c")))
    assert host.sandbox.read() == SandboxState()


def test_default_route_of_the_container_stays(world: World, host: Host) -> None:
    """A container with a default route keeps it."""
    name = world.namespace("c")
    world.run(name, "ip", "link", "add", "docker", "type", "bridge")
    world.run(name, "ip", "link", "set", "docker", "up")
    world.run(name, "ip", "address", "add", "172.17.0.2/16", "dev", "docker")
    world.run(name, "ip", "route", "add", "default", "via", "172.17.0.1")

    assert not attach(host, world.fd(name), gateway=host.gateway).default_route
    routes = world.run(name, "ip", "route", "show", "default")
    assert routes.count("default") == 1
    assert "docker" in routes


def test_detach(world: World, host: Host) -> None:
    """Detaching deletes both ends; detaching again returns False."""
    name = world.namespace("c")
    attach(host, world.fd(name))

    assert veth.detach_interface(host.sandbox, "p9")
    assert "eth0" not in world.run(name, "ip", "-o", "link")
    assert not veth.detach_interface(host.sandbox, "p9")


def test_detach_many(world: World, host: Host) -> None:
    """Many ports are deleted at once; missing ones are not returned."""
    for number in range(20):
        attach(host, world.fd(world.namespace(f"c{number}")), f"q{number}")
    gone = veth.detach_interfaces(host.sandbox, [f"q{number}" for number in range(21)])

    assert gone == [f"q{number}" for number in range(20)]
    assert host.sandbox.read() == host.desired()


def test_a_detached_port_is_told_of_once_gone(world: World, host: Host) -> None:
    """Told of each that existed; the container's interface is gone by then."""
    names = [world.namespace(f"c{number}") for number in range(3)]
    for number, name in enumerate(names):
        attach(host, world.fd(name), f"q{number}")
    left: dict[str, bool] = {}

    def when_gone(port: str) -> None:
        left[port] = "eth0" in world.run(names[int(port[1:])], "ip", "-o", "link")

    veth.detach_interfaces(host.sandbox, ["q0", "q1", "q2", "q3"], when_gone)
    assert left == dict.fromkeys(("q0", "q1", "q2"), False)


def test_detach_in_threads(world: World, host: Host) -> None:
    """Threads may detach at the same time, while the kernel thread reads."""
    for number in range(12):
        attach(host, world.fd(world.namespace(f"c{number}")), f"q{number}")
    with ThreadPoolExecutor(6) as pool:
        found = pool.map(
            lambda number: veth.detach_interface(host.sandbox, f"q{number}"), range(12)
        )
        while host.sandbox.read() != host.desired():
            pass
        assert any(found)


def test_a_container_that_ends_removes_its_port(world: World, host: Host) -> None:
    """When a container's namespace ends, the port disappears from the sandbox."""
    name = world.claim("c")
    netns_fd = netns.create(name)
    attach(host, netns_fd)
    os.close(netns_fd)
    netns.remove(name)

    world.wait_until(lambda: "p9" not in host.sandbox.read().links, what="the port to go")


def test_change_mtu(world: World, host: Host) -> None:
    """The container's end gets a new MTU.

    A missing interface raises NotFoundError.
    """
    netns_fd = world.fd(world.namespace("c"))
    attach(host, netns_fd)
    veth.change_mtu(netns_fd, "eth0", 1400)

    found = veth.inspect_interface(netns_fd, "eth0")
    assert found is not None
    assert found.mtu == 1400
    with pytest.raises(NotFoundError):
        veth.change_mtu(netns_fd, "eth7", 1400)


def test_first_ping_to_the_gateway_a_hundred_times(world: World, host: Host) -> None:
    """Right after an attach the first packet gets a reply, both ways."""
    answered = 0
    for number in range(50):
        ip = parse_ip(f"10.32.1.{number + 1}")
        name = host.attach(ip)
        answered += world.pings(name, "10.32.0.1")
        answered += world.pings(host.sandbox.name, f"10.32.1.{number + 1}")
    assert answered == 100


def test_identity(world: World) -> None:
    """Two descriptors of one namespace have one identity.

    Two namespaces have two.
    """
    one, two = world.namespace("a"), world.namespace("b")

    assert veth.netns_identity(world.fd(one)) == veth.netns_identity(world.fd(one))
    assert veth.netns_identity(world.fd(one)) != veth.netns_identity(world.fd(two))


def test_ipv6_container(world: World) -> None:
    """A container with an IPv6 address can use it, and its gateway, at once."""
    host = world.host(gateway="fd10:32::1", prefix_length=64)
    assert host.converge() == []
    name = host.attach(parse_ip("fd10:32::2"))

    assert world.pings(name, "fd10:32::1") == 1
    assert "tentative" not in world.run(
        name, "ip", "address", "show", "dev", "eth0", "to", "fd10::/16"
    )
    assert mac_for(host.vni, parse_ip("fd10:32::2")).hex(":") in world.run(name, "ip", "link")


def test_both_families(world: World, host: Host) -> None:
    """A container with an address of each family gets a default route of each."""
    gateway6 = parse_ip("fd10:32::1")
    host.sandbox.apply([PutRow(AddressRow("br0", gateway6, 64))])
    name = world.namespace("c")
    attached = attach(
        host,
        world.fd(name),
        addresses=((IP, 16), (parse_ip("fd10:32::9"), 64)),
        gateway=host.gateway,
        further_gateways=(gateway6,),
    )

    assert attached.default_route
    assert "default via fd10:32::1" in world.run(name, "ip", "-6", "route")
    assert world.pings(name, "10.32.0.1") == 1
    assert world.pings(name, "fd10:32::1") == 1


def test_an_attach_takes_few_round_trips(
    world: World, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The container's links, the pair with its hooks, port security, its settings, the carrier.

    Only the last may have to be asked again.
    """
    host.sandbox.fast_path = FastPath()
    sent: list[str] = []

    def count(name: str) -> None:
        real = getattr(NetlinkSocket, name)

        def counting(socket: NetlinkSocket, *args: Any) -> Any:
            sent.append(name)
            return real(socket, *args)

        monkeypatch.setattr(NetlinkSocket, name, counting)

    for name in ("_send_batch", "_send_one", "atomically"):
        count(name)
    fd = world.fd(world.namespace("c"))
    sent.clear()
    made = veth.attach_interface(
        host.sandbox,
        port_name="p9",
        bridge="br0",
        netns_fd=fd,
        container="c",
        ifname=None,
        mac=MAC,
        addresses=((IP, 16),),
        mtu=1450,
        gateway=parse_ip("10.32.0.1"),
        allowed=GuardRow((MAC,), (IP,), "p9"),
    )

    assert made == veth.AttachedInterface("eth0", default_route=True)
    assert sent[:4] == ["_send_one", "_send_batch", "atomically", "_send_batch"]
    assert set(sent[4:]) == {"_send_one"}
    assert host.sandbox.link_index("p9") == find_link(host.sandbox.socket, "p9")


def test_a_taken_index_is_not_used_again(world: World, host: Host) -> None:
    """Another program's interface may have the number that was chosen for a port."""
    chosen = host.sandbox._links._next + 1
    name = host.sandbox.name
    world.run(name, "ip", "link", "add", "x0", "index", str(chosen), "type", "bridge")

    attach(host, world.fd(world.namespace("c")))

    assert host.sandbox.link_index("p9") == chosen + 1
