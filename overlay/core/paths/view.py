"""The state of a data path, and the probes sent to learn it, as values."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from overlay.model import NodeId, Vni


class PathState(enum.Enum):
    """The state of one direction, as known here."""

    UNKNOWN = "unknown"  # not probed yet
    OK = "ok"  # the newest probes arrived
    LOST = "lost"  # gossip works, and the newest probes did not arrive
    DAMAGED = "damaged"  # only probes without checksums arrive: something spoils checksums
    SILENT = "silent"  # the peer does not report: it cannot be told


class PeerPath(NamedTuple):
    """The network that carries probes of a peer, and the underlay packet size that should pass.

    `probe_size` and `report_size` are those of a small probe and of a report on the underlay.
    """

    vni: Vni
    size: int
    probe_size: int = 122  # in clear, IPv4 in IPv4
    report_size: int = 126


class ProbeFrame(NamedTuple):
    """A frame to send; `size` is that of the underlay packet, 0 for the smallest possible.

    `is_bare` asks for a packet without UDP checksums, as far as the address family allows that.
    """

    to: NodeId
    vni: Vni
    sequence: int
    size: int
    key: bytes
    is_bare: bool = False


@dataclass(frozen=True, slots=True)
class PathView:
    """The state of the path to a peer, as known here."""

    node_id: NodeId
    sending: PathState
    receiving: PathState
    since: float  # of the present verdict on both directions
    size_expected: int  # bytes of an underlay packet, by this host's and the peer's interfaces
    size_carried: int | None  # proven; 0: less than any overlay needs; None: not known
    size_fails: bool  # large packets do not arrive
    size_received: int = 0  # the peer's packets above this do not arrive here; 0: all do
    probe_count: int = 0  # probes of this host that were awaited
    probe_lost_count: int = 0  # of them, those that the peer did not report

    @property
    def loses(self) -> bool:
        """Whether packets are known to be lost, or none is proven to arrive."""
        return (
            self.sending in (PathState.LOST, PathState.SILENT, PathState.DAMAGED)
            or self.receiving in (PathState.LOST, PathState.DAMAGED)
            or self.size_fails
        )

    @property
    def carries(self) -> bool | None:
        """Whether frames arrive in both directions, at full size; None while that is not known."""
        if self.loses:
            return False
        is_known = self.sending is self.receiving is PathState.OK
        return True if is_known else None

    @property
    def verdict(self) -> tuple[PathState, PathState, bool, int | None, int]:
        """The part that people are told of; a change of it is an event."""
        return (
            self.sending,
            self.receiving,
            self.size_fails,
            self.size_carried,
            self.size_received,
        )


class PathChange(NamedTuple):
    """The verdict on a path changed."""

    before: PathView
    after: PathView
