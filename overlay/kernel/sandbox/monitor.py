"""Watch kernel notifications for contradictions of the desired state.

Owns: the sockets of rtnetlink(7) groups and the evaluation of notifications. A notification is a
hint: the agent reacts with a reconcile pass that reads everything. The agent's own changes are
notified too, so only contradictions of the desired state count. Nothing here blocks the event loop.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from itertools import islice, product
from socket import NETLINK_ROUTE
from typing import ClassVar, Final

from overlay.core.dataplane.link_state import (
    SHORTCUT_PREFIX,
    Bridge,
    Link,
    PlugPort,
    Port,
    RouterLink,
    Shortcut,
    Vxlan,
)
from overlay.core.dataplane.planning.planned_rows import has_neighbor, own_rows
from overlay.core.dataplane.state import (
    BridgeFdbRow,
    HookRow,
    NeighborRow,
    RateRow,
    Row,
    SandboxState,
    SharedRateRow,
)
from overlay.kernel.bpf import tc_filters
from overlay.kernel.controls import shared_rate
from overlay.kernel.netlink import address_rows, codec, link_decoder, neighbor_rows, routes
from overlay.kernel.netlink.codec import NetlinkMessage
from overlay.kernel.netlink.link_lookup import links_best_effort
from overlay.kernel.netlink.socket import LostNotificationsError, NetlinkSocket
from overlay.kernel.sandbox import interception, rate_limit
from overlay.model import Ip, Mac, ip_text, mac_text

# Notifications read per call: 2 ms of the event loop. If more wait, the descriptor stays readable.
_BATCH_COUNT: Final = 256
_TEXT_COUNT_MAX: Final = 16
_KEPT_MAX: Final = 4096  # items whose last notification contradicts; more count as lost
# Half of what may wait: some 43,000. A pass changes 100,000 rows a second, which is as many as can
# be read beside it; a row that is deleted is told of twice.
_RECEIVE_SIZE: Final = 16 * 1024 * 1024
NOTIFICATIONS_LOST: Final = "notifications were lost"

_SANDBOX_GROUPS: Final = (
    codec.RTNLGRP_LINK,
    codec.RTNLGRP_NEIGH,
    codec.RTNLGRP_TC,
    codec.RTNLGRP_IPV4_IFADDR,
    codec.RTNLGRP_IPV6_IFADDR,
    codec.RTNLGRP_IPV4_ROUTE,
    codec.RTNLGRP_IPV6_ROUTE,
    codec.RTNLGRP_IPV4_RULE,
    codec.RTNLGRP_IPV6_RULE,
)
_LINK_KINDS: Final = (codec.RTM_NEWLINK, codec.RTM_DELLINK)
_ROUTE_KINDS: Final = (codec.RTM_NEWROUTE, codec.RTM_DELROUTE)
_RULE_KINDS: Final = (codec.RTM_NEWRULE, codec.RTM_DELRULE)
_HOOK_KINDS: Final = (codec.RTM_DELTFILTER, codec.RTM_DELQDISC)
_CLASS_KINDS: Final = (codec.RTM_NEWTCLASS, codec.RTM_DELTCLASS)
_TC_KINDS: Final = (*_HOOK_KINDS, *_CLASS_KINDS, codec.RTM_NEWTFILTER, codec.RTM_NEWQDISC)
_UNDERLAY_GROUPS: Final = (
    codec.RTNLGRP_LINK,
    codec.RTNLGRP_IPV4_NETCONF,  # forwarding sysctls
    codec.RTNLGRP_IPV6_NETCONF,
    codec.RTNLGRP_IPV4_IFADDR,
    codec.RTNLGRP_IPV6_IFADDR,
    codec.RTNLGRP_IPV4_ROUTE,
    codec.RTNLGRP_IPV6_ROUTE,
    codec.RTNLGRP_IPV4_RULE,
    codec.RTNLGRP_IPV6_RULE,
)


class SandboxMonitor:
    """Watches one sandbox.

    Wait until `fileno` is readable, then call `contradictions`. Only the last notification about
    each item counts, so waiting some 20 ms before the call lets a change of several steps complete.
    While the agent itself changes the sandbox, call `read`, or the kernel's buffer overflows.
    """

    def __init__(self, netns_fd: int) -> None:
        self._socket = NetlinkSocket(netns_fd, groups=_SANDBOX_GROUPS, receive_size=_RECEIVE_SIZE)
        self._queries = NetlinkSocket(netns_fd)
        self._names: dict[int, str] = {}
        self._indexes: dict[str, int] = {}  # index of the newest link of that name
        self._macs: dict[int, bytes] = {}
        self.has_more = False  # whether the last call left notifications waiting
        self._kept: dict[tuple[object, ...], NetlinkMessage] = {}  # by subject: to be judged
        self._are_lost = False
        self._index_links()

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when notifications wait."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop watching."""
        self._socket.close()
        self._queries.close()

    @property
    def is_doubtful(self) -> bool:
        """Whether `contradictions` may find some in what was read."""
        return self._are_lost or bool(self._kept)

    def contradictions(self, desired: SandboxState, replugged: Collection[str] = ()) -> list[str]:
        """Return how notifications contradict `desired`, as texts: those that wait, or were read.

        Empty if nothing does: at most the agent's own changes were notified. `replugged` are ports
        created or removed since the plan; they are ignored. Returns at most 16 texts.
        """
        self.read(desired)
        if self._are_lost:
            self._are_lost = False
            self._kept.clear()
            return [NOTIFICATIONS_LOST]
        kept, self._kept = self._kept, {}
        texts = (self._judged(message, desired, replugged) for message in kept.values())
        return list(islice((text for text in texts if text is not None), _TEXT_COUNT_MAX))

    def read(self, desired: SandboxState) -> None:
        """Read waiting notifications, and keep those that contradict what is desired so far."""
        self.has_more = False
        try:
            waiting = self._socket.notifications(_BATCH_COUNT)
        except LostNotificationsError:
            self._index_links()
            self._lose()
            return
        self.has_more = len(waiting) >= _BATCH_COUNT
        latest = {self._subject(message): message for message in waiting}
        links = {each: link_decoder.decode(latest[each]) for each in latest if each[0] == "link"}
        gone = [links[each] for each in links if _is_deletion(latest[each])]
        for link in links.values():
            if link not in gone:
                self._index_link(link)
        for subject, message in latest.items():
            if self._judged(message, desired, ()) is None:
                self._kept.pop(subject, None)
            else:
                self._kept[subject] = message
        for link in gone:
            self._forget_link(link)
        if len(self._kept) > _KEPT_MAX:
            self._lose()

    def _lose(self) -> None:
        self._kept.clear()
        self._are_lost = True

    def _index_links(self) -> None:
        for found in links_best_effort(self._queries):
            self._index_link(found)

    def _index_link(self, found: link_decoder.LinkInfo) -> None:
        self._names[found.index] = found.name
        self._indexes[found.name] = found.index
        self._macs[found.index] = found.mac

    def _forget_link(self, found: link_decoder.LinkInfo) -> None:
        self._names.pop(found.index, None)
        self._macs.pop(found.index, None)
        if self._indexes.get(found.name) == found.index:
            del self._indexes[found.name]

    def _subject(self, message: NetlinkMessage) -> tuple[object, ...]:
        """Return a key of the item that a message is about."""
        match message.kind:
            case codec.RTM_NEWLINK | codec.RTM_DELLINK:
                return (
                    "link",
                    link_decoder.index_of(message),
                    link_decoder.is_port_message(message),
                )
            case codec.RTM_NEWADDR | codec.RTM_DELADDR:
                return ("address", *address_rows.address_identity(message))
        if message.kind in _ROUTE_KINDS or message.kind in _RULE_KINDS:
            return ("routing", self._routing_row(message), interception.route_of(message))
        if message.kind in _TC_KINDS:
            parent = tc_filters.parent_of(message)
            kind = message.kind if message.kind in _CLASS_KINDS else message.kind in _HOOK_KINDS
            return ("hook", kind, parent, tc_filters.index_of(message))
        return ("neighbor", *neighbor_rows.neighbor_subject(message))

    def _judged(
        self, message: NetlinkMessage, desired: SandboxState, replugged: Collection[str]
    ) -> str | None:
        if message.kind not in _LINK_KINDS:
            return self._contradiction(message, desired, replugged)
        found = link_decoder.decode(message)
        return (
            None if found.name in replugged else self._link_contradiction(message, found, desired)
        )

    def _contradiction(
        self, message: NetlinkMessage, desired: SandboxState, replugged: Collection[str]
    ) -> str | None:
        match message.kind:
            case codec.RTM_NEWADDR | codec.RTM_DELADDR:
                row = address_rows.decode_address(message, self._names)
                if row is None or row.link not in desired.links:
                    return None
                present = message.kind == codec.RTM_NEWADDR
                return None if (row in desired.rows) == present else _text(row, present=present)
            case codec.RTM_NEWNEIGH | codec.RTM_DELNEIGH:
                return self._neighbor_contradiction(message, desired)
        if message.kind in _TC_KINDS:
            return self._traffic_contradiction(message, desired, replugged)
        if message.kind == codec.RTM_DELROUTE and interception.route_of(message) is not None:
            return "the route of intercepted DNS queries is gone"
        routing_row = self._routing_row(message)
        if routing_row is None or routing_row.link not in desired.links:
            return None
        present = message.kind in {codec.RTM_NEWROUTE, codec.RTM_NEWRULE}
        wrong = (routing_row in desired.rows) != present
        return _text(routing_row, present=present) if wrong else None

    def _routing_row(self, message: NetlinkMessage) -> Row | None:
        if message.kind in _ROUTE_KINDS:
            return routes.decode_route(message, self._names)
        rule = routes.decode_barrier(message) or routes.decode_entry(message)
        return rule or interception.decode_rule(message)

    def _link_contradiction(
        self, message: NetlinkMessage, found: link_decoder.LinkInfo, desired: SandboxState
    ) -> str | None:
        wanted = desired.links.get(found.name)
        if link_decoder.is_port_message(message):
            # From the bridge: the port's flags changed, or it is no longer a port.
            altered = link_decoder.port_altered(found, wanted) if wanted is not None else ()
            return f"{found.name}: {', '.join(altered)}" if altered else None
        if message.kind == codec.RTM_DELLINK:
            if found.kind == "ifb" and _rate(desired, rate_limit.port_of(found.name)) is not None:
                return f"{found.name} is gone"
            return f"{found.name} is gone" if wanted is not None else None
        link = link_decoder.to_link(found, self._names, found.netns)
        if link is None or link == wanted:
            return None
        if wanted is None and isinstance(link, RouterLink):
            return None  # made from its other end, whose sandbox came first
        return f"{found.name} is new" if wanted is None else _link_text(link, wanted)

    def _traffic_contradiction(
        self, message: NetlinkMessage, desired: SandboxState, replugged: Collection[str]
    ) -> str | None:
        index = tc_filters.index_of(message)
        name = self._names.get(index, "")
        # The notified port may have been replaced by another one of the same name.
        if name in replugged or self._indexes.get(name) != index:
            return None
        bits = _shared_bits(desired, name) if isinstance(desired.links.get(name), Vxlan) else 0
        text = shared_rate.contradiction(message, name, bits) if bits else None
        if text is not None or message.kind in _CLASS_KINDS:
            return text
        rate = rate_limit.contradiction(message, name, lambda port: _rate(desired, port))
        return rate or self._hook_contradiction(message, desired.links.get(name), desired)

    def _hook_contradiction(
        self, message: NetlinkMessage, link: Link | None, desired: SandboxState
    ) -> str | None:
        hooked = Vxlan | Port | PlugPort | RouterLink | Shortcut
        if message.kind not in _HOOK_KINDS or not isinstance(link, hooked):
            return None
        if isinstance(link, Shortcut):
            master = link.name.replace(SHORTCUT_PREFIX, "br")
        else:
            master = "br0" if isinstance(link, RouterLink) else link.master
        if not master:  # a port that is shut
            return None
        segment = int(master.removeprefix("br"))
        hooks = {HookRow(segment, link.name, *kind) for kind in product((False, True), repeat=3)}
        is_wanted = any(hook in desired.rows for hook in hooks)
        return f"the hook of {link.name} is gone" if is_wanted else None

    def _neighbor_contradiction(self, message: NetlinkMessage, desired: SandboxState) -> str | None:
        present = message.kind == codec.RTM_NEWNEIGH
        row = neighbor_rows.decode_neighbor(message, self._names, self._macs)
        subject = neighbor_rows.neighbor_subject(message)
        name = self._names.get(subject.link, "")
        if row is not None and (present or not isinstance(row, NeighborRow)):
            wrong = (row in desired.rows) != present and row.link in desired.links
            return _text(row, present=present) if wrong else None
        if subject.in_bridge:
            return _fdb_contradiction(Mac(subject.address), name, desired, present=present)
        # A neighbor that was deleted or is no longer permanent; the message may lack its MAC.
        if has_neighbor(desired, name, Ip(subject.address)):
            return f"neighbor {ip_text(Ip(subject.address))} on {name} is gone"
        return None


