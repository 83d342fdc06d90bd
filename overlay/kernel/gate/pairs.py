"""The pairs of virtual interfaces (veth(4)) into the gate's namespace, one for each interface.

Owns: their names and settings. An end in the host's namespace is named by node and by the
interface's index, and no packet is for the host there; the end inside has the interface's name.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping
from typing import Final, NamedTuple

from overlay.core.dataplane.link_state import GATE_LINK_PREFIX, Port
from overlay.core.gate.inside import LOOPBACK_NAME
from overlay.core.gate.state import GatedInterface, GateState
from overlay.kernel.gate import namespace, ways
from overlay.kernel.gate.namespace import ALIAS, GateNamespace
from overlay.kernel.gate.programs.parts import INNER_MAC
from overlay.kernel.gate.ways import NetworkRange, Way
from overlay.kernel.netlink import link_requests
from overlay.kernel.netlink.link_decoder import LinkInfo
from overlay.kernel.netlink.link_lookup import all_links, delete_links, find_link
from overlay.kernel.netlink.socket import NetlinkSocket, namespace_id
from overlay.model import NodeId

_MTU_MAX: Final = 65_535  # of a veth device
_IPV6_MTU_MIN: Final = 1280  # RFC 8200 section 5
_CARRIER_CHECKS, _CARRIER_CHECK_S = 200, 0.005
_HARMLESS: Final = frozenset({errno.EEXIST})


class Pair(NamedTuple):
    """A pair of an interface, by index: its ends, by index in their namespaces."""

    interface: int
    end: int
    inner: int


def end_name(node_id: NodeId, interface: int) -> str:
    """Return the name of the end in the host's namespace. Several agents may share a host."""
    return f"{GATE_LINK_PREFIX}{node_id[:3].hex()}{interface:x}"


def inner_name(interface: GatedInterface) -> str:
    """Return the name of the end inside."""
    return LOOPBACK_NAME if interface.kind == "loopback" else interface.name


def _mtu(interface: GatedInterface) -> int:
    return min(_MTU_MAX, interface.mtu)


def _have_carrier(*links: LinkInfo) -> bool:
    return all(link.up and link.carrier for link in links)


