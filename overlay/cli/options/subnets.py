"""Assign the per-subnet options of `network create` to the subnet they belong to.

Does not: know which subnets are valid; the agent checks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from overlay.client.api import JsonObject


def subnets(
    ranges: Sequence[str],
    gateways: Sequence[str],
    parts: Sequence[str] = (),
    auxiliary: Mapping[str, str] | None = None,
    block_size: int | None = None,
) -> list[JsonObject]:
    """Return the API's subnets; each option goes to the subnet that contains its address.

    Raises UsageError for an address outside of all subnets, and for a second gateway or range.
    """
    found: list[JsonObject] = [{"subnet": text, "gateway": None} for text in ranges]
    for gateway in gateways:
        chosen = found[_holding(ranges, gateway, "gateway")]
        if chosen["gateway"] is not None:
            raise UsageError(
                f"{chosen['subnet']} has two gateways: {chosen['gateway']} and {gateway}",
                hint="Give one --gateway for each subnet",
                field="gateway",
            )
        chosen["gateway"] = gateway
    for part in parts:
        chosen = found[_holding(ranges, part, "ip_range")]
        if "ip_range" in chosen:
            raise UsageError(
                f"{chosen['subnet']} has two ranges: {chosen['ip_range']} and {part}",
                hint="Give one --ip-range for each subnet",
                field="ip_range",
            )
        chosen["ip_range"] = part
    for name, address in (auxiliary or {}).items():
        chosen = found[_holding(ranges, address, "auxiliary")]
        chosen.setdefault("auxiliary", {})[name] = address
    if block_size is not None:
        _blocks(found, block_size)
    return found


def text(subnet: JsonObject) -> str:
    """Return a subnet's properties other than range and gateway, for the end of a line."""
    parts = []
    if subnet.get("ip_range"):
        parts.append(f"allocated from {subnet['ip_range']}")
    if subnet.get("block_length"):
        parts.append(f"a /{subnet['block_length']} per host")
    parts += [f"{name} {address}" for name, address in (subnet.get("auxiliary") or {}).items()]
    return "".join(f"  {part}" for part in parts)


def _holding(ranges: Sequence[str], address: str, field: str) -> int:
    """Return the index of the range that contains an option's address; raises UsageError."""
    import ipaddress  # noqa: PLC0415  only these options need it

    if not ranges:
        raise UsageError(f"{field} needs a subnet", hint="Give its --subnet as well", field=field)
    try:
        first = ipaddress.ip_address(address.partition("/")[0])
    except ValueError as error:
        raise UsageError(
            f"{address!r} is not an IP address", hint="Such as 10.32.0.5, or fd40::5", field=field
        ) from error
    for index, text_ in enumerate(ranges):
        try:
            if first in ipaddress.ip_network(text_, strict=False):
                return index
        except ValueError as error:
            raise UsageError(
                f"{text_!r} is not a subnet",
                hint="Write it as ADDRESS/LENGTH: 10.32.0.0/16",
                field="subnet",
            ) from error
    raise UsageError(
        f"{address} is in none of the subnets {', '.join(ranges)}",
        hint="Use an address of one of them, or omit the option",
        field=field,
    )


def _blocks(found: list[JsonObject], block_size: int) -> None:
    """Set the block size of each subnet that is large enough; hosts share the others."""
    fitting = [
        subnet
        for subnet in found
        if subnet["subnet"].partition("/")[2].isdecimal()
        and int(subnet["subnet"].partition("/")[2]) <= block_size
    ]
    if not fitting:
        raise UsageError(
            f"no subnet is large enough for a /{block_size}",
            field="block_length",
            hint="--block-size is the prefix length of one host's block in a larger --subnet",
        )
    for subnet in fitting:
        subnet["block_length"] = block_size
