"""Lead a connection that its backend has not answered to another one, with its next SYN.

Only for connections that were led to the backend itself as they began (`connect_hook`): the
client's table knows of no translation for them, so it gets one for this very connection, which the
kernel forgets after a while.

Owns: the sets, the rules and the elements. Does not: write them (`table_writer`).
"""

from __future__ import annotations

import struct
from typing import Final, TypeAlias

from overlay.core.services.values import Backend
from overlay.kernel.nft import backend_choice as choice
from overlay.kernel.nft import expressions as ex
from overlay.kernel.nft.expressions import Rule
from overlay.kernel.nft.table import Set
from overlay.kernel.services.waiting_sockets import Waiting

SETS: Final = {4: "moved", 16: "moved6"}
KEPT_MS: Final = 130_000  # as long as a kernel sends SYNs again, with the default of six
_FLAGS: Final = 13  # offset in the header of TCP
_SYN, _SYN_OR_ACK = b"\x02", b"\x12"
_PORT: Final = struct.Struct(">H2x")
Move: TypeAlias = tuple[Waiting, Backend | None]
"""A connection, and the backend that it goes to; None: there is none."""


def sets() -> list[Set]:
    """Return the maps from (source, its port, destination, its port) to (address, port)."""
    return [choice.connection_map(name, size) for size, name in SETS.items()]


def rules() -> list[Rule]:
    """Return the rules that translate what the maps have."""
    return [
        (
            *(ex.is_ipv4() if size == 4 else ex.is_ipv6()),
            *ex.transport(ex.TCP),
            ex.transport_header(_FLAGS, 1),
            ex.masked(_SYN_OR_ACK),
            ex.equals(_SYN),
            *choice.translate_connection(name, size),
        )
        for size, name in SETS.items()
    ]


def element(connection: Waiting, backend: Backend) -> bytes:
    """Return the element that leads a connection to another backend."""
    source = bytes(connection.source) + _PORT.pack(connection.source_port)
    target = bytes(connection.target) + _PORT.pack(connection.target_port)
    return source + target + bytes(backend.ip) + _PORT.pack(backend.port)
