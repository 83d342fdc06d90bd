"""The network as `doctor` shows it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from overlay.cli.checks.evidence import Evidence, Finding
from overlay.cli.checks.netcheck import check_network
from overlay.client.netcheck import collect
from overlay.core.netcheck.facts import AgentState, Facts, LocalFacts, PeerFacts

if TYPE_CHECKING:
    from overlay.client.netcheck.collect import Question

HOST = LocalFacts(AgentState.MEMBER, address="192.168.56.11", interface="eth1")
PEER = PeerFacts("vm2", "192.168.56.12", gossip_answers=True)
JOINED: Any = {"cluster": {"id": "x"}}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Question]:
    """Collect the questions; `found` answers."""
    questions: list[Question] = []

    def answer(_paths: object, question: Question) -> tuple[Facts, dict[str, Any]]:
        questions.append(question)
        return found[0], {}

    monkeypatch.setattr(collect, "collect", answer)
    return questions


found = [Facts(HOST, (PEER,))]


def checked(facts: Facts, status: Any = JOINED) -> list[Finding]:
    """Return what is found about facts."""
    found[0] = facts
    paths: Any = type("Paths", (), {"timeout_s": None})
    return list(check_network(Evidence(paths, status=status)))


def test_a_whole_network_is_one_line(asked: list[Question]) -> None:
    """It says how many members packets reach."""
    (only,) = checked(Facts(HOST, (PEER,)))

    assert only.level == "ok"
    assert "packets to 1 member pass" in only.text
    assert asked[0].agent is None


def test_a_lost_path_has_cause_and_remedy(asked: list[Question]) -> None:
    """In one line each, as of any other check."""
    (lost,) = checked(Facts(HOST, (replace(PEER, sending="lost"),)))

    assert (lost.level, lost.subject) == ("error", "network")
    assert "does not arrive at vm2 (192.168.56.12): gossip" in lost.text
    assert lost.remedy
    assert asked


@pytest.mark.parametrize(
    ("status", "state"), [(None, AgentState.HIDDEN), ({"cluster": None}, AgentState.UNJOINED)]
)
def test_an_agent_that_is_known_is_not_asked(
    asked: list[Question], status: Any, state: AgentState
) -> None:
    """Other checks have said what is the matter with it."""
    (only,) = checked(Facts(LocalFacts(state, interface="eth1")), status)

    assert only.level == "ok"
    assert asked[0].agent is state
