"""Handlers for plugs, and plugs as the API shows them."""

from __future__ import annotations

from overlay.agent.api.http.caller import ApiCaller
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.plug.schema import (
    OutsideMachineResponse,
    PlugDetailResponse,
    PlugRequest,
    PlugResponse,
    PlugStateName,
    UnplugQuery,
    UnplugResponse,
)
from overlay.agent.components import Components
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.records.plug_catalog import PlacedPlug
from overlay.agent.state.documents import PluggedInterface
from overlay.core.dataplane.network_drivers import is_encrypted
from overlay.core.plug.election import PlugRole
from overlay.errors import ConflictError
from overlay.model import Network, ip_text, mac_text

_STATES: dict[PlugRole, PlugStateName] = {
    PlugRole.ACTIVE: "active",
    PlugRole.STANDBY: "standby",
    PlugRole.LISTENING: "listening",
}


class PlugHandlers:
    """The handlers for plugs, bound to one agent."""

    def __init__(self, agent: AgentLifecycle) -> None:
        self._agent = agent

    async def plug(self, name: str, request: PlugRequest, caller: ApiCaller) -> PlugDetailResponse:
        """POST /v1/networks/NAME/plug."""
        components = self._agent.require_components()
        caller.require_trust(
            f"plug {request.interface} into a network",
            "the host would lose what it has on this interface",
        )
        network = components.directory.network(name)
        changed = await components.plugs.plug(
            network, request.interface, request.segment, force=request.force
        )
        await components.plugs.wait_for_role(network, request.interface)
        plug = components.plugs.controller.plugged.find(network.vni, request.interface)
        if plug is None:
            raise ConflictError(
                f"{request.interface} was unplugged meanwhile", hint="Repeat the command"
            )
        port = components.plugs.controller.ports.get(plug)
        return {
            **_here(plug, components),
            "network": network.name,
            "refused": 0 if port is None else port.refused,
            "changed": changed,
            "clear": is_encrypted(network),
        }

    async def unplug(self, name: str, query: UnplugQuery, caller: ApiCaller) -> UnplugResponse:
        """DELETE /v1/networks/NAME/plug."""
        components = self._agent.require_components()
        caller.require_trust("unplug an interface", "machines outside would lose the network")
        network = components.directory.network(name)
        return {
            "network": network.name,
            "interface": await components.plugs.unplug(network, query.interface or "") or None,
        }


def plugs(network: Network, components: Components) -> list[PlugResponse]:
    """Return the plugs of a network on all hosts."""
    own = components.gossip.node_id
    catalog = components.plugs.controller.catalog
    placed = [each for each in catalog.plugs(network.vni) if each.origin != own]
    found = [_elsewhere(each, components) for each in placed]
    plugged = components.plugs.controller.plugged.of(network.vni)
    found += [_here(plug, components) for plug in plugged]
    return sorted(found, key=lambda each: (each["node"], each["interface"]))


def machines(network: Network, components: Components) -> list[OutsideMachineResponse]:
    """Return the machines outside that are known on a network."""
    name_of = components.directory.node_name
    found = components.plugs.controller.catalog.machines(network.vni)
    return [
        {"mac": mac_text(machine.mac), "ip": ip_text(machine.ip), "node": name_of(origin)}
        for origin, machine in sorted(
            found, key=lambda each: (len(each.machine.ip), each.machine.ip)
        )
    ]


def _elsewhere(placed: PlacedPlug, components: Components) -> PlugResponse:
    origin, plug = placed
    catalog = components.plugs.controller.catalog
    state: PlugStateName = "active" if plug.is_active else "standby"
    why = "" if plug.is_active or plug.is_ready else "the interface has no carrier"
    if not catalog.is_live(origin):
        state, why = "unknown", "its agent does not answer"
    seen = [each for each in catalog.machines(plug.vni) if each.origin == origin]
    return {
        "node": components.directory.node_name(origin),
        "interface": plug.interface,
        "segment": plug.segment,
        "state": state,
        "why": why,
        "machines": len({each.machine.mac for each in seen}),
    }


def _here(plug: PluggedInterface, components: Components) -> PlugResponse:
    port = components.plugs.controller.ports.get(plug)
    standing = None if port is None else port.election.standing
    seen = () if port is None else port.reading.machines
    return {
        "node": components.gossip.card.name,
        "interface": plug.interface,
        "segment": plug.segment,
        "state": "unknown" if standing is None else _STATES[standing.role],
        "why": "it is not there yet" if standing is None else standing.why,
        "machines": len({machine.mac for machine in seen}),
    }


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Register the routes of this module."""
    handlers = PlugHandlers(agent)
    server.route(
        "POST",
        "/v1/networks/{name}/plug",
        "network-plug",
        handlers.plug,
        request=PlugRequest,
        response=PlugDetailResponse,
        needs_caller=True,
    )
    server.route(
        "DELETE",
        "/v1/networks/{name}/plug",
        "network-unplug",
        handlers.unplug,
        query=UnplugQuery,
        response=UnplugResponse,
        needs_caller=True,
    )
