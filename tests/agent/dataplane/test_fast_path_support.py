"""Which paths a node's sandboxes have, by configuration and kernel."""

from __future__ import annotations

import pytest
from overlay.agent.dataplane import fast_path
from overlay.agent.dataplane.fast_path import FastPathSupport


def support(monkeypatch: pytest.MonkeyPatch, native_mode: str, *, stops: bool) -> FastPathSupport:
    """Return what a node has once it has made a sandbox, on a kernel that refuses nothing."""
    monkeypatch.setattr(fast_path, "FastPath", object)
    monkeypatch.setattr(fast_path, "refusal", lambda: "")
    monkeypatch.setattr(fast_path, "stops_interfaces", lambda: stops)
    made = FastPathSupport("auto", native_mode)
    made.make()
    return made


def test_by_default_no_packet_is_lost_for_the_native_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel stops an interface for its programs, somebody must ask for it."""
    older = support(monkeypatch, "auto", stops=True)
    assert older.native_why.startswith("before Linux 6.6 the underlay's interface drops packets")
    assert not older.loads_native
    assert list(older.faults()) == []
    assert support(monkeypatch, "auto", stops=False).is_native
    assert support(monkeypatch, "on", stops=True).is_native
