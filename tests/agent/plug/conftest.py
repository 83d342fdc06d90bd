"""A member with plugs, and one that plugs and unplugs."""

from __future__ import annotations

import pytest
from tests.agent.conftest import Sites
from tests.agent.plug.bench import PlugBench
from tests.agent.plug.service_bench import ServiceBench


@pytest.fixture
async def bench(sites: Sites, monkeypatch: pytest.MonkeyPatch) -> PlugBench:
    """Return a member that may write, and has caught up."""
    site = sites.first()
    await site.gossip.wait_may_write(10.0)
    return PlugBench(site, monkeypatch)


@pytest.fixture
async def host(sites: Sites, monkeypatch: pytest.MonkeyPatch) -> ServiceBench:
    """Return the same with its service."""
    site = sites.first()
    await site.gossip.wait_may_write(10.0)
    made = ServiceBench(site, monkeypatch)
    made.serve(monkeypatch)
    return made
