"""Requests about services that only root may send."""

from __future__ import annotations

import os
from typing import Any, cast
from unittest.mock import MagicMock

import pytest
from overlay.agent.api.http.caller import ApiCaller
from overlay.agent.api.services.handlers import ServiceHandlers
from overlay.agent.api.services.schema import (
    ServiceCreateRequest,
    ServicePortRequest,
    ServicePublishRequest,
    ServiceSetRequest,
)
from overlay.errors import ForbiddenError

MEMBER = ApiCaller(os.geteuid() + 1001, frozenset({12_300}))
LOW = (ServicePublishRequest(port=22, service_port=80),)


async def test_a_low_port_of_the_hosts_is_roots() -> None:
    """A container would answer in place of SSH, on every host of the cluster."""
    agent = MagicMock()
    handlers = ServiceHandlers(cast("Any", agent))
    ports = (ServicePortRequest(port=80),)
    create = ServiceCreateRequest(name="web", network="blue", ports=ports, publish=LOW)

    with pytest.raises(ForbiddenError, match="publish a port below 1024"):
        await handlers.create(create, MEMBER)
    with pytest.raises(ForbiddenError, match="publish a port below 1024"):
        await handlers.set("web", ServiceSetRequest(publish=LOW), MEMBER)
    agent.require_components().services.assert_not_called()
