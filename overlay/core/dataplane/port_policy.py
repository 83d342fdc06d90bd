"""Port security and fast path: what a sandbox's ports may send.

Owns: the rows of port security, which name the source MAC and addresses that a container may use,
and those of the fast path. On the fast path a container's frames may leave only from its own MAC
and addresses, and reach the other local containers directly; the rest goes to the VTEP, except
what is for the bridge (gateways, this host's endpoint). Does not: know how the kernel enforces
them (`kernel.nft.port_security`, `kernel.bpf`).
"""

from __future__ import annotations

from collections.abc import Iterator

from overlay.core.dataplane.network_drivers import has_tunnel
from overlay.core.dataplane.rate_limits import rates_of
from overlay.core.dataplane.state import (
    GuardRow,
    HookRow,
    Row,
    SandboxState,
    SourceRow,
    TargetRow,
)
from overlay.model import Endpoint, Ip, Mac, Network, gateway_mac, has_port_security_off, is_host

DEFAULT_TARGET_MAC = Mac(bytes(6))


def guard_row(network: Network, port_name: str, endpoint: Endpoint) -> GuardRow:
    """Return the row that limits what an endpoint's port may send."""
    if has_port_security_off(network, endpoint):
        return GuardRow(Mac(b""), (), port_name)
    return GuardRow(endpoint.mac, tuple(sorted(endpoint.ips)), port_name)


def segment_rows(network: Network, segment_count: int) -> Iterator[Row]:
    """Return the fast path's rows for each segment of a network."""
    for segment in range(segment_count):
        if has_tunnel(network):
            yield HookRow(segment, f"vxlan{segment}")
            yield HookRow(segment, f"br{segment}")  # announcements, to the other hosts
            yield TargetRow(DEFAULT_TARGET_MAC, segment, f"vxlan{segment}")
        yield TargetRow(gateway_mac(network.vni, segment), segment, f"br{segment}")


def port_rows(segment: int, port_name: str, endpoint: Endpoint) -> Iterator[Row]:
    """Return the fast path's rows for one local endpoint on a segment."""
    if is_host(endpoint):
        yield TargetRow(endpoint.mac, segment, f"br{segment}")
        return
    rates = rates_of(endpoint.labels)
    # A limited direction uses the bridge: the fast path would bypass the port's queues.
    yield TargetRow(endpoint.mac, segment, f"br{segment}" if rates.in_bits else port_name)
    yield HookRow(segment, port_name)
    for ip in () if rates.out_bits else endpoint.ips:
        yield SourceRow(ip, endpoint.mac, port_name)


def uses_fast_path(
    state: SandboxState,
    segment: int,
    port: str,
    source: tuple[Mac, Ip],
    local_target: tuple[Mac, str] | None,
) -> bool:
    """Return whether plain unicast from a port, MAC and address passes by the bridge.

    `local_target` is the MAC and port of a target on the same host; None: it is elsewhere.
    """
    mac, ip = source
    if not {HookRow(segment, port), SourceRow(ip, mac, port)} <= state.rows:
        return False
    if local_target is None:
        return TargetRow(DEFAULT_TARGET_MAC, segment, f"vxlan{segment}") in state.rows
    return TargetRow(local_target[0], segment, local_target[1]) in state.rows
