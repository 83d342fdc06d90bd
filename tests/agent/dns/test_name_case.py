"""The case of the names in forwarded queries."""

from __future__ import annotations

from dnslib import DNSRecord
from hypothesis import given
from hypothesis import strategies as st
from overlay.agent.dns import name_case


@given(raw=st.binary(max_size=80))
def test_any_message_keeps_its_meaning(raw: bytes) -> None:
    """Only the case of the question's letters changes, and it is restored."""
    mixed = name_case.mixed(raw)

    assert mixed[:12] == raw[:12]
    assert mixed.lower() == raw.lower()
    assert name_case.restored(mixed, raw) == raw
    assert name_case.is_kept(mixed, mixed)


def test_only_letters_change() -> None:
    """Digits, hyphens and the bytes around the name stay as they are."""
    raw = bytes(DNSRecord.question("9-a@[`{.example.org").pack())

    for _ in range(20):
        mixed = name_case.mixed(raw)
        changed = [place for place in range(len(raw)) if mixed[place] != raw[place]]
        assert all(raw[place : place + 1].isalpha() for place in changed)
