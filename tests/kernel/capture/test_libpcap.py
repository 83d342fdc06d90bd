"""Filter expressions are libpcap's; what is wrong with one, or missing, is said."""

from __future__ import annotations

import pytest
from overlay.core.capture.classic_bpf import RETURN
from overlay.errors import OverlayError, UsageError
from overlay.kernel.capture import libpcap


def test_an_expression_is_compiled() -> None:
    """Into a program that ends with both verdicts."""
    program = libpcap.compiled("tcp port 5432")
    assert {each.value > 0 for each in program if each.code == RETURN} == {True, False}


@pytest.mark.parametrize("text", ["tcp prot 80", "host", "((", "\udcff"])
def test_a_wrong_expression_is_reported(text: str) -> None:
    """With what libpcap says, and an example."""
    with pytest.raises(UsageError) as caught:
        libpcap.compiled(text)
    assert caught.value.why
    assert "pcap-filter(7)" in caught.value.hint


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the packages that have it."""
    monkeypatch.setattr(libpcap, "_NAMES", ("libnowhere.so.1",))
    with pytest.raises(OverlayError) as caught:
        libpcap.compiled("tcp")
    assert "libpcap0.8" in caught.value.hint
