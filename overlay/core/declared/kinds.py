"""The kinds of declared objects. Wire numbers (PROTOCOL.md, section 6.6): append only."""

from __future__ import annotations

from typing import Final

SERVICE_KIND: Final = 1
SETTINGS_KIND: Final = 2
DNS_RECORD_KIND: Final = 3
PUBLISHED_PORT_KIND: Final = 4
EXPOSURE_KIND: Final = 5
POLICY_KIND: Final = 6
EVPN_KIND: Final = 7
ROUTER_KIND: Final = 8
PLUG_KIND: Final = 9
INTEREST_KIND: Final = 10
ZERO_CHECKSUM_KIND: Final = 11
DECLARED_PLUG_KIND: Final = 12

OWN_KINDS: Final = frozenset({PLUG_KIND, INTEREST_KIND, ZERO_CHECKSUM_KIND})
"""Kinds of objects that each host declares about itself: no other member's record overrides one."""
