"""Parse and validate one subnet of a network: its range, gateway and addresses to give out.

Owns: the rules for a valid subnet. Does not: know other networks, routes or owners of addresses.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from overlay import limits
from overlay.errors import UsageError
from overlay.model import Ip, Subnet, ip_text, parse_ip, valid_name

Range = ipaddress.IPv4Network | ipaddress.IPv6Network


_PAIR_SIZE = 2  # of a /31, which has no network and no broadcast address (RFC 3021)
_SIZE_MIN_IPV4 = _PAIR_SIZE  # the gateway and one container
_SIZE_MIN_IPV6 = 8

# No container can have one of these (IANA's special-purpose address registries).
_SPECIAL: dict[int, tuple[Range, ...]] = {
    4: tuple(
        map(
            ipaddress.IPv4Network,
            ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32"),
        )
    ),
    6: tuple(
        map(ipaddress.IPv6Network, ("::/128", "::1/128", "::ffff:0:0/96", "fe80::/10", "ff00::/8"))
    ),
}


@dataclass(frozen=True, slots=True)
class SubnetSpec:
    """A subnet to create, as text."""

    subnet: str
    gateway: str | None = None
    ip_range: str | None = None
    auxiliary: tuple[tuple[str, str], ...] = ()
    block_length: int | None = None


def parse_range(text: str) -> Range:
    """Return the range of a text such as 10.32.0.0/16; raises UsageError."""
    try:
        # The standard library accepts an IPv6 zone; no subnet has one.
        found = ipaddress.ip_network(text.replace("%", "?"), strict=False)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is not a subnet",
            hint="Write it as ADDRESS/LENGTH: 10.32.0.0/16",
            field="subnet",
        ) from error
    if "/" not in text:
        raise UsageError(f"{text!r} has no length", hint=f"For example {text}/16", field="subnet")
    if str(found.network_address) != text.partition("/")[0].lower() and found.version == 4:
        raise UsageError(
            f"{text} is an address within a subnet, not a subnet",
            hint=f"Did you mean {found}?",
            field="subnet",
        )
    if found.num_addresses < (_SIZE_MIN_IPV4 if found.version == 4 else _SIZE_MIN_IPV6):
        raise UsageError(
            f"{found} has too few addresses for a network",
            hint="Use /31 or larger" if found.version == 4 else "Use /125 or larger",
            field="subnet",
        )
    special = next((each for each in _SPECIAL[found.version] if found.overlaps(each)), None)
    if special is not None:
        raise UsageError(
            f"{found} cannot be a network's subnet",
            why=f"{special} is reserved: for no host, multicast, loopback, one link, or broadcast",
            hint="Choose a private range that nothing else uses: 10.32.0.0/16 or fd40::/64",
            field="subnet",
        )
    return found


def unique_local_range(chosen: bytes) -> str:
    """Return a unique local /64 with a global id of five random bytes (RFC 4193 section 3.2)."""
    return str(ipaddress.IPv6Network((b"\xfd" + chosen + bytes(10), 64)))


def subnet_of(spec: SubnetSpec) -> Subnet:
    """Return the subnet of a spec; raises UsageError if it is invalid."""
    whole = parse_range(spec.subnet)
    plain = Subnet(Ip(whole.network_address.packed), whole.prefixlen, _first(whole))
    ends = {plain.base} if whole.num_addresses > _PAIR_SIZE else set()
    if whole.version == 4 and ends:
        ends.add(Ip(whole.broadcast_address.packed))
    gateway = plain.gateway
    if spec.gateway is not None:
        gateway = _address(spec.gateway, "gateway", plain, ends)
    if len(spec.auxiliary) > limits.AUXILIARY_COUNT_MAX:
        raise UsageError(
            f"a subnet has at most {limits.AUXILIARY_COUNT_MAX} auxiliary addresses",
            field="auxiliary",
        )
    auxiliary = tuple(
        sorted(
            (_name(name), _address(text, "auxiliary", plain, ends, f"{name} "))
            for name, text in spec.auxiliary
        )
    )
    for name, ip in auxiliary:
        if ip == gateway:
            raise UsageError(
                f"{ip_text(ip)} is both the gateway and the auxiliary {name!r}",
                hint="Give one of them another address",
                field="auxiliary",
            )
    return Subnet(
        plain.base,
        plain.prefix_length,
        gateway,
        None if spec.ip_range is None else _ip_range(spec.ip_range, whole, spec.block_length),
        auxiliary,
        0 if spec.block_length is None else _block_length(spec.block_length, whole),
    )


def matches(existing: Subnet, spec: SubnetSpec) -> bool:
    """Return whether a subnet is as the spec asks; without a gateway in the spec, any will do."""
    asked = subnet_of(spec)
    if spec.gateway is None:
        return (existing.network, *_options(existing)) == (asked.network, *_options(asked))
    return existing == asked


def _options(subnet: Subnet) -> tuple[object, ...]:
    return subnet.ip_range, subnet.auxiliary, subnet.block_length


def _first(whole: Range) -> Ip:
    """Return the first address for a host: of two (RFC 3021) the network's own."""
    return Ip((whole.network_address + (whole.num_addresses > _PAIR_SIZE)).packed)


def _name(name: str) -> str:
    if not valid_name(name):
        raise UsageError(
            f"{name!r} is not a valid name for an auxiliary address",
            hint="Write it as router=IP",
            field="auxiliary",
        )
    return name


def _address(text: str, field: str, subnet: Subnet, ends: set[Ip], called: str = "") -> Ip:
    try:
        ip = parse_ip(text)
    except ValueError as error:
        raise UsageError(
            f"{called}{text!r} is not an IP address",
            hint="For example 10.32.0.5, or fd40::5",
            field=field,
        ) from error
    if ip not in subnet or ip in ends:
        raise UsageError(
            f"{called}{text} is not a usable address of {subnet}",
            why="it is outside, or the subnet's first or last",
            hint=f"For example {ip_text(subnet.gateway)}",
            field=field,
        )
    return ip


def _ip_range(text: str, whole: Range, block_length: int | None) -> tuple[Ip, int]:
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is not a range of addresses",
            hint="Write it as ADDRESS/LENGTH: 10.32.8.0/21",
            field="ip_range",
        ) from error
    if found.network_address != ipaddress.ip_address(text.partition("/")[0]):
        raise UsageError(
            f"{text} is an address within a range, not a range",
            hint=f"Did you mean {found}?",
            field="ip_range",
        )
    ends_within = found.version == whole.version and whole.prefixlen <= found.prefixlen
    if not ends_within or found.network_address not in whole:
        raise UsageError(
            f"the range {found} is not within the subnet {whole}",
            hint="Give a part of the subnet",
            field="ip_range",
        )
    if block_length is not None and found.prefixlen > block_length:
        raise UsageError(
            f"the range {found} is smaller than a host's block, a /{block_length}",
            hint="Make the range larger, or the blocks smaller",
            field="ip_range",
        )
    return Ip(found.network_address.packed), found.prefixlen


def _block_length(length: int, whole: Range) -> int:
    if not whole.prefixlen <= length <= whole.max_prefixlen - 2:
        raise UsageError(
            f"{whole} cannot be cut into blocks of /{length}",
            hint=f"Use a length from {whole.prefixlen} to {whole.max_prefixlen - 2}",
            field="block_length",
        )
    return length
