"""Handler for verify: compare the kernel with the desired state, and repair it on request.

Owns: what is compared: sandboxes, the host's own namespace, and the containers' interfaces.
"""

from __future__ import annotations

import asyncio

from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema.cluster import DifferenceResponse, VerifyRequest, VerifyResponse
from overlay.agent.components import Components
from overlay.agent.lifecycle import AgentLifecycle
from overlay.core.dataplane.operations import Operation
from overlay.model import Vni

# No network can have such a name.
_FILTER_NAME, _TUNNELS_NAME, _HOST_NAME = "(underlay)", "(tunnels)", "(host)"
_NATIVE_NAME = "(native path)"
_SERVICES_NAME = "(services)"
_REPAIR_TRIES = 5
_REPAIR_PAUSE_S = 0.1


async def verify(agent: AgentLifecycle, query: VerifyRequest) -> VerifyResponse:
    """GET /v1/verify[?repair=1]."""
    components = agent.require_components()
    sandboxes = await components.forwarding.reconciler.differences()
    others = await _others(components)
    repaired = query.repair == "1" and await _repaired(components)
    return {
        "differences": [*_of_sandboxes(components, sandboxes), *others],
        "repaired": repaired,
    }


async def _others(components: Components) -> list[DifferenceResponse]:
    """Return the differences outside the sandboxes."""
    forwarding, clients = components.forwarding, components.service_data_plane.clients
    lost = await forwarding.drivers.differences()
    changed = await components.container_ends.differences()
    texts = (
        (_SERVICES_NAME, "Services", await clients.differences()),
        (_FILTER_NAME, "Filter", await forwarding.underlay_filter.differences()),
        (_NATIVE_NAME, "Native", await forwarding.native_path.differences()),
        (_TUNNELS_NAME, "Encryption", await forwarding.encryption.differences()),
        (_HOST_NAME, "Host", await components.exposure.differences()),
    )
    return [
        *(_difference(name, "Interface", text) for name, text in lost),
        *(_difference(name, "Container", text) for name, text in changed),
        *(_difference(name, operation, each) for name, operation, found in texts for each in found),
    ]


def _difference(network: str, operation: str, text: str) -> DifferenceResponse:
    return {"network": network, "operation": operation, "text": text}


def _of_sandboxes(
    components: Components, differences: dict[Vni, list[Operation]]
) -> list[DifferenceResponse]:
    names = {network.vni: network.name for network in components.directory.networks()}
    return [
        _difference(names.get(vni, f"vni {vni}"), type(operation).__name__, str(operation))
        for vni, operations in differences.items()
        for operation in operations
    ]


async def _repaired(components: Components) -> bool:
    """Reconcile until nothing differs; return whether that was reached.

    Several passes may be needed: a lost interface is recreated outside of them.
    """
    forwarding = components.forwarding
    for _ in range(_REPAIR_TRIES):
        left = await forwarding.reconciler.differences()
        if await _matches(components, left):
            return True
        await forwarding.underlay_filter.attempt()
        forwarding.native_path.mark_stale()
        await forwarding.native_path.attempt()
        await forwarding.encryption.attempt()
        await components.exposure.reconcile_all()
        components.container_ends.mark_stale()
        await components.container_ends.attempt()
        await components.service_data_plane.clients.verify_all()
        for vni, operations in left.items():
            if operations:
                await forwarding.reconciler.reconcile_network(vni, whole=True)
        await asyncio.sleep(_REPAIR_PAUSE_S)
    return await _matches(components, await forwarding.reconciler.differences())


async def _matches(components: Components, left: dict[Vni, list[Operation]]) -> bool:
    return not any(left.values()) and not await _others(components)


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Register the route of this module."""

    async def answer(query: VerifyRequest) -> VerifyResponse:
        return await verify(agent, query)

    server.route(
        "GET", "/v1/verify", "verify", answer, query=VerifyRequest, response=VerifyResponse
    )
