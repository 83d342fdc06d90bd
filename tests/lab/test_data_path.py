"""The data path that a lab's hosts are configured for."""

from __future__ import annotations

from pathlib import Path

import pytest
from overlay.agent.process import config
from overlay.errors import UsageError
from overlay.lab import data_path


@pytest.mark.parametrize(
    ("name", "fast", "native"),
    [("native", "auto", "auto"), ("fast", "on", "off"), ("bridge", "off", None)],
)
def test_an_agent_accepts_each_configuration(
    tmp_path: Path, name: str, fast: str, native: str | None
) -> None:
    """It has the mode of the path, and what only a faster one needs is left as it is."""
    file = tmp_path / "overlayd.toml"
    file.write_text(data_path.CONFIGURATIONS[name])
    read = config.load(file, required=True)

    assert (read.fast_path, read.native_path) == (fast, native or config.Config().native_path)


@pytest.mark.parametrize("gate", ["auto", "on", "off"])
def test_an_agent_accepts_each_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: str
) -> None:
    """Beside any path."""
    monkeypatch.setenv(data_path.GATE_VARIABLE, gate)
    monkeypatch.setenv(data_path.VARIABLE, "native")
    file = tmp_path / "overlayd.toml"
    file.write_text(data_path.configuration())
    assert config.load(file, required=True).gate == gate


def test_another_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a run which names it does not take the defaults."""
    monkeypatch.setenv(data_path.VARIABLE, "vxlan")
    with pytest.raises(UsageError, match="names no path: 'vxlan'"):
        data_path.wanted()
    monkeypatch.delenv(data_path.VARIABLE)
    assert data_path.wanted() == ""
    monkeypatch.setenv(data_path.GATE_VARIABLE, "yes")
    with pytest.raises(UsageError, match="OVERLAYD_LAB_GATE is no choice: 'yes'"):
        data_path.configuration()
