"""Handlers for policies, and policies as the API shows them."""

from __future__ import annotations

from dataclasses import fields, replace

from overlay import limits
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.policy import texts
from overlay.agent.api.policy.connection import answer, end_response
from overlay.agent.api.policy.schema import (
    CountedPolicyResponse,
    DeniedPacketResponse,
    PolicyChangedResponse,
    PolicyCreatedResponse,
    PolicyCreateRequest,
    PolicyDetailResponse,
    PolicyListResponse,
    PolicyResponse,
    PolicySetRequest,
    PolicyTestQuery,
    PolicyTestResponse,
)
from overlay.agent.api.schema.removal import RemovalResponse
from overlay.agent.components import Components
from overlay.agent.declared.user_labels import with_user_labels
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.policy import definition
from overlay.agent.policy.counters import PolicyCount, PolicyReading
from overlay.agent.policy.drop_reports import PROTOCOLS
from overlay.core.policy.decision import selects
from overlay.core.policy.policy import Policy
from overlay.model import Vni, has_default_deny

_API_NAMES = {"sources": "from", "destinations": "to"}  # of fields that have another name there


class PolicyHandlers:
    """The handlers for policies, bound to one agent."""

    def __init__(self, agent: AgentLifecycle) -> None:
        self._agent = agent

    async def list(self) -> PolicyListResponse:
        """GET /v1/policies."""
        components = self._agent.require_components()
        networks = components.directory.networks()
        policies = components.policies.catalog.all()
        readings = {
            vni: await components.policies.counters.read(vni)
            for vni in {policy.vni for policy in policies}
        }
        return {
            "policies": [_counted(each, readings[each.vni], components) for each in policies],
            "default_deny": [each.name for each in networks if has_default_deny(each)],
        }

    async def create(self, request: PolicyCreateRequest) -> PolicyCreatedResponse:
        """POST /v1/policies."""
        components = self._agent.require_components()
        network = components.directory.network(request.network)
        made, created = components.policies.registry.create(
            network, policy_of(request, network.vni)
        )
        return {**_policy(made, components), "created": created, "notes": _notes(made, components)}

    async def inspect(self, name: str) -> PolicyDetailResponse:
        """GET /v1/policies/NAME."""
        components = self._agent.require_components()
        policy = components.policies.registry.require(name)
        reading = await components.policies.counters.read(policy.vni)
        return {
            **_counted(policy, reading, components),
            "sources_now": _selected(policy, components, is_source=True),
            "destinations_now": _selected(policy, components, is_source=False),
            "denied": _denied(policy, reading, components),
            "notes": _notes(policy, components),
        }

    async def set(self, name: str, request: PolicySetRequest) -> PolicyChangedResponse:
        """POST /v1/policies/NAME."""
        components = self._agent.require_components()
        before, after = components.policies.registry.change(
            name, lambda found: _changed(found, request)
        )
        changed = [
            _API_NAMES.get(each.name, each.name)
            for each in fields(Policy)
            if getattr(before, each.name) != getattr(after, each.name)
        ]
        shown = _policy(after, components)
        return {**shown, "changed": changed, "notes": _notes(after, components)}

    async def remove(self, name: str) -> RemovalResponse:
        """DELETE /v1/policies/NAME."""
        removed = self._agent.require_components().policies.registry.remove(name)
        return {"removed": [removed.name], "failed": []}

    async def test(self, query: PolicyTestQuery) -> PolicyTestResponse:
        """GET /v1/policy/test."""
        return answer(query, self._agent.require_components())


def policy_of(request: PolicyCreateRequest, vni: Vni) -> Policy:
    """Return the policy of a request, on a network; raises UsageError."""
    return Policy(
        request.name,
        vni,
        request.action,
        texts.peers(request.sources, "from"),
        texts.peers(request.destinations, "to"),
        texts.port_ranges(request.ports),
        request.log,
        tuple(sorted(request.labels.items())),
    )


