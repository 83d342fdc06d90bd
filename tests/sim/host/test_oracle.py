from __future__ import annotations

from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.link_state import Port
from overlay.core.dataplane.operations import DeleteRow
from overlay.core.dataplane.planning.inputs import LocalPort, PlanInput, RemoteEndpoint
from overlay.core.dataplane.planning.planner import plan_sandbox
from overlay.core.dataplane.state import FdbRow, NeighborRow, SandboxState
from overlay.model import Endpoint, Ip, Network, NodeId, Subnet, Vni, mac_for, parse_ip
from overlay.sim.host.kernel import Container, Kernel
from overlay.sim.host.oracle import VXLAN_PORT, HostTruth, expected, trace_packet

ONE, TWO = parse_ip("192.168.0.1"), parse_ip("192.168.0.2")
NETWORK = Network(
    Vni(64),
    "blue",
    (
        Subnet(parse_ip("10.1.0.0"), 24, parse_ip("10.1.0.1")),
        Subnet(parse_ip("10.2.0.0"), 24, parse_ip("10.2.0.1")),
    ),
    NodeId(bytes(16)),
)


def container(text: str, index: int = 0) -> Container:
    """Return a container with that address."""
    ip = parse_ip(text)
    endpoint = Endpoint(ip * 2, NETWORK.vni, f"c{ip[-1]}", mac_for(NETWORK.vni, ip), (ip,))
    return Container(endpoint, f"ve{ip[-1]}", index)


HERE = HostTruth(ONE, (container("10.1.0.2"), container("10.2.0.3", 1)))
THERE = HostTruth(TWO, (container("10.1.0.4"), container("10.2.0.5", 1)))


def kernel_of(truth: HostTruth, other: HostTruth) -> Kernel:
    """Return a kernel in the expected state."""
    kernel = Kernel()
    kernel.open(NETWORK.vni)
    desired = expected(NETWORK, 1450, truth, [other])
    ports = {item.port for item in truth.containers}
    links = {name: link for name, link in desired.links.items() if name not in ports}
    kernel.apply(NETWORK.vni, diff(SandboxState(links, desired.rows), SandboxState(), prune=True))
    for item in truth.containers:
        kernel.plug(item, Port(item.port, 1450, f"br{item.subnet_index}"))
    assert kernel.read(NETWORK.vni) == desired
    return kernel


def test_planner_and_oracle_agree() -> None:
    """Two independent computations from the same facts give the same sandbox."""
    planned = plan_sandbox(
        PlanInput(
            network=NETWORK,
            port=VXLAN_PORT,
            local=ONE,
            mtu=1450,
            ports=tuple(LocalPort(item.port, item.subnet_index) for item in HERE.containers),
            locals=tuple(item.endpoint for item in HERE.containers),
            remotes=tuple(
                RemoteEndpoint(NodeId(b"t" * 16), TWO, item.endpoint) for item in THERE.containers
            ),
            flood=(TWO,),
        )
    )

    assert planned == expected(NETWORK, 1450, HERE, [THERE])


def test_a_packet_is_traced_between_hosts_and_on_one() -> None:
    """The rows of all tables lead to the container with the address."""
    one, two = kernel_of(HERE, THERE), kernel_of(THERE, HERE)
    at = {ONE: one, TWO: two}.get

    assert trace_packet(one, NETWORK.vni, 0, parse_ip("10.1.0.4"), at) == THERE.containers[0]
    assert trace_packet(one, NETWORK.vni, 1, parse_ip("10.2.0.5"), at) == THERE.containers[1]
    assert trace_packet(two, NETWORK.vni, 0, parse_ip("10.1.0.2"), at) == HERE.containers[0]
    assert trace_packet(one, NETWORK.vni, 0, parse_ip("10.1.0.2"), at) == HERE.containers[0]


def test_a_lost_packets_trace_says_where() -> None:
    """The trace names the place where the packet is lost."""
    one, two = kernel_of(HERE, THERE), kernel_of(THERE, HERE)
    at = {ONE: one, TWO: two}.get
    target = parse_ip("10.1.0.4")
    mac = mac_for(NETWORK.vni, target)

    def lost(kernel: Kernel) -> str:
        found = trace_packet(kernel, NETWORK.vni, 0, target, at)
        assert isinstance(found, str)
        return found

    assert "no host with VNI" in walk_without_peer(one, target)
    two.unplug(THERE.containers[0].endpoint.endpoint_id)
    assert "no port for" in lost(one)
    one.apply(NETWORK.vni, [DeleteRow(FdbRow("vxlan0", mac, TWO))])
    assert "no FDB row" in lost(one)
    one.apply(NETWORK.vni, [DeleteRow(NeighborRow("br0", target, mac))])
    assert "no neighbor" in lost(one)
    assert "no sandbox" in lost(Kernel())


def walk_without_peer(kernel: Kernel, target: Ip) -> str:
    """Trace a packet while the other host is gone."""
    nobody: dict[Ip, Kernel] = {}
    found = trace_packet(kernel, NETWORK.vni, 0, target, nobody.get)
    assert isinstance(found, str)
    return found
