"""The bytes of requests that create and delete rows."""

from __future__ import annotations

import pytest
from overlay.core.dataplane.state import (
    AddressRow,
    BridgeFdbRow,
    FdbRow,
    FloodRow,
    GroupRow,
    NeighborRow,
    Row,
)
from overlay.kernel.netlink import codec, row_requests
from overlay.model import Mac, parse_ip

MAC = Mac(b"\2\0\0\0\0\x05")
INDEX = 7
V6 = " fd560000000000000000000000000012"


@pytest.mark.parametrize(
    ("row", "put", "delete", "body"),
    [
        (
            FdbRow("vxlan0", MAC, parse_ip("192.168.56.12")),
            (codec.RTM_NEWNEIGH, codec.NLM_F_CREATE | codec.NLM_F_REPLACE),
            codec.RTM_DELNEIGH,
            "07000000 07000000 8000 02 00  0a000200 020000000005 0000  08000100 c0a8380c",
        ),
        (
            FloodRow("vxlan0", parse_ip("fd56::12")),
            (codec.RTM_NEWNEIGH, codec.NLM_F_CREATE | codec.NLM_F_APPEND),
            codec.RTM_DELNEIGH,
            "07000000 07000000 8000 02 00  0a000200 000000000000 0000  14000100" + V6,
        ),
        (
            GroupRow(Mac(bytes.fromhex("01005e010203")), "vxlan0", parse_ip("192.168.56.12")),
            (codec.RTM_NEWNEIGH, codec.NLM_F_CREATE | codec.NLM_F_APPEND),
            codec.RTM_DELNEIGH,
            "07000000 07000000 8000 02 00  0a000200 01005e010203 0000  08000100 c0a8380c",
        ),
        (
            BridgeFdbRow("vxlan0", MAC),
            (codec.RTM_NEWNEIGH, codec.NLM_F_CREATE | codec.NLM_F_REPLACE),
            codec.RTM_DELNEIGH,
            "07000000 07000000 0200 14 00  0a000200 020000000005 0000",
        ),
        (
            NeighborRow("br0", parse_ip("10.32.0.3"), MAC),
            (codec.RTM_NEWNEIGH, codec.NLM_F_CREATE | codec.NLM_F_REPLACE),
            codec.RTM_DELNEIGH,
            "02000000 07000000 8000 00 00  08000100 0a200003  0a000200 020000000005 0000",
        ),
        (
            AddressRow("br0", parse_ip("10.32.0.1"), 16),
            (codec.RTM_NEWADDR, codec.NLM_F_CREATE | codec.NLM_F_REPLACE),
            codec.RTM_DELADDR,
            "02100000 07000000  08000200 0a200001  08000100 0a200001",
        ),
    ],
)
def test_bytes(row: Row, put: tuple[int, int], delete: int, body: str) -> None:
    """Each row's request has the bytes that the kernel's headers define."""
    assert row_requests.put(row, INDEX) == (*put, bytes.fromhex(body))
    assert row_requests.delete(row, INDEX) == (delete, 0, bytes.fromhex(body))
