"""The VLANs of a container's port: one, untagged, or several as tags of a trunk.

A port without VLANs is in the network's untagged part, like the gateway. A reserved label of the
endpoint has the VLANs, so that they are replicated and stored like the others. Owns: that label,
its text, and who meets whom. Does not: add tags or drop frames (`kernel.bpf.vlan`).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from overlay import limits
from overlay.errors import UsageError
from overlay.model import LABEL_PREFIX, Endpoint

_TAG_SIZE: Final = 4  # bytes of a frame
_LABEL: Final = LABEL_PREFIX + "vlan"
_RANGE: Final = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?", re.ASCII)


class Vlans(NamedTuple):
    """Ranges of VLANs, sorted and apart; a trunk's frames have tags, those of others have not."""

    ranges: tuple[tuple[int, int], ...] = ()
    is_trunk: bool = False

    def __str__(self) -> str:
        if self.is_trunk and len(self.ranges) == 1 and self.ranges[0][0] == self.ranges[0][1]:
            return f"{self.ranges[0][0]}-{self.ranges[0][0]}"  # else it would be no trunk
        return ",".join(
            str(first) if first == last else f"{first}-{last}" for first, last in self.ranges
        )

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and any(first <= number <= last for first, last in self[0])

    def meets(self, other: Vlans) -> bool:
        """Return whether frames of two ports reach each other."""
        if not self.is_any or not other.is_any:
            return self.is_any == other.is_any
        return any(
            first <= end and start <= last
            for first, last in self.ranges
            for start, end in other.ranges
        )

    @property
    def is_any(self) -> bool:
        """Whether the port is not in the untagged part of its network."""
        return self != NO_VLANS


NO_VLANS: Final = Vlans()
_NOWHERE: Final = Vlans(is_trunk=True)


def parse_vlans(text: str) -> Vlans:
    """Return the VLANs of a text such as `10` or `10,20-30`; raises UsageError."""
    found: list[tuple[int, int]] = []
    for part in text.split(","):
        matched = _RANGE.fullmatch(part.strip())
        if matched is None:
            raise _invalid(f"{text!r} does not name VLANs")
        first = int(matched[1])
        last = first if matched[2] is None else int(matched[2])
        if not limits.VLAN_MIN <= first <= last <= limits.VLAN_MAX:
            raise _invalid(
                f"{part.strip()!r} is not a VLAN of a port, or a range of them",
                f"they are {limits.VLAN_MIN} to {limits.VLAN_MAX}; VLAN 1 is that of ports without "
                "--vlan",
            )
        found.append((first, last))
    found = _merged(found)
    if len(found) > limits.VLAN_RANGES_MAX:
        raise _invalid(
            f"{len(found)} ranges of VLANs are too many",
            f"a port has at most {limits.VLAN_RANGES_MAX}",
        )
    return Vlans(tuple(found), is_trunk="," in text or "-" in text)


def _invalid(what: str, why: str = "") -> UsageError:
    hint = "--vlan 10 for one, untagged; --vlan 10,20-30 for a trunk; 10-10 for a trunk of one"
    return UsageError(what, why=why, hint=hint, field="vlan")


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(merged[-1][1], last)
        else:
            merged.append((first, last))
    return merged


def port_mtu(network_mtu: int, vlans: Vlans) -> int:
    """Return the MTU of a container: tagged frames must fit where its network's untagged do."""
    return network_mtu - _TAG_SIZE if vlans.is_any else network_mtu


def label_of_vlans(vlans: Vlans) -> tuple[str, str]:
    """Return the label that puts an endpoint into VLANs."""
    return _LABEL, str(vlans)


def vlans_of(endpoint: Endpoint) -> Vlans:
    """Return the VLANs of an endpoint; with a label that no agent writes it reaches nobody."""
    text = next((value for key, value in endpoint.labels if key == _LABEL), None)
    if text is None:
        return NO_VLANS
    try:
        return parse_vlans(text)
    except UsageError:
        return _NOWHERE
