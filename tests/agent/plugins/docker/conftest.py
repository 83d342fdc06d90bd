"""The plugin of a member of a cluster, and that of an agent in none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest_asyncio
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.plugins.docker.plugin import DockerPlugin
from overlay.agent.process.config import Config
from overlay.agent.process.event_log import EventLog
from tests.agent.plugins.docker.engine import Engine, components_of

if TYPE_CHECKING:
    from tests.agent.conftest import Sites


@pytest_asyncio.fixture
async def unjoined(tmp_path: Path) -> AsyncIterator[Engine]:
    """Return the plugin of an agent that is in no cluster."""
    agent = AgentLifecycle(Config(state_dir=tmp_path / "state", run_dir=tmp_path / "run"))
    plugin = DockerPlugin(agent, "on", tmp_path / "plugins")
    await plugin.reconcile()
    yield Engine(plugin, agent)
    await plugin.close()
    await agent.close()


@pytest_asyncio.fixture
async def engine(sites: Sites, tmp_path: Path) -> AsyncIterator[Engine]:
    """Return the plugin of a member of a cluster, without a kernel and without Docker."""
    components = components_of(sites.first())
    agent = SimpleNamespace(
        event_log=EventLog(tmp_path / "log"),
        components=components,
        require_components=lambda: components,
    )
    plugin = DockerPlugin(cast("AgentLifecycle", agent), "on", tmp_path / "plugins")
    await plugin.reconcile()
    yield Engine(plugin, agent)
    await plugin.close()
