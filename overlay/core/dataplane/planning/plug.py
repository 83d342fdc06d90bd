"""The ports of interfaces that are plugged into a network, on its first segment."""

from __future__ import annotations

from collections.abc import Iterator

from overlay.core.dataplane.link_state import PlugPort
from overlay.core.dataplane.planning.inputs import PlanInput
from overlay.core.dataplane.planning.segments import bridge_name
from overlay.core.dataplane.port_security import policed_port_row
from overlay.core.dataplane.state import HookRow, Row, SourceRow


def plug_links(given: PlanInput, *, is_shut: bool) -> Iterator[PlugPort]:
    """Return the ports of plugged interfaces."""
    bridge = "" if is_shut else bridge_name(given.network, 0)
    for each in given.plugged:
        yield PlugPort(each.port, each.interface, given.mtu, bridge)


def plug_hooks(given: PlanInput, *, is_policed: bool) -> Iterator[HookRow]:
    """Return the ports' hooks; by the first, announcements from outside reach the other hosts."""
    for each in given.plugged:
        yield HookRow(0, each.port, is_policed)
        if is_policed:
            yield policed_port_row(0, each.port)


def sending_by_bridge(given: PlanInput, segment: int, rows: Iterator[Row]) -> Iterator[Row]:
    """Leave out the rows by which a container sends past the bridge, if an interface is plugged.

    Only the bridge knows which MACs are behind a plugged interface.
    """
    if not given.plugged or segment != 0:
        return rows
    return (row for row in rows if not isinstance(row, SourceRow))
