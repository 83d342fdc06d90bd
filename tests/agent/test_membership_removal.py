"""A host whose disk broke as it left its cluster must not return to it unnoticed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast
from unittest.mock import AsyncMock, MagicMock

import pytest
from overlay.agent.api.cluster import ClusterHandlers
from overlay.agent.api.schema.cluster import LeaveRequest
from overlay.agent.api.schema.field_types import EmptyRequest
from overlay.agent.api.status import status
from overlay.agent.gossip.join_request import JoinSpec
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.process.config import Config
from overlay.agent.process.event_log import EventLog
from overlay.agent.state import membership_documents
from overlay.agent.state.membership_documents import StoredCluster
from overlay.errors import OverlayError

CLUSTER = StoredCluster("00" * 16, "00" * 32, 7948, 4789, "vm2", None, "192.0.2.7", ())
RETURNS = "this host left its cluster, and will return to it when the agent starts again"


@pytest.fixture
async def member(tmp_path: Path) -> AsyncIterator[AgentLifecycle]:
    """Return the agent of a member whose components do nothing, on a disk that only reads."""
    agent = AgentLifecycle(Config(state_dir=tmp_path / "state", run_dir=tmp_path / "run"))
    membership_documents.CLUSTER.put(agent.state, CLUSTER)
    components = MagicMock()
    components.administration.identity_conflicts.has_duplicate.return_value = False
    components.attachments.values.return_value = []
    for name in (
        "exposure.withdraw", "routers.controller.withdraw", "plugs.withdraw",
        "service_data_plane.clients.withdraw", "ipam.grants.hand_back", "gossip.say_goodbye",
        "forwarding.evpn.remove", "forwarding.encryption.remove",
        "forwarding.native_path.remove", "forwarding.underlay_filter.remove", "close",
    ):  # fmt: skip
        components.configure_mock(**{name: AsyncMock()})
    agent.components = components
    read_only(agent, value=True)
    yield agent
    await agent.close()


def read_only(agent: AgentLifecycle, *, value: bool) -> None:
    """Have the disk refuse writes, or take them again."""
    agent.state._connection.execute(f"PRAGMA query_only={int(value)}")


async def leave(agent: AgentLifecycle) -> object:
    """Ask the agent to leave as the command does."""
    return await ClusterHandlers(agent).leave(LeaveRequest(force=False))


def is_stored(agent: AgentLifecycle) -> bool:
    """Return whether the next agent would be a member."""
    return membership_documents.CLUSTER.find(agent.state) is not None


async def test_a_repeated_leave_deletes_what_the_first_could_not(member: AgentLifecycle) -> None:
    """It says that the host left; a third one that there is nothing to leave."""
    for _ in range(2):
        with pytest.raises(OverlayError) as caught:
            await leave(member)
        assert (
            caught.value.what == "this host left its cluster, but its membership is still on disk"
        )
        assert "returns when the agent starts again" in caught.value.hint
        assert is_stored(member)
    shown = [each["text"] for each in status(member)["health"]]
    assert any(text.startswith(RETURNS) for text in shown)

    read_only(member, value=False)

    assert await leave(member) == {"left": True, "withdrawn": 0}
    assert not is_stored(member)
    assert [*member.membership_removal.faults()] == []
    assert await leave(member) == {"left": False, "withdrawn": 0}


async def test_the_agent_deletes_it_later(member: AgentLifecycle, tmp_path: Path) -> None:
    """Without being asked again; only then the events say that the host has left."""
    with pytest.raises(OverlayError):
        await leave(member)
    await member.membership_removal.attempt()
    assert is_stored(member)
    assert "left the cluster" not in told(tmp_path)

    read_only(member, value=False)
    await member.membership_removal.attempt()

    assert not is_stored(member)
    assert told(tmp_path).count("left the cluster") == 1
    await member.membership_removal.attempt()
    assert told(tmp_path).count("left the cluster") == 1


async def test_a_reset_goes_on_without_the_last_write(member: AgentLifecycle) -> None:
    """The command deletes the file; nothing else is left to do."""
    done = await ClusterHandlers(member).reset(EmptyRequest())

    assert (done["left"], done["cleared"], done["fault"]) == (True, True, None)
    assert member.components is None


async def test_a_reset_tells_of_containers_that_stayed(member: AgentLifecycle) -> None:
    """Though an earlier leave waits for the disk, too: the command has to clear them."""
    with pytest.raises(OverlayError):
        await leave(member)
    containers = cast("Any", member).containers = MagicMock()
    containers.remove_all = AsyncMock(side_effect=OverlayError("no room", why="disk full"))
    done = await ClusterHandlers(member).reset(EmptyRequest())

    assert (done["left"], done["cleared"], done["fault"]) == (False, False, "no room: disk full")


async def test_a_reset_goes_on_where_nothing_can_be_written(member: AgentLifecycle) -> None:
    """The host does not leave, and the command clears it as without an agent."""
    exposure = cast("Any", member.components).exposure
    exposure.withdraw.side_effect = member.state.commit
    done = await ClusterHandlers(member).reset(EmptyRequest())

    assert (done["left"], done["cleared"]) == (False, False)
    assert str(done["fault"]).startswith("cannot write the state file")

    exposure.withdraw.side_effect = OverlayError("cannot remove ov-000001")
    member.state.fault = ""
    with pytest.raises(OverlayError, match="cannot remove ov-000001"):
        await ClusterHandlers(member).reset(EmptyRequest())


async def test_a_join_first_deletes_the_former_membership(member: AgentLifecycle) -> None:
    """The records of two clusters in one file would be those of neither."""
    with pytest.raises(OverlayError):
        await leave(member)

    with pytest.raises(OverlayError, match="its membership is still on disk"):
        await member.join(JoinSpec(peers=("192.0.2.1",), token=None))


def told(folder: Path) -> list[str]:
    """Return the texts of an agent's events."""
    return [each["text"] for each in EventLog(folder / "state").since(0)]
