"""Find addresses with a new MAC, which containers must be told about.

A container that has resolved an address uses the answer for up to a minute (Linux: about half a
minute, then five seconds and three requests), and sends to the old MAC meanwhile. Owns: the last
known MACs, and the decision. Does not: announce them (`kernel.sandbox.gratuitous_arp`).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

from overlay import limits
from overlay.core.dataplane.operations import DeleteRow, Operation, PutRow
from overlay.core.dataplane.planning.inputs import PlanInput
from overlay.core.dataplane.planning.segments import Segments
from overlay.core.dataplane.state import NeighborRow, SandboxState
from overlay.model import Ip, Mac, is_host


class MacChange(NamedTuple):
    """To announce to the containers on a bridge: an address has this MAC now."""

    bridge: str
    ip: Ip
    mac: Mac
    is_local: bool  # of a local container, so that the bridge itself must announce it


class LastMacs:
    """The last MACs of one network's addresses, as seen by this process."""

    def __init__(self) -> None:
        self._locals: dict[Ip, Mac] = {}
        self._former: dict[Ip, Mac] = {}  # of unused addresses, the oldest first

    def changes(
        self,
        given: PlanInput | None,
        before: SandboxState,
        operations: Iterable[Operation],
        desired: SandboxState,
    ) -> list[MacChange]:
        """Return the MAC changes of a pass, at most `ANNOUNCEMENTS_PER_PASS_MAX`.

        Its operations turn `before` into `desired`. Containers find out by themselves about
        changes beyond the bound, and about those before this process started.
        """
        came: list[NeighborRow] = []
        gone: dict[Ip, Mac] = {}
        row_count = len(before.rows)
        for operation in operations:
            match operation:
                case PutRow(row):
                    row_count += 1
                    if type(row) is NeighborRow:
                        came.append(row)
                case DeleteRow(row):
                    row_count -= 1
                    if type(row) is NeighborRow:
                        gone[row.ip] = row.mac
        # A put may replace without a deletion; most only add, and there may be 150,000 rows.
        if came and row_count != len(desired.rows):
            ips = {row.ip for row in came}
            gone |= {
                row.ip: row.mac for row in before.rows if type(row) is NeighborRow and row.ip in ips
            }
        locals_ = self._new_locals(given, gone)
        found = [
            MacChange(row.link, row.ip, row.mac, False)
            for row in came
            if row.ip not in locals_ and self._had_another(row.ip, row.mac, gone)
        ]
        planned = {row.ip for row in came}  # rows that tell the bridge, with routers
        found += [
            each._replace(is_local=each.ip not in planned)
            for each in locals_.values()
            if self._had_another(each.ip, each.mac, gone)
        ]
        self._former |= gone
        surplus = len(self._former) - limits.MACS_REMEMBERED_MAX
        for ip in list(islice(self._former, max(0, surplus))):
            del self._former[ip]
        return found[: limits.ANNOUNCEMENTS_PER_PASS_MAX]

    def _had_another(self, ip: Ip, mac: Mac, gone: dict[Ip, Mac]) -> bool:
        """Record the MAC of an address; return whether it had another before."""
        return gone.pop(ip, self._former.pop(ip, mac)) != mac

    def _new_locals(self, given: PlanInput | None, gone: dict[Ip, Mac]) -> dict[Ip, MacChange]:
        """Return the new local containers; add the removed ones to `gone`.

        Local containers have no neighbor rows.
        """
        before, self._locals = self._locals, {} if given is None else _local_macs(given)
        if given is None or before == self._locals:
            return {}
        segments = Segments(given.network)
        gone |= {ip: mac for ip, mac in before.items() if self._locals.get(ip) != mac}
        return {
            ip: MacChange(f"br{segment}", ip, mac, True)
            for ip, mac in self._locals.items()
            if before.get(ip) != mac and (segment := segments.of(ip)) is not None
        }


def _local_macs(given: PlanInput) -> dict[Ip, Mac]:
    return {
        ip: endpoint.mac
        for endpoint in given.locals
        if not is_host(endpoint)  # this host's own endpoint has a neighbor row
        for ip in endpoint.ips
    }
