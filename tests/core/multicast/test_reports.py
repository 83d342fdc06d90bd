"""IGMP and MLD reports are read, and malformed ones refused."""

from __future__ import annotations

import random
import struct

import pytest
from overlay.core.multicast.reports import Report, read_report
from overlay.model import parse_ip
from tests.core.multicast.frames import (
    JOIN,
    LEAVE,
    SENDER,
    igmp_frame,
    igmp_records,
    mld_frame,
    mld_records,
)

GROUP, GROUP_IPV6 = parse_ip("239.1.2.3"), parse_ip("ff15::77")
ONE_IPV4 = struct.pack("!BBH4s", 0x16, 0, 0, GROUP)
ONE_IPV6 = struct.pack("!BBHHH16s", 131, 0, 0, 0, 0, GROUP_IPV6)


@pytest.mark.parametrize(
    ("frame", "joined", "left"),
    [
        (igmp_frame(ONE_IPV4), (GROUP,), ()),
        (igmp_frame(b"\x12" + ONE_IPV4[1:]), (GROUP,), ()),
        (igmp_frame(b"\x17" + ONE_IPV4[1:]), (), (GROUP,)),
        (igmp_frame(igmp_records((JOIN, "239.1.2.3", 0))), (GROUP,), ()),
        (igmp_frame(igmp_records((LEAVE, "239.1.2.3", 0))), (), (GROUP,)),
        (igmp_frame(igmp_records((LEAVE, "239.1.2.3", 2))), (GROUP,), ()),
        (igmp_frame(igmp_records((6, "239.1.2.3", 1))), (), ()),
        (
            igmp_frame(igmp_records((5, "239.9.9.9", 3), (2, "239.1.2.3", 0))),
            (parse_ip("239.9.9.9"), GROUP),
            (),
        ),
        (mld_frame(ONE_IPV6), (GROUP_IPV6,), ()),
        (mld_frame(b"\x84" + ONE_IPV6[1:]), (), (GROUP_IPV6,)),
        (mld_frame(mld_records((JOIN, "ff15::77", 0))), (GROUP_IPV6,), ()),
        (mld_frame(mld_records((LEAVE, "ff15::77", 0))), (), (GROUP_IPV6,)),
    ],
)
def test_reports_of_all_versions_are_read(frame: bytes, joined: object, left: object) -> None:
    """IGMPv1 to v3 and MLDv1 and v2; a report for some sources wants the group."""
    assert read_report(frame) == Report(SENDER, joined, left)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "frame",
    [
        igmp_frame(b"\x11" + ONE_IPV4[1:]),
        mld_frame(b"\x82" + ONE_IPV6[1:]),
        igmp_frame(ONE_IPV4).replace(b"\x01\x02\0\0\x0a", b"\x01\x67\0\0\x0a"),
    ],
    ids=["igmp query", "mld query", "pim"],
)
def test_queries_and_pim_are_signs_of_a_router(frame: bytes) -> None:
    """A container that sends them gets every group."""
    assert read_report(frame) == Report(SENDER, is_router=True)


def test_what_is_no_group_is_left_out() -> None:
    """A report may name any address."""
    assert read_report(igmp_frame(igmp_records((JOIN, "10.0.0.1", 0)))) == Report(SENDER)
    assert read_report(mld_frame(mld_records((JOIN, "fd00::1", 0)))) == Report(SENDER)


def test_any_bytes_are_a_report_or_nothing() -> None:
    """Cut, changed and random frames are read within their bounds."""
    rng = random.Random(7)
    whole = [
        igmp_frame(igmp_records((JOIN, "239.1.2.3", 2), (LEAVE, "239.1.2.4", 0))),
        mld_frame(mld_records((JOIN, "ff15::77", 2), (LEAVE, "ff15::78", 0))),
    ]
    for frame in whole:
        for size in range(len(frame)):
            read_report(frame[:size])
        for _ in range(2000):
            changed = bytearray(frame)
            for _ in range(rng.randrange(1, 4)):
                changed[rng.randrange(12, len(changed))] = rng.randrange(256)
            read_report(bytes(changed))