class UnderlayMonitor:
    """Watches the host's links, addresses, routes, their rules, and forwarding."""

    groups: ClassVar[tuple[int, ...]] = _UNDERLAY_GROUPS
    protocol: ClassVar[int] = NETLINK_ROUTE

    def __init__(self) -> None:
        self._socket = NetlinkSocket(groups=self.groups, protocol=self.protocol)

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when something changes."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop watching."""
        self._socket.close()

    def drain(self) -> None:
        """Discard waiting notifications; the caller reads everything again."""
        with suppress(LostNotificationsError):
            self._socket.notifications(_BATCH_COUNT)


def _fdb_contradiction(mac: Mac, name: str, desired: SandboxState, *, present: bool) -> str | None:
    """Return how an entry that the kernel made or removed by itself contradicts the state.

    That is where a bridge loses its own MAC, or a local port has a remote container's.
    """
    owners = {
        each.name for each in desired.links.values() if isinstance(each, Bridge) and each.mac == mac
    }
    if owners:
        is_right = present == (name in owners)
        return None if is_right else f"{mac_text(mac)} is no longer {', '.join(owners)}'s own"
    vteps = (link.name for link in desired.links.values() if isinstance(link, Vxlan))
    taken = present and any(BridgeFdbRow(vtep, mac) in desired.rows for vtep in vteps)
    return f"{mac_text(mac)} was learned on {name}" if taken else None


