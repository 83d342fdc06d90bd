"""Bounds of policies: their records, and how many of them count."""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Final


# --- Records ---------------------------------------------------------------------------
POLICIES_PER_NETWORK_MAX: Final = 256  # more cannot be created
POLICY_PEERS_MAX: Final = 16  # of each side
POLICY_PORTS_MAX: Final = 16  # ranges
