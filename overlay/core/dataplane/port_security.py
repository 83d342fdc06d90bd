"""Port security and fast path: what a sandbox's ports may send.

Owns: the rows of port security, which name the source MACs and addresses that a container may use
(its own, and those that its record allows beside them) and whether it may be a DHCP server or a
router, and those of the fast path. On the fast
path a container's frames may leave only from its own MAC and addresses, and reach the other local
containers directly; the rest goes to the VTEP, except what is for the bridge (gateways, this
host's endpoint). Does not: know how the kernel enforces them (`kernel.nft.port_security`,
`kernel.bpf`).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence

from overlay.core.dataplane.controls.port_controls import controls_on
from overlay.core.dataplane.network_drivers import has_tunnel
from overlay.core.dataplane.rate_limits import NO_RATES, Rates
from overlay.core.dataplane.state import GuardRow, HookRow, Row, SandboxState, SourceRow, TargetRow
from overlay.core.dataplane.tunnel_devices import DEVICE_BASES
from overlay.core.vlan.vlans import vlans_of
from overlay.errors import UsageError
from overlay.model import (
    LABEL_PREFIX,
    Endpoint,
    Ip,
    Mac,
    Network,
    gateway_mac,
    has_port_security_off,
    ip_text,
    is_host,
    is_isolated,
    mac_text,
    parse_ip,
    parse_mac,
)

DEFAULT_TARGET_MAC = Mac(bytes(6))
_ALLOWED = LABEL_PREFIX + "allow-ip."  # one label for each address, so that none is too long
_ALLOWED_MAC = LABEL_PREFIX + "allow-mac."
DHCP_SERVER_LABEL = (LABEL_PREFIX + "allow-dhcp-server", "on")
"""Label of an endpoint that may answer DHCP and DHCPv6 requests."""
ROUTER_LABEL = (LABEL_PREFIX + "allow-ra", "on")
"""Label of an endpoint that may send router advertisements."""
_MULTICAST, _GATEWAY = 1, 6  # of the first byte: bit and value of MACs that no container has


def labels_of_allowed(ips: Iterable[Ip], macs: Iterable[Mac] = ()) -> tuple[tuple[str, str], ...]:
    """Return the labels that allow an endpoint these addresses and MACs beside its own."""
    keys = [_ALLOWED + ip_text(ip) for ip in ips]
    keys += [_ALLOWED_MAC + mac_text(mac) for mac in macs]
    return tuple((key, "on") for key in keys)


def allowed_macs(endpoint: Endpoint) -> tuple[Mac, ...]:
    """Return the MACs beside its own that an endpoint may use; what no agent writes is ignored."""
    texts = (
        key.removeprefix(_ALLOWED_MAC) for key, _ in endpoint.labels if key.startswith(_ALLOWED_MAC)
    )
    found = []
    for text in texts:
        try:
            mac = parse_mac(text)
        except ValueError:
            continue
        if not mac[0] & _MULTICAST and mac[0] != _GATEWAY:
            found.append(mac)
    return tuple(found)


def allowed_addresses(endpoint: Endpoint) -> tuple[Ip, ...]:
    """Return the addresses beside its own that an endpoint may use; other labels are ignored."""
    texts = (key.removeprefix(_ALLOWED) for key, _ in endpoint.labels if key.startswith(_ALLOWED))
    found = []
    for text in texts:
        try:
            found.append(parse_ip(text))
        except ValueError:  # of a member that writes what no agent does
            continue
    return tuple(found)


def require_never_allocated(network: Network, ips: Iterable[Ip]) -> None:
    """Raise UsageError for an address that the network could give to a container."""
    reserved = {ip for subnet in network.subnets for _, ip in subnet.auxiliary}
    for ip in ips:
        if ip in reserved or not any(ip in subnet for subnet in network.subnets):
            continue
        raise UsageError(
            f"allow_ips: {ip_text(ip)} may become the address of a container",
            why=f"network {network.name} has it, and does not reserve it",
            hint="Reserve it when you create the network: --aux-address NAME=ADDRESS",
            field="allow_ips",
        )


def guard_row(network: Network, port_name: str, endpoint: Endpoint) -> GuardRow:
    """Return the row that limits what an endpoint's port may send."""
    isolated = is_isolated(network, endpoint)
    # Isolation goes by source, so an isolated port cannot be open.
    is_tagged = vlans_of(endpoint).is_any
    if has_port_security_off(network, endpoint) and not isolated:
        return GuardRow((), (), port_name, is_tagged=is_tagged)
    macs = {endpoint.mac, *allowed_macs(endpoint)}
    allowed = {*endpoint.ips, *allowed_addresses(endpoint)}
    labels = endpoint.labels
    return GuardRow(
        tuple(sorted(macs)),
        tuple(sorted(allowed)),
        port_name,
        is_dhcp_server=DHCP_SERVER_LABEL in labels,
        is_router=ROUTER_LABEL in labels,
        is_isolated=isolated,
        ethertypes=controls_on(network, endpoint).allow_non_ip,
        is_tagged=is_tagged,
    )