def _rate(desired: SandboxState, port_name: str) -> RateRow | None:
    for row in own_rows(desired) if port_name in desired.links else ():
        if isinstance(row, RateRow) and row.link == port_name:
            return row
    return None


def _shared_bits(desired: SandboxState, device: str) -> int:
    """Return the rate that what leaves by a device shares; 0 for none."""
    rows = (row for row in own_rows(desired) if isinstance(row, SharedRateRow))
    return next((row.bits for row in rows if row.link == device), 0)


def _is_deletion(message: NetlinkMessage) -> bool:
    """Return whether a link was deleted, not just removed from its bridge."""
    return message.kind == codec.RTM_DELLINK and not link_decoder.is_port_message(message)


def _text(row: Row, *, present: bool) -> str:
    what = f"{type(row).__name__} {', '.join(_describe_fields(row))}"
    return f"{what} appeared" if present else f"{what} is gone"


def _describe_fields(row: Row) -> Iterable[str]:
    for value in row:
        if not isinstance(value, bytes):
            yield str(value)
        elif len(value) in {4, 16}:
            yield ip_text(value)  # type: ignore[arg-type]
        else:
            yield value.hex(":")


def _link_text(link: Link, wanted: Link) -> str:
    before = wanted._asdict()
    changed = [name for name, value in link._asdict().items() if before.get(name) != value]
    return f"{link.name}: {', '.join(changed)} changed"
