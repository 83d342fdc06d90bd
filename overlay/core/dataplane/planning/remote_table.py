"""The remote endpoints of a network, and the rows that lead to them, kept from plan to plan.

An update costs what has changed: one attach beside 50,000 endpoints looks at one. Its result is
that of a table made anew from the same endpoints.

Where two remote endpoints claim one address, all nodes plan the rows of the same winner. A remote
claim to the address or MAC of a local endpoint gets no rows: one that sends a local container's
frames away would conflict with what its bridge port learns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Final, NamedTuple

from overlay.core.dataplane.conflicts import Claim, OwnerOf, better_for_ip, better_for_mac
from overlay.core.dataplane.gateways import gateway_macs
from overlay.core.dataplane.network_drivers import has_tunnel
from overlay.core.dataplane.planning.claims import Claims
from overlay.core.dataplane.planning.inputs import (
    PlanInput,
    RecordsPosition,
    RemoteChanges,
    RemoteEndpoint,
)
from overlay.core.dataplane.planning.planned_rows import RemoteRows, RemoteSegment
from overlay.core.dataplane.planning.segments import Segments, segment_count
from overlay.core.dataplane.state import Row
from overlay.core.vlan.vlans import vlans_of
from overlay.model import Endpoint, Ip, Mac, NodeId, Subnet, Vni

_SETTLED_TOGETHER: Final = 1000


class Frame(NamedTuple):
    """The facts that all rows of a table depend on: with others, a table is made anew."""

    vni: Vni
    subnets: tuple[Subnet, ...]
    local: Ip
    device_base: str
    has_tunnel: bool
    sends: bool
    receivers: frozenset[NodeId] | None


class RowChanges(NamedTuple):
    """The difference between the rows before an update and after it."""

    added: frozenset[Row] = frozenset()
    removed: frozenset[Row] = frozenset()


class RemoteTable:
    """The remote endpoints of one network."""

    def __init__(self, given: PlanInput) -> None:
        self.frame = frame_of(given)
        self.position: RecordsPosition | None = None
        self._segments = Segments(given.network)
        self._gateway_macs = gateway_macs(given.network)
        self._remotes: dict[NodeId, dict[bytes, RemoteEndpoint]] = {}
        self._local_macs: frozenset[Mac] = frozenset()
        self._local_ips: frozenset[Ip] = frozenset()
        self._owner_of: OwnerOf | None = None
        count = range(segment_count(given.network))
        self._macs: list[Claims[Mac]] = [Claims() for _ in count]
        self._ips: list[Claims[Ip]] = [Claims() for _ in count]
        self.rows = RemoteRows(
            RemoteSegment(
                f"{given.device_base}{segment}",
                f"br{segment}",
                self._macs[segment].winners,
                self._ips[segment].winners,
                segment,
                given.sends,
                given.receivers,
            )
            for segment in count
        )

    def has_mac(self, segment: int, mac: Mac) -> bool:
        """Return whether frames for a MAC are sent to a remote endpoint."""
        return mac in self._macs[segment].winners

    def has_ip(self, segment: int, ip: Ip) -> bool:
        """Return whether an address is a remote or a local endpoint's."""
        return ip in self._local_ips or ip in self._ips[segment].winners

    def remotes(self) -> Iterator[RemoteEndpoint]:
        """Yield all remote endpoints, also those that get no rows."""
        for found in self._remotes.values():
            yield from found.values()

    def origins(self) -> AbstractSet[NodeId]:
        """Return the nodes that have endpoints here."""
        return self._remotes.keys()

    def has_all_of(self, origin: NodeId, vtep: Ip | None, endpoints: Iterable[Endpoint]) -> bool:
        """Return whether these are a node's endpoints here; none are if it has no VTEP."""
        found = self._remotes.get(origin, {})
        if vtep is None:
            return not found
        count = 0
        for each in endpoints:
            remote = found.get(each.endpoint_id)
            if remote is None or remote.vtep != vtep or remote.endpoint != each:
                return False
            count += 1
        return count == len(found)

    def update(self, given: PlanInput, changes: RemoteChanges) -> RowChanges:
        """Follow what has changed, and return the difference in rows."""
        self._apply(given, self._difference(changes) if changes.is_whole else changes)
        added: set[Row] = set()
        removed: set[Row] = set()
        for number, segment in enumerate(self.rows.segments):
            for mac in self._macs[number].settle(self._choose_for_mac):
                before = () if mac.before is None else segment.mac_rows(mac.key, mac.before)
                after = () if mac.after is None else segment.mac_rows(mac.key, mac.after)
                removed.update(row for row in before if row not in after)
                added.update(row for row in after if row not in before)
            for ip in self._ips[number].settle(self._choose_for_ip):
                before = () if ip.before is None else segment.ip_rows(ip.key, ip.before)
                after = () if ip.after is None else segment.ip_rows(ip.key, ip.after)
                removed.update(row for row in before if row not in after)
                added.update(row for row in after if row not in before)
        return RowChanges(frozenset(added), frozenset(removed))

    def fill(self, given: PlanInput, changes: RemoteChanges) -> None:
        """Take all remote endpoints into an empty table.

        In parts, as what `settle` looks at takes as much memory as the table itself.
        """
        present = iter(changes.present)
        for _ in range(0, max(1, len(changes.present)), _SETTLED_TOGETHER):
            part = tuple(islice(present, _SETTLED_TOGETHER))
            self._apply(given, changes._replace(present=part))
            for macs, ips in zip(self._macs, self._ips, strict=True):
                for _ in macs.settle(self._choose_for_mac):
                    pass
                for _ in ips.settle(self._choose_for_ip):
                    pass

    def _difference(self, whole: RemoteChanges) -> RemoteChanges:
        """Return what is different in the table from all endpoints that there are."""
        missing = {origin: dict(found) for origin, found in self._remotes.items()}
        present = []
        for remote in whole.present:
            found = missing.get(remote.origin, {})
            if found.pop(remote.endpoint.endpoint_id, None) != remote:
                present.append(remote)
        gone = [(origin, each) for origin, found in missing.items() for each in found]
        return RemoteChanges(present, gone, is_whole=False, position=whole.position)

    def _apply(self, given: PlanInput, changes: RemoteChanges) -> None:
        self._owner_of = given.owner_of
        for macs, ips in zip(self._macs, self._ips, strict=True):
            macs.touch_contested()  # the owner of an address may be another one now
            ips.touch_contested()
        self._take_locals(given.locals)
        for origin, endpoint_id in changes.gone:
            self._drop(origin, endpoint_id)
        for remote in changes.present:
            self._drop(remote.origin, remote.endpoint.endpoint_id)
            self._remotes.setdefault(remote.origin, {})[remote.endpoint.endpoint_id] = remote
            for segment, ip in self._claimed(remote):
                self._macs[segment].add(remote.endpoint.mac, remote)
                self._ips[segment].add(ip, remote)
        self.position = changes.position

    def _take_locals(self, locals_: Iterable[Endpoint]) -> None:
        macs = frozenset(each.mac for each in locals_)
        ips = frozenset(ip for each in locals_ for ip in each.ips)
        for mac in macs ^ self._local_macs:
            for claims in self._macs:
                claims.touch(mac)
                for remote in claims.claimants(mac):
                    for segment, ip in self._claimed(remote):
                        self._ips[segment].touch(ip)
        for ip in ips ^ self._local_ips:
            for addresses in self._ips:
                addresses.touch(ip)
        self._local_macs, self._local_ips = macs, ips

    def _drop(self, origin: NodeId, endpoint_id: bytes) -> None:
        found = self._remotes.get(origin)
        remote = None if found is None else found.pop(endpoint_id, None)
        if found is None or remote is None:
            return
        if not found:
            del self._remotes[origin]
        for segment, ip in self._claimed(remote):
            self._macs[segment].remove(remote.endpoint.mac, remote)
            self._ips[segment].remove(ip, remote)

    def _claimed(self, remote: RemoteEndpoint) -> Iterator[tuple[int, Ip]]:
        """Yield what an endpoint claims; nothing for one that no frame can be sent to.

        That is one behind a VTEP of the other family or this node's own, or with a gateway's MAC.
        """
        frame, endpoint = self.frame, remote.endpoint
        if not frame.has_tunnel or len(remote.vtep) != len(frame.local):
            return
        if remote.vtep == frame.local or endpoint.mac in self._gateway_macs:
            return
        for ip in endpoint.ips:
            segment = self._segments.of(ip)
            if segment is not None:
                yield segment, ip

    def _choose_for_mac(self, mac: Mac, claims: Sequence[RemoteEndpoint]) -> RemoteEndpoint | None:
        if mac in self._local_macs:
            return None
        best, *others = claims
        for each in others:
            if better_for_mac(self.frame.vni, _claim(each), _claim(best), self._owner_of):
                best = each
        return best

    def _choose_for_ip(self, ip: Ip, claims: Sequence[RemoteEndpoint]) -> RemoteEndpoint | None:
        if ip in self._local_ips:
            return None
        best = None
        for each in claims:
            if each.endpoint.mac in self._local_macs:
                continue  # frames for that address would arrive here
            if each.endpoint.labels and vlans_of(each.endpoint).is_any:
                continue  # the bridge would answer for it, and without a tag
            if best is None or better_for_ip(
                self.frame.vni, ip, _claim(each), _claim(best), self._owner_of
            ):
                best = each
        return best


