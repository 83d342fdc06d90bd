"""Find the rule of this host's firewall that could drop or change the VXLAN packets of members.

Owns: what all is looked at: nftables, and the tables that iptables-legacy keeps in the kernel.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from overlay.core.native.firewall import VxlanTraffic
from overlay.kernel.nft.firewall.legacy import judging_legacy_rule
from overlay.kernel.nft.firewall.reader import Firewall
from overlay.kernel.nft.tables import NftMissingError
from overlay.model import Ip


def judging_rule(
    own: Ip, members: Iterable[Ip], indexes: Iterable[int], fallback: str, port: int
) -> str:
    """Return where packets between this host and members may be judged; empty if nowhere.

    `indexes` are the interfaces that lead to members, `fallback` the one to ask about while these
    are not known. Raises OverlayError if there are too many rules to tell, OSError.
    """
    of_family = frozenset(ip for ip in members if len(ip) == len(own))
    interfaces = frozenset(_named(indexes or [socket.if_nametoindex(fallback)]))
    directions = [VxlanTraffic(way, own, of_family, interfaces, port) for way in (True, False)]
    try:
        firewall = Firewall()
    except NftMissingError:
        return judging_legacy_rule(*directions)
    try:
        return firewall.judging(*directions) or judging_legacy_rule(*directions)
    finally:
        firewall.close()


def _named(indexes: Iterable[int]) -> Iterable[tuple[int, str]]:
    for index in indexes:
        try:
            yield index, socket.if_indextoname(index)
        except OSError:
            continue  # deleted: its packets are none
