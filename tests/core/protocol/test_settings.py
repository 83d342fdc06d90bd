"""Relations between the protocol's settings."""

from __future__ import annotations

from overlay.core.protocol.settings import ProtocolSettings


def test_probe_fits_its_interval() -> None:
    """A direct and an indirect round both end within one probe interval."""
    settings = ProtocolSettings()

    assert 2 * settings.probe_timeout_s <= settings.probe_interval_s
    assert 0 < settings.nack_delay_share < 1


def test_suspicion_outlasts_what_a_refutation_needs() -> None:
    """Several gossip rounds and probes fit between suspicion and death."""
    settings = ProtocolSettings()

    least_s = settings.suspicion_multiplier * settings.probe_interval_s
    assert least_s >= 10 * settings.rumour_interval_s
    assert least_s >= 3 * settings.probe_interval_s
    assert settings.suspicion_max_multiplier >= 1
