"""Secrets are removed from every text of a report."""

from __future__ import annotations

import base64
import random

import pytest
from overlay.cli.report.redaction import REMOVED, redacted, without_label_values


def spellings(secret: bytes) -> list[str]:
    """Return the ways in which programs print 32 bytes."""
    return [
        secret.hex(),
        secret.hex().upper(),
        base64.b64encode(secret).decode(),
        base64.urlsafe_b64encode(secret).decode().rstrip("="),
        repr(secret),
        str([secret]),
    ]


def test_no_spelling_of_a_key_stays() -> None:
    """Whatever its bytes are: hex, base64, and Python's repr, also within a line."""
    rng = random.Random(7)
    for _ in range(200):
        secret = rng.randbytes(32)
        for text in spellings(secret):
            found = redacted(f"key={text} mark=a83c")
            assert REMOVED in found
            assert text not in found
            assert found.endswith(" mark=a83c")


def test_tokens_and_passwords_in_urls_are_removed() -> None:
    """A token is removed also if it was cut short."""
    assert redacted("joined by ovt1.abcDEF_-12: ok") == f"joined by ovt1.{REMOVED}: ok"
    assert redacted("http://me:pass@proxy:3128/") == f"http://{REMOVED}@proxy:3128/"


@pytest.mark.parametrize(
    "text",
    [
        "blue: bridge fdb replace 02:4f:0a:20:00:02 dev vxlan0 dst 192.168.56.12 self",
        'File "/usr/lib/overlayd/lib/python3/dist-packages/overlay/agent/process/controller.py"',
        "net/ipv4/conf/ve8a01beef12/route_localnet = 0",
        "fd00:10:32:0:0:ffff:ffff:ffff dev br0 lladdr 02:4f:0a:20:00:02 PERMANENT",
        "2026-11-29 01:16:58,629 INFO overlayd member: vm1 is joined [peer=vm1]",
        "n-8a01beef docker:4f2a9c01d7be 7f3a9c21",
    ],
)
def test_what_is_needed_stays(text: str) -> None:
    """Rows, paths, sysctls, addresses and ids are no keys."""
    assert redacted(text) == text


def test_label_values_are_removed() -> None:
    """At any depth; their names, and fields of other kinds, stay."""
    answer = {"endpoints": [{"name": "web", "labels": {"password": "x", "team": "a"}}]}

    assert without_label_values(answer) == {
        "endpoints": [{"name": "web", "labels": {"password": REMOVED, "team": REMOVED}}]
    }
