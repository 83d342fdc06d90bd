"""The subnet of this host's underlay address: where its fabric's VTEPs are, unless told."""

from __future__ import annotations

import ipaddress

from overlay.errors import UsageError
from overlay.kernel.netlink import address_rows, codec
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.model import Ip, ip_text


def subnet_of(address: Ip) -> str:
    """Return the prefix of an address of this host, such as `10.9.0.0/24`.

    Raises UsageError if it has none that other hosts could be in.
    """
    with NetlinkSocket() as opened:
        dumped = opened.dump(codec.RTM_GETADDR, address_rows.ADDRESS_DUMP)
    lengths = [
        row.prefix_length
        for message in dumped
        if (
            row := address_rows.decode_address(
                message, {address_rows.address_index(message): "any"}, temporary=True
            )
        )
        and row.ip == address
    ]
    length = min(lengths, default=32)
    if length == 32:
        raise UsageError(
            "vtep_prefixes is required",
            why=f"this host's underlay address {ip_text(address)} is in no subnet with other hosts",
            hint="Give the addresses of the fabric's VTEPs: --vtep-prefix 10.9.0.0/16",
            field="vtep_prefixes",
        )
    return str(ipaddress.ip_network((bytes(address), length), strict=False))