class GatePairs:
    """The pairs of a namespace, from that of the thread."""

    def __init__(self, node_id: NodeId, host: NetlinkSocket, gate: GateNamespace) -> None:
        self._node_id = node_id
        self._host = host
        self._gate = gate

    def read(self, wanted: GateState) -> dict[int, Pair]:
        """Return the pairs that are as a state needs them, by the interface's index."""
        ends, inner = self._links()
        known = ways.read_ways(self._gate.socket)
        found: dict[int, Pair] = {}
        for each in wanted.interfaces:
            pair = self._pair(each, ends, inner)
            if pair is None:
                continue
            both = ends[self._end_name(each)], inner[pair.inner]
            is_right = _have_carrier(*both) and all(link.mtu == _mtu(each) for link in both)
            if is_right and self._ways(wanted, each, pair.inner) <= known:
                found[each.interface_index] = pair
        return found

    def put(self, interface: GatedInterface, wanted: GateState) -> Pair | None:
        """Create a state's interface's pair, or repair it; None if it was taken away meanwhile.

        One whose end inside is another than it should be is replaced. Raises NetlinkError.
        """
        ends, inner = self._links()
        pair = self._pair(interface, ends, inner)
        if pair is None:
            pair = self._create(interface, ends.get(self._end_name(interface)))
        if pair is None:
            return None
        namespace.disable_ipv6(self._end_name(interface))
        for socket, index, alias in (
            (self._gate.socket, pair.inner, ""),
            (self._host, pair.end, ALIAS),
        ):
            # Refused where there is no IPv6; the rest is what counts.
            socket.transact([link_requests.set_alias(index, alias, link_local=False)])
            socket.request(
                link_requests.set_mtu(index, _mtu(interface)),
                link_requests.set_up(index),
                harmless={errno.ENODEV},
            )
        requests = ways.put_requests(self._ways(wanted, interface, pair.inner))
        self._gate.socket.request(*requests, harmless={errno.EEXIST, errno.ENODEV})
        self._await_carrier(interface)
        return pair

    def _await_carrier(self, interface: GatedInterface) -> None:
        """Wait until both ends send: the kernel drops packets until it has seen the other end up.

        It does so by itself, later than the request that brings that up. The next pass looks again.
        """
        for _ in range(_CARRIER_CHECKS):
            ends, inner = self._links()
            pair = self._pair(interface, ends, inner)
            if pair is None or _have_carrier(ends[self._end_name(interface)], inner[pair.inner]):
                return
            time.sleep(_CARRIER_CHECK_S)

    def delete_surplus(self, wanted: GateState) -> None:
        """Delete what a state does not need: pairs of other interfaces, rules and routes."""
        kept = {self._end_name(each): each for each in wanted.interfaces}
        ends, _ = self._links()
        delete_links(self._host, [link.index for name, link in ends.items() if name not in kept])
        needed = {
            way
            for name, each in kept.items()
            if name in ends
            for way in self._ways(wanted, each, ends[name].peer)
        }
        found = ways.read_ways(self._gate.socket)
        self._gate.socket.transact(ways.delete_requests(found, needed))

    def _links(self) -> tuple[dict[str, LinkInfo], dict[int, LinkInfo]]:
        """Return the ends in the host's namespace that are this gate's, and those inside."""
        pairs = all_links(self._host, "veth")
        here = namespace_id(self._host, self._gate.fd)
        ends = {each.name: each for each in pairs if each.netns == here >= 0}
        return ends, {link.index: link for link in all_links(self._gate.socket, "veth")}

    def _pair(
        self,
        interface: GatedInterface,
        ends: Mapping[str, LinkInfo],
        inner: Mapping[int, LinkInfo],
    ) -> Pair | None:
        end = ends.get(self._end_name(interface))
        if end is None:
            return None
        there = inner.get(end.peer)
        if there is None or there.name != inner_name(interface) or there.mac != INNER_MAC:
            return None
        return Pair(interface.interface_index, end.index, there.index)

    def _create(self, interface: GatedInterface, wrong: LinkInfo | None) -> Pair | None:
        name, inside = self._end_name(interface), inner_name(interface)
        left = wrong.index if wrong is not None else find_link(self._host, name)
        leftovers = ((self._host, left), (self._gate.socket, find_link(self._gate.socket, inside)))
        for socket, index in leftovers:
            if index:
                socket.request(link_requests.delete_link(index), harmless={errno.ENODEV})
        request = link_requests.create_veth(
            Port(name, _mtu(interface), ""), 0, self._gate.fd, inside, INNER_MAC
        )
        self._host.request(request, harmless=_HARMLESS)
        end, inner = find_link(self._host, name), find_link(self._gate.socket, inside)
        return Pair(interface.interface_index, end, inner) if end and inner else None

    def _end_name(self, interface: GatedInterface) -> str:
        return end_name(self._node_id, interface.interface_index)

    def _ways(self, state: GateState, interface: GatedInterface, inner: int) -> frozenset[Way]:
        """Return what the end inside needs; from one that leads outside the host itself goes on."""
        sizes = {each.interface_index: _mtu(each) for each in state.interfaces}
        ranges = (
            NetworkRange(each.base, each.length, sizes[each.interface_index])
            for each in state.networks
            if interface.kind != "outside" and each.interface_index in sizes
        )
        name, index = inner_name(interface), interface.interface_index
        has_ipv6 = self._gate.has_ipv6() and _mtu(interface) >= _IPV6_MTU_MIN
        return frozenset(ways.ways_of(index, name, inner, ranges, has_ipv6=has_ipv6))
