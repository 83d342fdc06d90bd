"""This host's settings of BGP EVPN, and their validation."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field

from overlay import limits
from overlay.errors import UsageError
from overlay.model import Ip, ip_text

_ASN_MAX = 2**32 - 1


@dataclass(frozen=True, slots=True)
class EvpnSettings:
    """The fabric that this host speaks to."""

    asn: int  # of this host, the other hosts and the route reflectors
    neighbors: tuple[Ip, ...]
    vtep_prefixes: tuple[ipaddress.IPv4Network, ...]  # no other next hop is accepted
    password: str = field(default="", repr=False)  # of the sessions, by TCP-MD5; empty: none
    ttl_hops: int = 0  # neighbors further away are refused (GTSM, RFC 5082); 0: no such limit

    def holds(self, vtep: Ip) -> bool:
        """Return whether a VTEP is within the prefixes."""
        number = int.from_bytes(vtep, "big")
        return len(vtep) == 4 and any(
            number & int(prefix.netmask) == int(prefix.network_address)
            for prefix in self.vtep_prefixes
        )


def parse_settings(
    asn: int,
    neighbors: Sequence[str],
    vtep_prefixes: Sequence[str],
    password: str,
    ttl_hops: int = 0,
) -> EvpnSettings:
    """Return settings from their texts; raises UsageError."""
    if not 1 <= asn <= _ASN_MAX:
        raise UsageError(f"asn must be from 1 to {_ASN_MAX}, not {asn}", field="asn")
    found = tuple(dict.fromkeys(_neighbor(text) for text in neighbors))
    if not 1 <= len(found) <= limits.EVPN_NEIGHBORS_MAX:
        raise UsageError(
            f"1 to {limits.EVPN_NEIGHBORS_MAX} neighbors are required, not {len(found)}",
            hint="Name the fabric's route reflectors: --neighbor 10.0.0.1 --neighbor 10.0.0.2",
            field="neighbors",
        )
    prefixes = tuple(dict.fromkeys(_prefix(text) for text in vtep_prefixes))
    if len(prefixes) > limits.EVPN_PREFIXES_MAX:
        raise UsageError(
            f"at most {limits.EVPN_PREFIXES_MAX} VTEP prefixes are possible, not {len(prefixes)}",
            hint="Give wider ranges",
            field="vtep_prefixes",
        )
    if not 0 <= ttl_hops <= limits.EVPN_TTL_HOPS_MAX:
        raise UsageError(
            f"ttl_hops must be from 0 to {limits.EVPN_TTL_HOPS_MAX}, not {ttl_hops}",
            hint="The routers on the way to a neighbor, and one: --ttl-security 1 for neighbors on "
            "the same segment, 0 for no limit",
            field="ttl_hops",
        )
    return EvpnSettings(asn, found, prefixes, parse_password(password), ttl_hops)


def _neighbor(text: str) -> Ip:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        address = ipaddress.IPv4Address(0)
    if address.is_unspecified or address.is_multicast or address.is_loopback:
        raise UsageError(
            f"{text!r} is not the IPv4 address of a route reflector",
            hint="Such as --neighbor 10.0.0.1; names are not resolved",
            field="neighbors",
        )
    return Ip(address.packed)


def _prefix(text: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(text)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is not an IPv4 prefix",
            why=str(error),
            hint="Such as --vtep-prefix 10.9.0.0/16",
            field="vtep_prefixes",
        ) from None


def parse_password(text: str) -> str:
    """Return the password of the sessions, or none; raises UsageError if FRR cannot use it."""
    usable = len(text) <= limits.EVPN_PASSWORD_LENGTH_MAX and all(
        "!" <= each <= "~" for each in text
    )
    if not usable:
        raise UsageError(
            "the password of the sessions cannot be used",
            why=f"FRR takes 1 to {limits.EVPN_PASSWORD_LENGTH_MAX} printable ASCII characters "
            "without spaces",
            hint="Choose another, on the route reflectors as well",
            field="password",
        )
    return text


def settings_text(settings: EvpnSettings) -> dict[str, object]:
    """Return settings as JSON can hold them; `parse_settings` reads them again."""
    return {
        "asn": settings.asn,
        "neighbors": [ip_text(ip) for ip in settings.neighbors],
        "vtep_prefixes": [str(prefix) for prefix in settings.vtep_prefixes],
        "password": settings.password,
        "ttl_hops": settings.ttl_hops,
    }
