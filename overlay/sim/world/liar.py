"""A member under another's control: it writes records that no honest agent writes.

Owns: those records, and the invariants that they must not break. Its datagrams are honest; what
false messages can do is tested in `tests/sim/world/test_liar`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from overlay.core.dataplane.operations import row_key
from overlay.core.dataplane.state import FdbRow, NeighborRow, Row
from overlay.core.log.live_entries import COUNT_MAX
from overlay.core.protocol.records import (
    CLUSTER_SCOPE,
    CustomRecord,
    Participation,
    RemovedNetwork,
    Scope,
    Value,
)
from overlay.model import (
    Endpoint,
    Ip,
    Mac,
    Network,
    NodeId,
    Subnet,
    Vni,
    gateway_mac,
    ip_text,
    mac_for,
    mac_text,
)
from overlay.sim.host.host import Host

GATEWAY, NAMES, NETWORKS, PARTICIPATIONS, REMOVALS = KINDS = (
    "gateway", "names", "networks", "participations", "removals",
)  # fmt: skip
THIEF: Final = "thief"  # begins the names of false endpoints
SURPLUS: Final = 40  # records beyond the bound
# Above those of the world's networks: the first records count, and the liar's host has honest ones.
_FIRST_VNI: Final = 0xF0_0000
_PER_WRITE: Final = 512


def lie(host: Host, kind: str, network: Network) -> None:
    """Let a host write false records of one kind; nothing while it cannot write."""
    if host.node is None or host.gone or not host.node.may_write(host.schedule.now):
        return
    scope = Scope(network.vni) if kind in (GATEWAY, NAMES) else CLUSTER_SCOPE
    values = list(_records(kind, host.node_id, network))
    for first in range(0, len(values), _PER_WRITE):
        host.publish(host.commit(scope, values[first : first + _PER_WRITE]))
    host.flush()


def _records(kind: str, liar: NodeId, network: Network) -> Iterable[Value]:
    match kind:
        case "gateway":
            return _thieves(network)
        case "names":
            ips = (network.subnets[0].gateway,)
            return (CustomRecord(f"lie{n}", ips) for n in range(COUNT_MAX["name"] + SURPLUS))
        case "networks":
            return (_network(liar, n) for n in range(COUNT_MAX["network"] + SURPLUS))
        case "participations":
            count = COUNT_MAX["participation"] + SURPLUS
            return (Participation(_FIRST_VNI + n, forwards=True) for n in range(count))
        case _:
            count = COUNT_MAX["removed"] + SURPLUS
            return (RemovedNetwork(_FIRST_VNI + n, liar) for n in range(count))


def _network(liar: NodeId, number: int) -> Network:
    base = 0x64400000 + (number << 4)
    subnet = Subnet(Ip(base.to_bytes(4, "big")), 28, Ip((base + 1).to_bytes(4, "big")))
    return Network(Vni(_FIRST_VNI + number), f"lie{number}", (subnet,), liar)


def _thieves(network: Network) -> Iterable[Value]:
    """Yield an endpoint with each gateway's MAC, and one with its address."""
    for index, subnet in enumerate(network.subnets):
        other = Ip(subnet.gateway[:-1] + bytes([subnet.gateway[-1] ^ 0x80]))
        for number, (ip, mac) in enumerate(
            (
                (other, gateway_mac(network.vni, index)),
                (subnet.gateway, mac_for(network.vni, subnet.gateway)),
            )
        ):
            endpoint_id = bytes([0, index, number, *network.vni.to_bytes(3, "big"), 0, 0])
            yield Endpoint(endpoint_id, network.vni, f"{THIEF}{index}{number}", Mac(mac), (ip,))


def claimed(host: Host, vni: Vni) -> frozenset[Ip]:
    """Return the addresses that a host's false records claim on a network."""
    if host.node is None:
        return frozenset()
    log = host.node.store.log(host.node_id, Scope(vni))
    values = () if log is None else log.live.values()
    return frozenset(
        ip
        for value in values
        if isinstance(value, Endpoint) and value.name.startswith(THIEF)
        for ip in value.ips
    )


# --- what must hold at every moment ---------------------------------------------------------


def stolen_gateway(hosts: Iterable[Host], networks: Iterable[Network]) -> str | None:
    """Return which host sends frames for its gateway to another host; None if none does."""
    known = list(networks)
    for host in hosts:
        for network in known:
            sandbox = host.kernel.sandboxes.get(network.vni)
            for row in () if sandbox is None else _stealing_rows(network):
                if row_key(row) in sandbox.rows:  # type: ignore[union-attr]
                    return f"{host.name}, {network.name}: {_shown(row)} leads away"
    return None


def _stealing_rows(network: Network) -> Iterable[Row]:
    nowhere = Ip(bytes(4))
    for index, subnet in enumerate(network.subnets):
        mac = gateway_mac(network.vni, index)
        yield FdbRow(f"vxlan{index}", mac, nowhere)
        yield NeighborRow(f"br{index}", subnet.gateway, mac)


def _shown(row: Row) -> str:
    if isinstance(row, NeighborRow):
        return f"the gateway's address {ip_text(row.ip)}"
    return f"the gateway's MAC {mac_text(row.mac) if isinstance(row, FdbRow) else row}"


def disagreement(hosts: Iterable[Host]) -> str | None:
    """Return which kind of record two hosts count differently; None if all agree.

    Or of which one origin's count more than may. Of hosts with equal stores.
    """
    seen: dict[str, tuple[Host, dict[NodeId, frozenset[Value]]]] = {}
    for host in hosts:
        if host.node is None:
            continue
        for kind in ("network", "participation", "removed", "forgotten"):
            counted: dict[NodeId, set[Value]] = {}
            for origin, value in host.node.store.values(CLUSTER_SCOPE, kind):
                counted.setdefault(origin, set()).add(value)
            for values in counted.values():
                if len(values) > COUNT_MAX[kind]:
                    return f"{host.name} counts {len(values)} {kind} records of one member"
            found = {origin: frozenset(values) for origin, values in counted.items()}
            other, known = seen.setdefault(kind, (host, found))
            if known != found:
                return f"{host.name} and {other.name} count different {kind} records"
    return None
