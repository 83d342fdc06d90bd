"""GET /v1/ping: where to send echo requests from, and which way they go.

The agent opens no raw socket: the command line sends, as the root that called it.
Owns: which namespace the source is in, and the way as the API shows it.
"""

from __future__ import annotations

from typing import cast

from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema import diagnosis as schema
from overlay.agent.api.schema.cluster import STATE_NAMES
from overlay.agent.components import Components
from overlay.agent.dataplane.sandbox_names import sandbox_name
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.trace.party import Pair, Party, PartyKind, node_label
from overlay.agent.trace.way import Way
from overlay.core.paths.view import PathView
from overlay.errors import ConflictError
from overlay.kernel import netns
from overlay.model import Ip, ip_text, mac_text

_WITHOUT_SOURCE = ", or leave --from out to send from a container of this host"
_HOST_NAMESPACE: schema.SendingNamespaceResponse = {"path": None, "device": None, "inode": None}


def ping(components: Components, query: schema.PingRequest) -> schema.PingResponse:
    """Return both ends, the way between them, and the namespace to send from."""
    finder = components.diagnosis.parties
    targets = finder.targets(query.target, query.network)
    sources = (
        finder.default_sources(targets)
        if query.source is None
        else finder.own_sources(query.source, query.network, otherwise=_WITHOUT_SOURCE)
    )
    pair = finder.pair(sources, targets, None if query.family is None else int(query.family))
    return {
        "network": pair.network.name,
        "target_network": pair.target.network.name,
        "source": party(components, pair.source, pair.source_ip),
        "target": party(components, pair.target, pair.target_ip),
        "namespace": _namespace(components, pair),
        "way": way(pair, components.diagnosis.ways.way(pair)),
    }


def party(components: Components, found: Party, ip: Ip) -> schema.PartyResponse:
    """Return one end as the API shows it."""
    directory = components.directory
    return {
        "name": found.name,
        "kind": found.kind.value,
        "ip": ip_text(ip),
        "mac": None if found.endpoint is None else mac_text(found.endpoint.mac),
        "node": node_label(directory, found),
        "node_state": STATE_NAMES[directory.node_state(found.node_id)],
    }


def way(pair: Pair, found: Way) -> schema.WayResponse:
    """Return a way as the API shows it."""
    return {
        "kind": cast("schema.WayKindName", found.kind),
        "routed": found.is_routed,
        "vni": pair.target.network.vni if found.peer_vtep else None,
        "local_vtep": ip_text(found.local_vtep) if found.local_vtep else None,
        "peer_vtep": ip_text(found.peer_vtep) if found.peer_vtep else None,
        "mtu": found.mtu,
        "fits": found.fits,
        "probed": None if found.probed is None else _probed(found.probed),
    }


def _probed(view: PathView) -> schema.ProbedPathResponse:
    return {
        "sending": view.sending.value,
        "receiving": view.receiving.value,
        "size_carried": view.size_carried,
    }


def _namespace(components: Components, pair: Pair) -> schema.SendingNamespaceResponse:
    """Return the namespace that the source is in; raises ConflictError if it is not known."""
    source = pair.source
    if source.kind is PartyKind.HOST:
        return _HOST_NAMESPACE
    if source.endpoint is None:
        name = sandbox_name(pair.network.vni, components.gossip.node_id)
        found = netns.names_identity(name)
        if found is not None:
            return {"path": str(netns.path_of(name)), "device": found[0], "inode": found[1]}
    else:
        attachment = components.attachments.get(source.endpoint.endpoint_id)
        if attachment is not None and attachment.netns_path:
            device, inode = attachment.netns_identity
            return {"path": attachment.netns_path, "device": device, "inode": inode}
    raise ConflictError(
        f"{source.name} has no network namespace on this host",
        why="its interface is not connected yet, or its container has ended",
        hint="overlayd endpoint ls   and   overlayd verify",
    )


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Register the route of this module."""

    async def answer(query: schema.PingRequest) -> schema.PingResponse:
        return ping(agent.require_components(), query)

    server.route(
        "GET", "/v1/ping", "ping", answer, query=schema.PingRequest, response=schema.PingResponse
    )
