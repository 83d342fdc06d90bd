"""The events that tell when an agent started and ended."""

from __future__ import annotations

from pathlib import Path

import pytest
from overlay import __version__
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.process.config import Config
from overlay.agent.process.event_log import EventLog
from overlay.agent.state.membership_documents import StoredCluster
from overlay.errors import OverlayError

STARTED = f"started: overlayd {__version__}"
KILLED = "the previous agent ended without stopping: it was killed, or it crashed"


def agent(folder: Path) -> AgentLifecycle:
    """Return an agent that is in no cluster."""
    return AgentLifecycle(Config(state_dir=folder / "state", run_dir=folder / "run"))


def told(folder: Path) -> list[str]:
    """Return the texts of an agent's events."""
    return [each["text"] for each in EventLog(folder / "state").since(0)]


async def test_events_tell_starts_and_stops(tmp_path: Path) -> None:
    """An agent that was killed tells nothing; the next one says so."""
    first = agent(tmp_path)
    await first.start()
    await first.close()
    assert told(tmp_path) == [STARTED, "stopped"]

    killed = agent(tmp_path)
    await killed.start()
    killed._is_started = False
    await killed.close()
    last = agent(tmp_path)
    await last.start()
    await last.close()
    assert told(tmp_path)[2:] == [STARTED, KILLED, STARTED, "stopped"]


async def test_a_refused_agent_tells_nothing(tmp_path: Path) -> None:
    """The state directory may be another agent's."""
    refused = agent(tmp_path)
    await refused.close()

    assert told(tmp_path) == []


async def test_a_former_underlay_is_explained(tmp_path: Path) -> None:
    """An agent that was moved to another machine says how to get to the new address."""
    former = "192.0.2.77"
    cluster = StoredCluster(
        cluster_id="00" * 16,
        anchor="00" * 32,
        gossip_port=7948,
        vxlan_port=4789,
        node_name="vm2",
        underlay=former,
        address=former,
        seeds=(),
    )
    moved = agent(tmp_path)
    with pytest.raises(OverlayError) as caught:
        await moved._underlay(cluster, None)
    await moved.close()

    assert caught.value.what == f"this host has no address {former}"
    assert "named it for this member" in caught.value.why
    assert "overlayd join --underlay NEW" in caught.value.hint
