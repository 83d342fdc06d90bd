"""The interface that frames are captured at, and what is said of a frame there.

Owns: names and sentences of comments and lines. Does not: capture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from overlay.client.api import JsonObject
from overlay.core.capture.frame_text import FrameSummary, summary
from overlay.core.protocol.capture import CapturedFrame


@dataclass(slots=True, eq=False)
class CaptureInterface:
    """A container's interface, on this host or another one."""

    container: str
    node: str
    network: str
    vni: int | None
    vtep: str | None
    ips: list[str]
    mac: str
    ifname: str = ""

    @classmethod
    def of(cls, found: JsonObject) -> CaptureInterface:
        """Return the one of a tap, or of a far end, as GET /v1/capture has it."""
        return cls(
            found["name"],
            found["node"],
            found["network"],
            found["vni"],
            found["vtep"],
            found["ips"],
            found["mac"],
            found.get("ifname", ""),
        )

    @property
    def name(self) -> str:
        """The name in a capture file."""
        return f"{self.node}/{self.container}/{self.ifname}"

    @property
    def description(self) -> str:
        """The description in a capture file."""
        text = f"container {self.container} on {self.node}, network {self.network}"
        if self.vni is not None:
            text += f", VNI {self.vni}, VTEP {self.vtep}"
        return f"{text}, {', '.join(self.ips)}"


class InterfaceFrame(NamedTuple):
    """A frame, and where it was captured."""

    interface: CaptureInterface
    frame: CapturedFrame


class InterfaceCounts(NamedTuple):
    """The outcome of the capture at an interface."""

    interface: CaptureInterface
    captured: int
    dropped: int
    note: str = ""


class KnownAddresses:
    """The VTEPs of the addresses of a network."""

    def __init__(self, addresses: list[JsonObject]) -> None:
        self._vteps = {each["ip"]: each["vtep"] for each in addresses}

    def peer_vtep(self, at: CaptureInterface, frame: CapturedFrame) -> str | None:
        """Return the VTEP at the other end of a frame's tunnel; None if it is not known."""
        found = summary(frame.data)
        vtep = self._vteps.get(found.target if frame.is_outgoing else found.source)
        return None if vtep == at.vtep else vtep


def comment(at: CaptureInterface, frame: CapturedFrame, peer_vtep: str | None) -> str:
    """Return what a capture file says of a frame: host, direction, VNI and VTEPs."""
    text = f"{at.node}: {at.container} {direction(frame)}"
    if at.vni is None:
        return text
    text += f"; VNI {at.vni}"
    if peer_vtep is None:
        return f"{text}, VTEP {at.vtep}"
    ends = (at.vtep, peer_vtep) if frame.is_outgoing else (peer_vtep, at.vtep)
    return f"{text}, VTEP {ends[0]} to {ends[1]}"


def direction(frame: CapturedFrame) -> str:
    """Return the direction of a frame, as the container's."""
    return "sends" if frame.is_outgoing else "receives"


def described(frame: CapturedFrame) -> FrameSummary:
    """Return what is in a frame."""
    return summary(frame.data)
