"""The settings of BGP EVPN that the cluster has in one record, and which of them a host uses.

Any member may write the record. It holds no password: members would keep it in their logs for
ever. It says that one is needed, and each host has it in a file of its own.

Owns: the record's body, and the choice between the cluster's settings and a host's own.
Does not: write a record, or know files.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, TypeAlias

from overlay import limits
from overlay.core.declared import bodies
from overlay.core.declared.kinds import EVPN_KIND
from overlay.core.declared.objects import DeclaredObjects
from overlay.core.evpn.settings import EvpnSettings, parse_settings
from overlay.errors import OverlayError
from overlay.model import NodeId, ip_text

EVPN_SOFTWARE: Final = (0, 3, 0)
"""The first version that follows such a record, or the setting `evpn` of a network."""
EVPN_OBJECT: Final = "evpn"
"""The name of the one object of its kind."""

Source: TypeAlias = Literal["host", "cluster"]


@dataclass(frozen=True, slots=True)
class ClusterEvpn:
    """The cluster's settings, without a password, and whether the sessions need one."""

    settings: EvpnSettings
    needs_password: bool

    def body(self) -> bytes:
        """Return the body of the declared object; raises ConflictError if it is too large."""
        own = self.settings
        fields = [
            own.asn,
            [ip_text(ip) for ip in own.neighbors],
            [str(prefix) for prefix in own.vtep_prefixes],
            own.ttl_hops,
            self.needs_password,
        ]
        return bodies.encode(fields, "the record of BGP EVPN")


def cluster_evpn(objects: DeclaredObjects) -> tuple[NodeId, ClusterEvpn] | None:
    """Return the cluster's settings and their writer; what no agent writes is none."""
    placed = objects.in_force(EVPN_KIND, EVPN_OBJECT)
    if placed is None or not placed.value.body:
        return None
    found = bodies.decode(placed.value.body, _read)
    return None if found is None else (placed.origin, found)


def _read(
    asn: Any, neighbors: Any, prefixes: Any, ttl_hops: Any, needs_password: Any, *_: Any
) -> ClusterEvpn:
    try:
        settings = parse_settings(
            bodies.require(asn, int),
            _texts(neighbors, limits.EVPN_NEIGHBORS_MAX),
            _texts(prefixes, limits.EVPN_PREFIXES_MAX),
            "",
            bodies.require(ttl_hops, int),
        )
    except OverlayError as error:
        raise ValueError(str(error)) from error
    return ClusterEvpn(settings, bodies.require(needs_password, bool))


def _texts(value: Any, count_max: int) -> list[str]:
    return [bodies.require(text, str) for text in bodies.require(value, list, count_max)]


@dataclass(frozen=True, slots=True)
class HostChoice:
    """A decision made on a host that concerns it alone."""

    own: EvpnSettings | None = None  # used in place of the cluster's
    is_out: bool = False  # it does not follow the cluster
    password: str = field(default="", repr=False)  # for the cluster's settings


@dataclass(frozen=True, slots=True)
class Chosen:
    """The settings that a host uses, and whose they are."""

    settings: EvpnSettings | None = None
    source: Source | None = None
    lacks_password: bool = False  # so it cannot use the cluster's


def choose(host: HostChoice, cluster: ClusterEvpn | None) -> Chosen:
    """Return what a host uses: its own settings, else the cluster's, unless it stays out."""
    if host.own is not None:
        return Chosen(host.own, "host")
    if host.is_out or cluster is None:
        return Chosen()
    if cluster.needs_password and not host.password:
        return Chosen(lacks_password=True)
    password = host.password if cluster.needs_password else ""
    return Chosen(replace(cluster.settings, password=password), "cluster")
