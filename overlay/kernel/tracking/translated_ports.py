"""The ports of connections that the host translates now.

An exemption from tracking that begins later must leave these alone: they may be older than the
rules in force, and so use any port.
"""

from __future__ import annotations

from overlay.core.tracking.tracked_traffic import MASQUERADE_PORTS, TrackedPort
from overlay.kernel.host import conntrack


def translated_ports() -> frozenset[TrackedPort]:
    """Return the ports by which packets of translated connections arrive, but masquerade ports.

    Takes as long as a look at each tracked connection does. Raises OSError.
    """
    found = set()
    for flow in conntrack.translated_flows():
        is_inward = flow.status & conntrack.TARGET_TRANSLATED
        port = int.from_bytes(flow.port if is_inward else flow.reply_port, "big")
        if not any(port in block for block in MASQUERADE_PORTS):
            found.add(TrackedPort(int.from_bytes(flow.protocol, "big"), port))
    return frozenset(found)
