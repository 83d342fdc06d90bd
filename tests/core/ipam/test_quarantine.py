"""Released addresses rest before they are used again."""

from __future__ import annotations

from overlay import limits
from overlay.core.ipam.quarantine import Quarantine
from overlay.core.ipam.subnet_numbers import ip_of
from overlay.model import parse_ip
from tests.core.ipam.subnets import SMALL


def test_quarantine_lasts_its_time_from_the_last_release() -> None:
    """A second release restarts it, and addresses leave it in order."""
    quarantine = Quarantine(rest_s=60.0)
    two, three = parse_ip("10.0.0.2"), parse_ip("10.0.0.3")
    quarantine.release(two, 0.0)
    quarantine.release(three, 10.0)
    quarantine.release(two, 20.0)

    assert dict(quarantine.resting(69.9)) == {three: 10.0, two: 20.0}
    assert dict(quarantine.resting(70.0)) == {two: 20.0}
    assert dict(quarantine.resting(80.0)) == {}


def test_quarantine_is_bounded() -> None:
    """Beyond its size the oldest address leaves it early."""
    quarantine = Quarantine()
    for number in range(limits.QUARANTINE_COUNT_MAX + 1):
        quarantine.release(ip_of(number, SMALL), 0.0)

    assert len(quarantine.resting(0.0)) == limits.QUARANTINE_COUNT_MAX
    assert ip_of(0, SMALL) not in quarantine.resting(0.0)