def frame_of(given: PlanInput) -> Frame:
    """Return what the rows of all remote endpoints depend on."""
    network = given.network
    links = given.local, given.device_base
    sends = given.sends, given.receivers
    return Frame(network.vni, network.subnets, *links, has_tunnel(network), *sends)


def table_of(given: PlanInput) -> RemoteTable:
    """Return a table of the remote endpoints of an input."""
    table = RemoteTable(given)
    table.fill(given, RemoteChanges(given.remotes))
    return table


def updated(
    table: RemoteTable | None, given: PlanInput, changes: RemoteChanges
) -> tuple[RemoteTable, RowChanges | None]:
    """Return the table after changes, and the difference in rows; None if it is another table."""
    if table is not None and table.frame == frame_of(given):
        return table, table.update(given, changes)
    if not changes.is_whole:
        if table is None:
            raise ValueError("changes without the table that they are changes of")
        kept = {(each.origin, each.endpoint.endpoint_id): each for each in table.remotes()}
        for key in changes.gone:
            kept.pop(key, None)
        kept |= {(each.origin, each.endpoint.endpoint_id): each for each in changes.present}
        changes = RemoteChanges([*kept.values()], position=changes.position)
    made = RemoteTable(given)
    made.fill(given, changes)
    return made, None


def _claim(remote: RemoteEndpoint) -> Claim:
    return Claim(remote.origin, remote.endpoint)
