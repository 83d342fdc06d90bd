"""The rows of the ports of this host's endpoints: what they may send, and by which way."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator

from overlay.core.dataplane.controls.port_controls import control_rows, controls_on
from overlay.core.dataplane.controls.priority import mark_rows
from overlay.core.dataplane.controls.shared_rate import shared_rate_of
from overlay.core.dataplane.gateways import gateway_macs
from overlay.core.dataplane.link_state import HOST_PORT_PREFIX
from overlay.core.dataplane.planning.inputs import LocalPort, PlanInput
from overlay.core.dataplane.planning.links import host_ports
from overlay.core.dataplane.planning.plug import sending_by_bridge
from overlay.core.dataplane.planning.segments import has_subnet, segment_of
from overlay.core.dataplane.planning.vlan_ports import vlan_hooks, vlan_row
from overlay.core.dataplane.port_security import (
    allowed_mac_rows,
    announces_addresses,
    guard_row,
    policed_port_row,
    port_rows,
)
from overlay.core.dataplane.rate_limits import rate_row, rates_on
from overlay.core.dataplane.state import HookRow, Row
from overlay.core.vlan.vlans import NO_VLANS, Vlans, vlans_of
from overlay.model import Endpoint, Network, is_isolated


class PortRows:
    """The rows of ports, kept from plan to plan.

    Those of a port are planned anew where it, its endpoint, or what all rows depend on is another.
    """

    def __init__(self) -> None:
        self._frame: object = None
        self._kept: dict[LocalPort, tuple[Endpoint | None, tuple[Row, ...]]] = {}

    def planned(
        self,
        frame: object,
        ports: Iterable[tuple[LocalPort, Endpoint | None]],
        plan: Callable[[LocalPort, Endpoint | None], Iterable[Row]],
    ) -> Iterator[Row]:
        """Yield the rows of ports with their endpoints; `plan` returns those of one."""
        before = self._kept if self._frame == frame else {}
        after: dict[LocalPort, tuple[Endpoint | None, tuple[Row, ...]]] = {}
        for port, endpoint in ports:
            found = before.get(port)
            if found is None or found[0] is not endpoint:
                found = endpoint, tuple(plan(port, endpoint))
            after[port] = found
            yield from found[1]
        self._frame, self._kept = frame, after


class PortPlanner:
    """Plans the rows of all ports of a sandbox; the arguments are those of `plan_sandbox`."""

    def __init__(self, given: PlanInput, *, fast_path: bool, guarded: bool, policing: bool) -> None:
        self._given = given
        self._network = given.network
        self._fast_path = fast_path
        self._guarded = guarded
        self._policing = policing
        self._is_policed = given.policy is not None and policing
        reserved = gateway_macs(given.network)  # an endpoint with such a MAC gets no rows
        self._by_id = {each.endpoint_id: each for each in given.locals if each.mac not in reserved}
        self._macs = {each.mac for each in self._by_id.values()}

    def rows(self, names: Container[str], kept: PortRows) -> Iterator[Row]:
        """Yield the rows of the ports with these names, and of the endpoints behind them."""
        found = [
            (port, self._by_id.get(port.endpoint_id))
            for port in (*self._given.ports, *host_ports(self._given))
            if port.name in names and has_subnet(self._network, port.subnet_index)
        ]
        abilities = self._fast_path, self._guarded, self._policing, self._is_policed
        frame = self._network, self._given.plugged, *abilities
        yield from kept.planned(frame, found, self._rows_of)
        for port, endpoint in found if self._fast_path else ():
            if endpoint is not None and endpoint.labels:  # these depend on all endpoints
                segment = segment_of(self._network, port.subnet_index)
                yield from allowed_mac_rows(segment, endpoint, self._macs)

    def _rows_of(self, port: LocalPort, endpoint: Endpoint | None) -> Iterator[Row]:
        vlans = NO_VLANS if endpoint is None else vlans_of(endpoint)
        if self._policing:
            yield from required_hooks(self._network, port, vlans, is_policed=self._is_policed)
        if endpoint is None:
            return
        if vlans.is_any and self._policing:
            yield vlan_row(port.name, vlans)
        elif self._policing and announces_addresses(self._network, endpoint):
            segment = segment_of(self._network, port.subnet_index)
            yield HookRow(segment, port.name, self._is_policed)  # marks what is announced
        if self._fast_path:
            yield from self._fast_rows(port, endpoint)
        if self._guarded:
            yield guard_row(self._network, port.name, endpoint)
            yield from control_rows(port.name, controls_on(self._network, endpoint))
        rate = rate_row(port.name, rates_on(self._network, endpoint))
        if rate is not None:
            yield rate

    def _fast_rows(self, port: LocalPort, endpoint: Endpoint) -> Iterator[Row]:
        segment, has_vlans = segment_of(self._network, port.subnet_index), vlans_of(endpoint).is_any
        rows = port_rows(
            segment,
            port.name,
            endpoint,
            rates_on(self._network, endpoint),
            is_policed=self._is_policed,
            on_bridge=is_isolated(self._network, endpoint) or has_vlans,
        )
        if has_vlans:  # it has hooks of its own
            yield from (row for row in rows if not isinstance(row, HookRow))
        else:
            yield from sending_by_bridge(self._given, segment, rows)


def required_hooks(
    network: Network, port: LocalPort, vlans: Vlans, *, is_policed: bool
) -> Iterator[HookRow]:
    """Return the hooks that a port has with or without a fast path: by policies and VLANs."""
    segment = segment_of(network, port.subnet_index)
    if vlans.is_any:
        yield from vlan_hooks(segment, port.name, is_policed=is_policed)
    elif is_policed:
        yield policed_port_row(segment, port.name)
        if not port.name.startswith(HOST_PORT_PREFIX):
            yield HookRow(segment, port.name, is_policed=True)


def priority_rows(given: PlanInput) -> Iterator[Row]:
    """Return the priorities of containers' ports."""
    by_id = {each.endpoint_id: each for each in given.locals}
    found = [
        (port.name, by_id[port.endpoint_id]) for port in given.ports if port.endpoint_id in by_id
    ]
    priorities = ((name, controls_on(given.network, each).priority) for name, each in found)
    return mark_rows(priorities, is_shared=bool(shared_rate_of(given.network)))