def _changed(policy: Policy, request: PolicySetRequest) -> Policy:
    """Return a policy with the changes of a request; raises UsageError."""
    found = policy
    if request.action is not None:
        found = replace(found, action=request.action)
    if request.sources is not None:
        found = replace(found, sources=texts.peers(request.sources, "from"))
    if request.destinations is not None:
        found = replace(found, destinations=texts.peers(request.destinations, "to"))
    if request.ports is not None:
        found = replace(found, ports=texts.port_ranges(request.ports))
    if request.log is not None:
        found = replace(found, log=request.log)
    if request.labels is not None:
        found = replace(found, labels=with_user_labels(policy.labels, request.labels))
    return found


def _policy(policy: Policy, components: Components) -> PolicyResponse:
    network = components.directory.network_by_vni(policy.vni)
    return {
        "name": policy.name,
        "network": None if network is None else network.name,
        "action": policy.action,
        "from": [str(peer) for peer in policy.sources],
        "to": [str(peer) for peer in policy.destinations],
        "ports": [str(each) for each in policy.ports],
        "log": policy.log,
        "labels": dict(policy.labels),
    }


def _counted(
    policy: Policy, reading: PolicyReading | None, components: Components
) -> CountedPolicyResponse:
    found = PolicyCount()
    if reading is not None:
        found = reading.counts.get(policy.name.lower(), found)
    return {
        **_policy(policy, components),
        "allowed_connections": None if reading is None else found.allowed,
        "denied_packets": None if reading is None else found.denied,
    }


def _denied(
    policy: Policy, reading: PolicyReading | None, components: Components
) -> list[DeniedPacketResponse]:
    """Return samples of what a policy denied on this host, the most frequent ones first."""
    network = components.directory.network_by_vni(policy.vni)
    if reading is None or network is None:
        return []
    packets = reading.denied.get(policy.name.lower(), [])[: limits.POLICY_SAMPLES_SHOWN_MAX]
    decider = components.policies.decider
    return [
        {
            "source": end_response(decider.at(network, each.source)),
            "target": end_response(decider.at(network, each.destination)),
            "protocol": PROTOCOLS.get(each.protocol, f"protocol {each.protocol}"),
            "port": each.port or None,
            "packets": each.packets,
        }
        for each in packets
    ]


def _selected(policy: Policy, components: Components, *, is_source: bool) -> list[str]:
    """Return the containers and hosts on its network that one side of a policy selects now."""
    network = components.directory.network_by_vni(policy.vni)
    peers = policy.sources if is_source else policy.destinations
    if network is None:
        return []
    parties = components.policies.decider.endpoints(network)
    return sorted({party.name for party in parties if selects(peers, party)})


def _notes(policy: Policy, components: Components) -> list[str]:
    network = components.directory.network_by_vni(policy.vni)
    if network is None:
        return ["its network was removed meanwhile: it has no effect, and can be removed"]
    return definition.notes(components.directory, network, policy)


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Register the routes of this module."""
    handlers = PolicyHandlers(agent)
    route = server.route
    route("GET", "/v1/policies", "policy-ls", handlers.list, response=PolicyListResponse)
    route(
        "POST",
        "/v1/policies",
        "policy-create",
        handlers.create,
        request=PolicyCreateRequest,
        response=PolicyCreatedResponse,
    )
    route(
        "GET",
        "/v1/policies/{name}",
        "policy-inspect",
        handlers.inspect,
        response=PolicyDetailResponse,
    )
    route(
        "POST",
        "/v1/policies/{name}",
        "policy-set",
        handlers.set,
        request=PolicySetRequest,
        response=PolicyChangedResponse,
    )
    route(
        "DELETE",
        "/v1/policies/{name}",
        "policy-rm",
        handlers.remove,
        response=RemovalResponse,
    )
    route(
        "GET",
        "/v1/policy/test",
        "policy-test",
        handlers.test,
        query=PolicyTestQuery,
        response=PolicyTestResponse,
    )
