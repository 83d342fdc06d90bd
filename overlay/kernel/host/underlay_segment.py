"""Tell whether an interface of the host reaches the segment of the underlay.

Owns: following how interfaces are stacked (rtnetlink(7): IFLA_LINK, IFLA_MASTER). The calling
thread must be in the host's namespace.
"""

from __future__ import annotations

from collections.abc import Iterable

from overlay.kernel.netlink.link_decoder import LinkInfo
from overlay.kernel.netlink.link_lookup import links_best_effort
from overlay.kernel.netlink.socket import NetlinkSocket


def is_on_underlay(interface: str, underlay: str) -> bool:
    """Return whether frames sent on an interface can reach the segment of the underlay's."""
    with NetlinkSocket() as host:
        return shares_segment(links_best_effort(host), interface, underlay)


def shares_segment(links: Iterable[LinkInfo], interface: str, underlay: str) -> bool:
    """Return the same for known links.

    True for the underlay's interface, for those below it (whoever sends on them can add its VLAN
    tag), for a bridge or bond that one of these is a port of, and for devices on one of these
    that add no tag of their own.
    """
    by_index = {link.index: link for link in links}
    by_name = {link.name: link for link in by_index.values()}
    if interface == underlay or underlay not in by_name:
        return interface == underlay
    reached: set[int] = set()
    due = [by_name[underlay].index]
    while due:
        index = due.pop()
        if index in reached or index not in by_index:
            continue
        reached.add(index)
        link = by_index[index]
        lower = [link.peer] if link.netns < 0 and link.kind != "veth" else []
        due += [*lower, *(each.index for each in by_index.values() if each.master == index)]
    reached |= {by_index[index].master for index in reached}
    found = by_name.get(interface)
    if found is None:
        return False  # a VLAN that does not exist yet, with a tag of its own
    is_tagged = found.kind == "vlan"
    return found.index in reached or (not is_tagged and found.peer in reached - {0})
