"""The faults of BGP EVPN in `overlayd status`: what is missing, refused or lost.

Owns: the texts, and what to do. Does not: find out (`controller`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from overlay import limits
from overlay.agent.evpn.settings_choice import SettingsChoice
from overlay.agent.process.controller import Fault
from overlay.core.evpn.intake import Intake
from overlay.core.evpn.settings import EvpnSettings
from overlay.model import Ip, ip_text

_SHOWN_MAX = 3
UNSUPERVISED: Final = Fault(
    "FRR's processes are not watched: what dies stays dead",
    "sudo overlayd evpn enable   (without options: as before)",
)


def of_disabled_host(choice: SettingsChoice, exported: Sequence[str]) -> Iterator[Fault]:
    """Yield why a host should speak BGP EVPN; `exported` are the exported networks here."""
    if choice.chosen.lacks_password:
        yield Fault(
            "the cluster's settings of BGP EVPN need a password, which this host does not have",
            "sudo overlayd evpn enable --password-file FILE; to stay out: sudo overlayd evpn "
            "disable",
        )
    elif exported:
        yield Fault(
            f"this host does not speak BGP EVPN, so its containers on {', '.join(exported[:3])} "
            "are not known outside the cluster",
            "sudo overlayd evpn enable --asn N --neighbor ADDRESS"
            if choice.cluster is None
            else "sudo overlayd evpn enable   (without options: as the cluster has it)",
        )


def of_sessions(
    settings: EvpnSettings, lost_at_s: Mapping[Ip, float], now_s: float
) -> Iterator[Fault]:
    """Yield the neighbors without a session; `lost_at_s` says since when."""
    before_s = now_s - limits.EVPN_SESSION_GRACE_S
    lost = [ip for ip in settings.neighbors if lost_at_s.get(ip, before_s) < before_s]
    if not lost:
        return
    names = ", ".join(map(ip_text, lost))
    if len(lost) == len(settings.neighbors):
        yield Fault(
            f"no BGP session is up ({names}): this host keeps what it last knew of the fabric, "
            "and the fabric knows none of its containers",
            "Does the neighbor know this host, AS number and password? There: vtysh -c "
            "'show bgp l2vpn evpn summary'; here: overlayd evpn status",
        )
    else:
        yield Fault(
            f"there is no BGP session with {names}: the death of the last neighbor that is "
            "left would cut this host off from the fabric",
            "There: vtysh -c 'show bgp l2vpn evpn summary'; here: overlayd evpn status",
        )


def of_intake(intake: Intake) -> Iterator[Fault]:
    """Yield what was refused of the fabric."""
    if intake.outside:
        shown = ", ".join(map(ip_text, sorted(intake.outside)[:_SHOWN_MAX]))
        yield Fault(
            f"{sum(intake.outside.values())} rows of the fabric were refused: their VTEPs are "
            f"outside --vtep-prefix ({shown})",
            "If these are yours, enable again with a further --vtep-prefix; else they are "
            "forged, or of another fabric",
        )
    if intake.over_limit:
        yield Fault(
            f"{intake.over_limit} rows of the fabric were refused: it has more than this host "
            "takes",
            f"At most {limits.EVPN_ROWS_PER_NETWORK_MAX} MACs and addresses of one network, "
            f"and {limits.EVPN_ROWS_MAX} in all; split the network",
        )
