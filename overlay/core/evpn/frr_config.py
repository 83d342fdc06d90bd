"""The configuration of FRR's bgpd for one host.

It holds neighbors only: VNIs come from the devices of the shadow, and routes from its rows.
"""

from __future__ import annotations

from collections.abc import Iterator

from overlay.core.evpn.settings import EvpnSettings
from overlay.model import Ip, ip_text

_KEEPALIVE_S, _HOLD_S, _CONNECT_S = 3, 9, 2


def bgpd_config(settings: EvpnSettings, local: Ip) -> str:
    """Return the configuration of a host with the underlay address `local`."""
    return "".join(f"{line}\n" for line in _lines(settings, ip_text(local)))


def _lines(settings: EvpnSettings, local: str) -> Iterator[str]:
    yield "! Written by overlayd; changes are lost. See: overlayd evpn enable --help"
    yield "frr defaults datacenter"
    yield "hostname overlayd"
    yield "log syslog notifications"
    yield f"router bgp {settings.asn}"
    yield f" bgp router-id {local}"
    yield " bgp log-neighbor-changes"
    yield " no bgp default ipv4-unicast"
    for neighbor in map(ip_text, settings.neighbors):
        yield f" neighbor {neighbor} remote-as {settings.asn}"
        yield f" neighbor {neighbor} update-source {local}"
        yield f" neighbor {neighbor} timers {_KEEPALIVE_S} {_HOLD_S}"
        yield f" neighbor {neighbor} timers connect {_CONNECT_S}"
        if settings.ttl_hops:
            yield f" neighbor {neighbor} ttl-security hops {settings.ttl_hops}"
        if settings.password:
            yield f" neighbor {neighbor} password {settings.password}"
    yield " address-family l2vpn evpn"
    for neighbor in map(ip_text, settings.neighbors):
        yield f"  neighbor {neighbor} activate"
    yield "  advertise-all-vni"
    yield " exit-address-family"
