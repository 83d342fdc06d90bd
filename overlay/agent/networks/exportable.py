"""Which networks a BGP EVPN fabric can carry.

Owns: the refusals, for a new network and for one that exists. Does not: announce anything.
"""

from __future__ import annotations

from overlay.core.dataplane.network_drivers import (
    CAPABILITIES,
    driver_of,
    encryption_goal,
    is_encrypted,
)
from overlay.errors import ConflictError, UsageError
from overlay.model import Network


def require_definable(driver: str, vni: int | None, *, encrypted: bool) -> None:
    """Raise UsageError for a new network that no fabric can carry."""
    if encrypted or not CAPABILITIES[driver].has_tunnel:
        kind = "an encrypted network" if encrypted else f"driver {driver}"
        raise UsageError(
            f"evpn is not supported by {kind}",
            why=_why(encrypted=encrypted),
            hint="Leave one of them out",
            field="evpn",
        )
    if vni is None:
        raise UsageError(
            "evpn requires a vni",
            why="the fabric knows the network by its VNI, which must be the same everywhere",
            hint="Give the fabric's: --vni 4100",
            field="evpn",
        )


def require_exportable(network: Network) -> None:
    """Raise ConflictError for a network that no fabric can carry as it is."""
    goal = encryption_goal(network)
    encrypted = is_encrypted(network) or (goal is not None and goal.encrypted)
    if encrypted or not CAPABILITIES[driver_of(network)].has_tunnel:
        raise ConflictError(
            f"network {network.name} cannot be exported",
            why=f"it {'is encrypted' if encrypted else f'has driver {driver_of(network)}'}, and "
            + _why(encrypted=encrypted),
            hint=f"Switch its encryption off first: overlayd encryption off {network.name}"
            if encrypted
            else "Create another: overlayd network create NAME --evpn --vni N",
        )


def require_vni(network: Network, vni: int) -> None:
    """Raise ConflictError if a network has another VNI than the fabric."""
    if vni != network.vni:
        raise ConflictError(
            f"network {network.name} has VNI {network.vni}, which cannot change",
            why="all hosts carry its frames under it, and the fabric would need the same",
            hint=f"Give the fabric's network VNI {network.vni}; or create another here, and move "
            f"the containers: overlayd network create NEW --evpn --vni {vni}",
            field="vni",
        )


def _why(*, encrypted: bool) -> str:
    if encrypted:
        return "a fabric's VTEPs have no WireGuard keys of this cluster"
    return "BGP EVPN announces what VXLAN carries"
