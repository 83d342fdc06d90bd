"""The MTU of networks' interfaces, from what the underlay carries.

Owns: what each kind of tunnel takes of a packet. Does not: know a host's interfaces.
"""

from __future__ import annotations

from overlay import limits
from overlay.core.encryption.device import wireguard_overhead
from overlay.model import Ip, Network


def overlay_mtu(underlay_mtu: int, address: Ip) -> int:
    """Return the MTU of overlay interfaces, in bytes.

    Frames must fit the underlay's packets (RFC 7348 section 4.3: never fragment).
    """
    overhead = limits.VXLAN_OVERHEAD_IPV4 if len(address) == 4 else limits.VXLAN_OVERHEAD_IPV6
    return underlay_mtu - overhead


def network_mtu(network: Network, mtu: int, local: Ip) -> int:
    """Return the MTU of a tunneled network's interfaces, in bytes; `mtu` is the overlay's.

    IPv6 ends on an interface that carries less than 1280 bytes (RFC 8200 section 5). An IPv4
    underlay carries what is larger in fragments; an IPv6 one sends none for a tunnel.
    """
    has_ipv6 = any(len(subnet.base) == 16 for subnet in network.subnets)
    return max(mtu, limits.IPV6_MTU_MIN) if has_ipv6 and len(local) == 4 else mtu


def encrypted_mtu(network: Network, underlay_mtu: int, underlay: Ip) -> int:
    """Return the MTU of an encrypted network's interfaces, in bytes.

    VXLAN over IPv6 inside WireGuard. IPv6 gets what it needs: WireGuard's packets are fragmented.
    """
    mtu = underlay_mtu - wireguard_overhead(underlay) - limits.VXLAN_OVERHEAD_IPV6
    has_ipv6 = any(len(subnet.base) == 16 for subnet in network.subnets)
    return max(mtu, limits.IPV6_MTU_MIN) if has_ipv6 else mtu
