"""Comparing the kernel with what should be in it, and putting it right on demand.

Owns: what is compared, sandboxes and the host's own namespace, and the shape of what differs.
"""

from __future__ import annotations

import asyncio
from typing import Any

from overlay.agent.api.http.server import Server
from overlay.agent.api.schema import fields
from overlay.agent.api.schema.requests import VerifyAsked
from overlay.agent.api.schema.responses import Difference, Verified
from overlay.agent.components import Running
from overlay.agent.lifecycle import Agent
from overlay.agent.process.lean_aiohttp import web
from overlay.core.dataplane.operations import Operation
from overlay.model import Vni

Json = dict[str, Any]
_FILTER_NAME, _HOST_NAME = "(underlay)", "(host)"  # no network can have such a name
_REPAIR_TRIES = 5
_REPAIR_PAUSE_S = 0.1


async def verify(agent: Agent, http: web.Request) -> Verified:
    """GET /v1/verify[?repair=1]."""
    running = agent.member()
    sandboxes = await running.datapath.differences()
    filter_texts = await running.guard.differences()
    host_texts = await running.outside.differences()
    gone = await running.plugging.parented.differences()
    repair = fields.switch(dict(http.query), "repair")
    repaired = repair and await _repaired(running)
    return {
        "differences": [
            *_of_sandboxes(running, sandboxes),
            *(_difference(name, "Interface", text) for name, text in gone),
            *(_difference(_FILTER_NAME, "Filter", text) for text in filter_texts),
            *(_difference(_HOST_NAME, "Host", text) for text in host_texts),
        ],
        "repaired": repaired,
    }


def _difference(network: str, operation: str, text: str) -> Difference:
    return {"network": network, "operation": operation, "text": text}


def _of_sandboxes(running: Running, differences: dict[Vni, list[Operation]]) -> list[Difference]:
    names = {network.vni: network.name for network in running.directory.networks()}
    return [
        _difference(names.get(vni, f"vni {vni}"), type(operation).__name__, str(operation))
        for vni, operations in differences.items()
        for operation in operations
    ]


async def _repaired(running: Running) -> bool:
    """Make passes until nothing differs: a lost interface is made anew beside the pass."""
    for _ in range(_REPAIR_TRIES):
        left = await running.datapath.differences()
        if await _is_true(running, left):
            return True
        await running.guard.mend()
        await running.outside.mend()
        for vni, operations in left.items():
            if operations:
                await running.datapath.reconcile(vni)
        await asyncio.sleep(_REPAIR_PAUSE_S)
    return await _is_true(running, await running.datapath.differences())


async def _is_true(running: Running, left: dict[Vni, list[Operation]]) -> bool:
    return (
        not any(left.values())
        and not await running.guard.differences()
        and not await running.outside.differences()
        and not await running.plugging.parented.differences()
    )


def register(server: Server, agent: Agent) -> None:
    """Bind the path."""

    async def answer(http: web.Request, _body: Json) -> Verified:
        return await verify(agent, http)

    server.route("GET", "/v1/verify", "verify", answer, asks=VerifyAsked, gives=Verified)
