"""Requests about services: who may send them, and what may be a mistake in them."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, cast
from unittest.mock import MagicMock

import pytest
from overlay.agent.api.http.caller import ApiCaller
from overlay.agent.api.services.handlers import (
    ServiceHandlers,
    ServiceView,
    backend_warnings,
)
from overlay.agent.api.services.schema import (
    ServiceCreateRequest,
    ServicePortRequest,
    ServicePublishRequest,
    ServiceSetRequest,
)
from overlay.core.services.service import ServiceIngress
from overlay.errors import ForbiddenError
from tests.core.services.test_derivation import WEB, candidate, index

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


@pytest.mark.parametrize(
    ("named", "warnings"),
    [
        ((), []),
        (("c1", "C2"), []),
        (("c11",), ["none of its backends is called c11. Did you mean c1?"]),
        (("database",), ["none of its backends is called database"]),
    ],
)
def test_a_name_that_is_no_backend_is_told(named: tuple[str, ...], warnings: list[str]) -> None:
    """Somebody would stop a container that is not drained at all."""
    found = index(candidate(1), candidate(2)).backends(WEB)

    assert backend_warnings(WEB, found, named) == warnings


def test_a_port_that_the_host_does_not_answer_is_told() -> None:
    """Its configuration allows members some ports alone; the verb succeeds for the others."""
    components = MagicMock()
    components.directory.follows.return_value = False  # its containers are not known here
    components.exposure.ingress.refusal = lambda _protocol, port: (
        "" if port > 1023 else f"not {port}"
    )
    service = replace(WEB, ingress=(ServiceIngress(22, 80), ServiceIngress(8080, 80)))

    assert ServiceView(components).warnings(service, ()) == ["not 22"]
