"""Which addresses have got another MAC, so that containers that know the former must be told.

Who has asked once who has an address believes the answer for up to a minute (Linux: about half a
minute, then five seconds and three questions), and sends to nobody meanwhile. Owns the memory of
who had an address last, and the decision; how containers are told is the kernel layer's business.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

from overlay import limits
from overlay.core.dataplane.operations import DeleteRow, Operation, PutRow
from overlay.core.dataplane.planner import PlanInput, Segments
from overlay.core.dataplane.state import NeighborRow, SandboxState
from overlay.model import Ip, Mac, is_host


class MacChange(NamedTuple):
    """What the containers on a bridge are to be told: an address has this MAC from now on."""

    bridge: str
    ip: Ip
    mac: Mac
    is_local: bool  # a container's of this host, so that the bridge itself has to ask for it


class LastMacs:
    """Who had the addresses of one network last, as far as this process has seen."""

    def __init__(self) -> None:
        self._locals: dict[Ip, Mac] = {}
        self._former: dict[Ip, Mac] = {}  # of addresses that nobody has now, the oldest first

    def changes(
        self,
        given: PlanInput | None,
        before: SandboxState,
        operations: Iterable[Operation],
        desired: SandboxState,
    ) -> list[MacChange]:
        """Return what a pass has changed, `ANNOUNCEMENTS_PER_PASS_MAX` at most.

        Its operations turn `before` into `desired`. What is beyond the bound, or was before this
        process, is found out by the containers in their own time.
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
        found += [each for each in locals_.values() if self._had_another(each.ip, each.mac, gone)]
        self._former |= gone
        surplus = len(self._former) - limits.MACS_REMEMBERED_MAX
        for ip in list(islice(self._former, max(0, surplus))):
            del self._former[ip]
        return found[: limits.ANNOUNCEMENTS_PER_PASS_MAX]

    def _had_another(self, ip: Ip, mac: Mac, gone: dict[Ip, Mac]) -> bool:
        """Say whether an address was another's before; it is this one's from now on."""
        return gone.pop(ip, self._former.pop(ip, mac)) != mac

    def _new_locals(self, given: PlanInput | None, gone: dict[Ip, Mac]) -> dict[Ip, MacChange]:
        """Return this node's own containers that are new, and add to `gone` those that went: no
        neighbour row tells of them."""
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
        if not is_host(endpoint)  # of this host's own end there is a neighbour row
        for ip in endpoint.ips
    }
