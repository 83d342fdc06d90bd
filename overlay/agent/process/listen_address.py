"""The address and port of a TCP socket, as the configuration file writes them."""

from __future__ import annotations

import ipaddress


def parse_listen_address(text: str) -> tuple[str, int]:
    """Return the IP address and the port in `127.0.0.1:9469` or `[::1]:9469`.

    Raises ValueError with the reason.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ValueError("it has no port" if "." in text else "it has no address")
    is_bracketed = host.startswith("[") and host.endswith("]")
    if ":" in host and not is_bracketed:
        raise ValueError("an IPv6 address before a port needs brackets")
    try:
        address = ipaddress.ip_address(host[1:-1] if is_bracketed else host)
    except ValueError:
        raise ValueError(f"{host!r} is not an IP address") from None
    if is_bracketed != (address.version == 6):
        raise ValueError("only an IPv6 address has brackets")
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise ValueError(f"{port!r} is not a port from 1 to 65535")
    return str(address), int(port)
