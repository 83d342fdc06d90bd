"""End what a container has sent to backends that no longer answer, so that others do.

The kernel goes through its table of connections, which all namespaces share, to tell which a
container has: 10 ms and more. So that is done for UDP and for pings that another backend answers
now; a TCP connection that waits has a socket, by which it is looked up.

Owns: which flows those are. Does not: know ctnetlink (`kernel.host.conntrack`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from overlay.core.services.values import VirtualPort
from overlay.kernel import netns
from overlay.kernel.host import conntrack
from overlay.kernel.nft import backend_choice as choice
from overlay.kernel.nft import expressions as ex
from overlay.kernel.services import waiting_sockets
from overlay.kernel.services.client_table import ICMP, PINGED
from overlay.kernel.services.table_plan import TablePlan
from overlay.model import Ip

_Answering: TypeAlias = Mapping[tuple[bytes, bytes, bytes], frozenset[Ip]]
_NONE: Final = frozenset[Ip]()


@dataclass(frozen=True, slots=True)
class Losses:
    """Virtual ports that lost a backend, and addresses whose pings another answers now.

    With each, the addresses that still answer.
    """

    ports: Mapping[VirtualPort, frozenset[Ip]] = field(default_factory=dict)
    pinged: Mapping[Ip, frozenset[Ip]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self.ports or self.pinged)

    def __or__(self, newer: Losses) -> Losses:
        """Return both; the newer ones know better who answers."""
        return Losses({**self.ports, **newer.ports}, {**self.pinged, **newer.pinged})


def at_start(ports: Sequence[VirtualPort]) -> Losses:
    """Return what an agent that starts has to expect: each UDP port may have lost a backend."""
    return Losses({each: _ips(each) for each in ports if each.protocol == "udp"})


def after_move(ports: Sequence[VirtualPort]) -> Losses:
    """Return what may have been tracked where a table is, before it was there.

    What leads to a backend that answers is left alone, except for pings.
    """
    return Losses({each: _ips(each) for each in ports}, {each.ip: _NONE for each in ports})


def all_of(ports: Sequence[VirtualPort]) -> Losses:
    """Return all that was sent to these ports, and pings, whoever answers."""
    return Losses(dict.fromkeys(ports, _NONE), {each.ip: _NONE for each in ports})


def between(
    before: Sequence[VirtualPort],
    after: Sequence[VirtualPort],
    plan_before: TablePlan,
    plan_after: TablePlan,
) -> Losses:
    """Return what was lost by a change of ports; those that have not changed are the same."""
    now = {(each.ip, each.protocol, each.port): each for each in after}
    ports: dict[VirtualPort, frozenset[Ip]] = {}
    for each in before:
        present = now.get((each.ip, each.protocol, each.port))
        if present is each:
            continue
        left = _ips(present) if present is not None else _NONE
        if _ips(each) - left:
            ports[each] = left
    pinged: dict[Ip, frozenset[Ip]] = {}
    for size, name in PINGED.items():
        then, present_ones = plan_before.fixed[name], plan_after.fixed[name]
        answers = {Ip(each[:size]): frozenset([Ip(each[size:])]) for each in present_ones - then}
        for gone in then - present_ones:
            pinged[Ip(gone[:size])] = answers.get(Ip(gone[:size]), _NONE)
    return Losses(ports, pinged)


def _ips(port: VirtualPort) -> frozenset[Ip]:
    return frozenset(each.ip for each in port.backends if not each.is_resting)


def end(
    path: str,
    identity: tuple[int, int],
    losses: Losses,
    sockets: tuple[str, tuple[int, int]] | None = None,
) -> int:
    """End a container's UDP flows and pings that a lost backend had; return how many.

    So end connections that nobody has answered: the next SYN goes to another. `sockets` is the
    namespace of its sockets, where another one translates for it. Raises OverlayError, OSError.
    """
    fd = netns.open_same(path, identity)
    if fd is None:
        return 0
    with netns.closing(fd), ExitStack() as opened:
        own = fd if sockets is None else netns.open_same(*sockets)
        if own is None:
            return 0
        if own != fd:
            opened.callback(os.close, own)
        tcp, others = _answering(losses, "tcp"), _answering(losses, "udp")
        others |= {(ICMP[len(ip)], bytes(ip), b""): ips for ip, ips in losses.pinged.items()}
        ended = 0
        if tcp:
            try:
                ended += _end_waiting(fd, own, tcp)
            except OSError:  # this kernel does not tell which sockets wait
                others |= tcp
        return ended + (conntrack.forget_untranslated(fd, others) if others else 0)


def _answering(losses: Losses, protocol: str) -> dict[tuple[bytes, bytes, bytes], frozenset[Ip]]:
    return {
        (choice.PROTOCOLS[protocol], bytes(port.ip), port.port.to_bytes(2, "big")): ips
        for port, ips in losses.ports.items()
        if port.protocol == protocol
    }


def _end_waiting(netns_fd: int, own_fd: int, answering: _Answering) -> int:
    waiting = waiting_sockets.sockets(own_fd, {len(ip) for _, ip, _ in answering})
    asking = [
        each[:4]
        for each in waiting
        if (ex.TCP, bytes(each.target), each.target_port.to_bytes(2, "big")) in answering
    ]
    return conntrack.forget_unanswered(netns_fd, asking, answering) if asking else 0
