"""Texts about data paths: health lines and events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from overlay.agent.process.controller import Fault
from overlay.core.paths.view import PathState, PathView
from overlay.model import Card, ip_text

_LOST_HINT = (
    "On both hosts: sudo overlayd netcheck   (it names the rule). Else allow UDP {port} in "
    "the cloud's security group and on any switch between them"
)
_OTHER_PORT = (
    ". Where the platform keeps that port for itself, create the cluster with another --vxlan-port"
)


class Carrier(NamedTuple):
    """The carrier of the frames of a path: VXLAN itself, or WireGuard around it."""

    name: str
    port: int  # UDP

    @property
    def hint(self) -> str:
        """Return what to do where its packets are lost."""
        more = _OTHER_PORT if self.name == VXLAN else ""
        return _LOST_HINT.format(port=self.port) + more


VXLAN: Final = "VXLAN"
WIREGUARD: Final = "WireGuard"


def path_faults(view: PathView, card: Card, carrier: Carrier, now: float) -> Iterator[Fault]:
    """Yield the health lines of one path; `now` is on the clock of `view.since`."""
    name, address = card.name, ip_text(card.address)
    lasting = f"for {max(0.0, now - view.since):.0f} s"
    hint, what = carrier.hint, f"{carrier.name} (UDP {carrier.port})"
    if PathState.DAMAGED in (view.sending, view.receiving):
        way, sender = ("to", "this host") if view.sending is PathState.DAMAGED else ("from", name)
        yield Fault(
            f"data path {way} {name} ({address}) has spoiled checksums {lasting}: packets with a "
            "checksum are dropped on arrival, those without arrive",
            f"An interface or a device between the two computes checksums wrongly. On {sender}: "
            "ethtool -K INTERFACE tx off; 'overlayd netcheck' says more",
            "error",
        )
    elif view.sending is PathState.LOST and view.receiving is PathState.LOST:
        yield Fault(
            f"data path to {name} ({address}) has been lost in both directions {lasting}: gossip "
            f"works, {what} does not arrive",
            hint,
            "error",
        )
    elif view.sending is PathState.LOST:
        yield Fault(
            f"data path to {name} ({address}) has been lost {lasting}: gossip works, "
            f"{what} from this host does not arrive there; the other direction does",
            hint,
            "error",
        )
    elif view.receiving is PathState.LOST:
        yield Fault(
            f"data path from {name} ({address}) has been lost {lasting}: gossip works, "
            f"{what} from there does not arrive at this host; the other direction does",
            hint,
            "error",
        )
    elif view.sending is PathState.SILENT:
        yield Fault(
            f"data path to {name} ({address}) has not been proven {lasting}: no report of probes "
            "comes from there",
            f"The two hosts may reach each other only through others: 'ping {address}' on this "
            "host; allow the gossip and the VXLAN port between them",
        )
    else:
        yield from _size_faults(view, card)


def _size_faults(view: PathView, card: Card) -> Iterator[Fault]:
    """Yield what is wrong with the sizes that a path carries."""
    name, address = card.name, ip_text(card.address)
    if view.size_carried == 0:
        yield Fault(
            f"data path to {name} ({address}) carries small packets only, not even 1280 bytes",
            "Containers' connections stall; look for a tunnel or a filter of fragments between the "
            "two hosts",
            "error",
        )
    elif view.size_carried is not None and view.size_carried < view.size_expected:
        yield Fault(
            f"data path to {name} ({address}) carries {view.size_carried} bytes, not the "
            f"{view.size_expected} of the interface: the MTU of containers follows",
            "Nothing is lost. Where a tunnel lies between the hosts, give the underlay's interface "
            "its MTU; else look for the device that drops larger packets",
        )
    elif view.size_received:
        yield Fault(
            f"data path from {name} ({address}) loses packets above {view.size_received} bytes",
            f"Something between the two hosts has a smaller MTU in that direction; {name} lowers "
            "the MTU of its containers",
        )
    elif view.size_fails:
        yield Fault(
            f"data path to {name} ({address}) loses packets of {view.size_expected} bytes: "
            "searching for what it carries",
            "Something between the two hosts has a smaller MTU; the overlay's MTU follows when the "
            "size is found",
        )


def path_events(before: PathView, after: PathView, name: str) -> Iterator[tuple[str, bool]]:
    """Yield the event texts of a change, each with whether it is good news."""
    if after.sending is not before.sending:
        if after.sending is PathState.LOST:
            yield f"VXLAN to {name} does not arrive", False
        elif after.sending is PathState.DAMAGED:
            yield f"VXLAN to {name} arrives with wrong checksums", False
        elif after.sending is PathState.SILENT:
            yield f"{name} does not report probes of the data path", False
        elif after.sending is PathState.OK and before.sending is not PathState.UNKNOWN:
            yield f"VXLAN to {name} arrives again", True
    if after.receiving is not before.receiving:
        if after.receiving is PathState.LOST:
            yield f"VXLAN from {name} does not arrive", False
        elif after.receiving is PathState.DAMAGED:
            yield f"VXLAN from {name} arrives with wrong checksums", False
        elif before.receiving in (PathState.LOST, PathState.DAMAGED):
            yield f"VXLAN from {name} arrives again", True
    if after.size_received and not before.size_received:
        yield f"packets above {after.size_received} bytes from {name} do not arrive", False
    elif before.size_received and not after.size_received:
        yield f"packets of all sizes from {name} arrive again", True
    if after.size_fails and not before.size_fails:
        yield f"packets of {after.size_expected} bytes to {name} do not arrive", False
    elif after.size_carried is not None and after.size_carried != before.size_carried:
        is_full = after.size_carried >= after.size_expected
        if not is_full:
            yield f"the path to {name} carries {after.size_carried} bytes", False
        elif before.size_carried is not None or before.size_fails:
            yield f"the path to {name} carries {after.size_carried} bytes again", True