def segment_rows(
    network: Network,
    segment_count: int,
    sending: str,
    receiving: Sequence[str],
    *,
    is_policed: bool = False,
) -> Iterator[Row]:
    """Return the fast path's rows for each segment of a network.

    `sending` is what the names of the VXLAN devices that send begin with, `receiving` those of all.
    """
    for segment in range(segment_count):
        if has_tunnel(network):
            for base in receiving:
                yield HookRow(segment, f"{base}{segment}", is_policed)
            if not is_policed:  # else it has one already
                yield HookRow(segment, f"br{segment}")  # announcements, to the other hosts
            yield TargetRow(DEFAULT_TARGET_MAC, segment, f"{sending}{segment}")
        yield TargetRow(gateway_mac(network.vni, segment), segment, f"br{segment}")


def announces_addresses(network: Network, endpoint: Endpoint) -> bool:
    """Return whether an endpoint may have addresses of which hosts learn by announcements alone."""
    if is_host(endpoint):
        return False
    is_open = has_port_security_off(network, endpoint)
    return is_open or bool(allowed_addresses(endpoint) or allowed_macs(endpoint))


def is_announcing(row: Row) -> bool:
    """Return whether announcements of containers leave for the other hosts by a row."""
    return isinstance(row, TargetRow) and row.mac == DEFAULT_TARGET_MAC


def policed_segment_rows(
    network: Network, segment_count: int, receiving: Sequence[str]
) -> Iterator[Row]:
    """Return the hooks that apply policies to frames that take the bridge, by segment."""
    for segment in range(segment_count):
        yield HookRow(segment, f"br{segment}", is_policed=True)  # to the gateway, and through it
        for base in receiving if has_tunnel(network) else ():
            yield HookRow(segment, f"{base}{segment}", is_policed=True, is_leaving=True)


def policed_port_row(segment: int, port_name: str) -> HookRow:
    """Return the hook that applies policies to frames from the bridge to a port, or to a host."""
    return HookRow(segment, port_name, is_policed=True, is_leaving=True)


def port_rows(
    segment: int,
    port_name: str,
    endpoint: Endpoint,
    rates: Rates = NO_RATES,
    *,
    is_policed: bool = False,
    on_bridge: bool = False,
) -> Iterator[Row]:
    """Return the fast path's rows for one local endpoint on a segment.

    `on_bridge`: its frames use the bridge in both directions, where more is checked.
    """
    if is_host(endpoint):
        yield TargetRow(endpoint.mac, segment, f"br{segment}")
        return
    # A limited direction uses the bridge, too: the fast path would bypass the port's queues.
    by_bridge = on_bridge or rates.in_bits
    yield TargetRow(endpoint.mac, segment, f"br{segment}" if by_bridge else port_name)
    yield HookRow(segment, port_name, is_policed)
    for ip in () if on_bridge or rates.out_bits else endpoint.ips:
        yield SourceRow(ip, endpoint.mac, port_name)


def allowed_mac_rows(segment: int, endpoint: Endpoint, taken: Container[Mac]) -> Iterator[Row]:
    """Return the rows that lead to an endpoint's allowed MACs: only the bridge knows where each is.

    Not to those `taken`, which are endpoints' own.
    """
    for mac in allowed_macs(endpoint):
        if mac not in taken:
            yield TargetRow(mac, segment, f"br{segment}")


def uses_fast_path(
    state: SandboxState,
    segment: int,
    port: str,
    source: tuple[Mac, Ip],
    local_target: tuple[Mac, str] | None,
) -> bool:
    """Return whether plain unicast from a port, MAC and address bypasses the bridge.

    `local_target` is the MAC and port of a target on the same host; None: it is elsewhere.
    """
    mac, ip = source
    hooks = {HookRow(segment, port), HookRow(segment, port, is_policed=True)}
    if not hooks & state.rows or SourceRow(ip, mac, port) not in state.rows:
        return False
    if local_target is None:
        sending = (f"{base}{segment}" for base in DEVICE_BASES)
        return any(TargetRow(DEFAULT_TARGET_MAC, segment, name) in state.rows for name in sending)
    return TargetRow(local_target[0], segment, local_target[1]) in state.rows
