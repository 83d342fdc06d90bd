"""See a marked packet, and its answer, pass a container's interfaces and those of its host.

Owns: where the mark is at either place. Does not: send anything.
"""

from __future__ import annotations

from overlay.core.protocol.capture import Place, PlacedSighting
from overlay.kernel import netns
from overlay.kernel.capture.container_tap import TapPlace
from overlay.kernel.packet_tap import PacketTap, mark_offset
from overlay.kernel.sandbox import container_namespace
from overlay.model import Ip


class WayTaps:
    """Taps in a container and, for packets that cross the underlay, on its host."""

    def __init__(self, netns_fd: int | None, mark: bytes, target: Ip, vtep: Ip | None) -> None:
        """Begin; `vtep` is either one of the way, of which the version counts. Raises OSError."""
        self._taps = [(Place.CONTAINER, PacketTap(netns_fd, mark, mark_offset(target, None)))]
        if vtep is not None:
            try:
                on_host = PacketTap(None, mark, mark_offset(target, vtep))
            except OSError:
                self.close()
                raise
            self._taps.append((Place.HOST, on_host))

    def sightings(self) -> list[PlacedSighting]:
        """Return what passed since the last call."""
        return [
            PlacedSighting(place, each.ifname, each.is_outgoing)
            for place, tap in self._taps
            for each in tap.sightings()
        ]

    def close(self) -> None:
        """Stop."""
        for _, tap in self._taps:
            tap.close()


def open_taps(place: TapPlace, mark: bytes, target: Ip, vtep: Ip | None) -> WayTaps | None:
    """Return the taps of a container; None if it is gone. Raises OverlayError or OSError."""
    fd = container_namespace.open_same(place.netns_path, place.netns_identity)
    if fd is None:
        return None
    with netns.closing(fd):
        return WayTaps(fd, mark, target, vtep)
