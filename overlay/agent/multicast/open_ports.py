"""Whether a host can have receivers of multicast that it does not hear of.

A report counts with a local container's MAC alone. Behind a port without port security, a tagged
port or a plugged interface may be others, so such a host wants every group.
"""

from __future__ import annotations

from collections.abc import Iterable

from overlay.core.dataplane.link_state import HOST_PORT_PREFIX, PORT_PREFIX, Link, Vxlan
from overlay.core.vlan.vlans import vlans_of
from overlay.model import Endpoint, Network, has_port_security_off, is_host


def has_open_port(network: Network, endpoints: Iterable[Endpoint], links: Iterable[Link]) -> bool:
    """Return whether frames of others than the endpoints' MACs may enter by a port."""
    return any(map(_is_foreign, links)) or any(
        not is_host(each) and (has_port_security_off(network, each) or vlans_of(each).is_any)
        for each in endpoints
    )


def _is_foreign(link: Link) -> bool:
    """Return whether a link is a port of a bridge, but of no container, host or VXLAN device."""
    has_bridge = bool(getattr(link, "master", ""))
    is_known = isinstance(link, Vxlan) or link.name.startswith((PORT_PREFIX, HOST_PORT_PREFIX))
    return has_bridge and not is_known
