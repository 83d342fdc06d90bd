"""The simulator notices a host that is refused while others hold free space."""

from __future__ import annotations

import pytest
from overlay.core.ipam import reserves, spread
from overlay.core.protocol.messages import GrantRefusal
from overlay.model import Grant
from overlay.sim.host.agent import SimAgent
from overlay.sim.run import Run
from overlay.sim.scenario import Scenario
from overlay.sim.world.refusals import RECOVERY_S

CALM = Scenario(
    nodes=5, seed=4, loss=0.0, partitions=0, crashes=0, clogs=0, stalls=0, moves=0, leaves=0,
    newcomers=1, rotations=0, tampers=0, churn=2.0, networks=3, duration=RECOVERY_S + 5.0,
    outage=True,
)  # fmt: skip


@pytest.fixture
def lone_creator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let networks' creators own all space, and nobody keep reserves."""

    def nothing(*_: object) -> list[Grant]:
        return []

    monkeypatch.setattr(SimAgent, "divide", lambda _agent, _network: None)
    monkeypatch.setattr(spread, "keepers", nothing)
    monkeypatch.setattr(reserves.Reserves, "requests", nothing)


def test_an_outage_refuses_nobody() -> None:
    """With two of six hosts dead, the creators first, every other host attaches."""
    outcome = Run(CALM).to_end()

    assert outcome.held, outcome.failed_text()
    assert any("die" in text for _, text in outcome.story)


@pytest.mark.usefixtures("lone_creator")
def test_a_lone_creator_is_noticed() -> None:
    """Without reserves the same outage fails."""
    outcome = Run(CALM).to_end()

    assert "has no reserve" in outcome.failed_text()


def test_a_miser_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts that refuse although they have space break the invariant."""

    def refuse(self: SimAgent, asker: object, request: object) -> None:
        node = self.host.node
        assert node is not None
        node.send_to(asker, GrantRefusal(request.request_id, "exhausted", 0))  # type: ignore[arg-type, attr-defined]

    monkeypatch.setattr(SimAgent, "divide", lambda _agent, _network: None)
    monkeypatch.setattr(SimAgent, "_answer", refuse)
    outcome = Run(CALM).to_end()

    assert "found no address on" in outcome.failed_text()
