"""GET /v1/policy/test: whether a new connection is allowed, and what decides it.

Owns: which network and addresses two texts mean. Does not: decide (`core.policy.decision`), or
read the kernel: `trace` does.
"""

from __future__ import annotations

from overlay.agent.api.policy.schema import (
    PolicyDecisionResponse,
    PolicyEndResponse,
    PolicyTestQuery,
    PolicyTestResponse,
)
from overlay.agent.api.policy.texts import default_of, port_range
from overlay.agent.components import Components
from overlay.agent.networks.settings import require_policed
from overlay.core.dataplane.network_drivers import driver_of
from overlay.core.policy.decision import Party
from overlay.core.policy.policy import PROTOCOL_NUMBERS
from overlay.errors import ConflictError, UsageError
from overlay.model import Ip, Network, ip_text, parse_ip


def answer(query: PolicyTestQuery, components: Components) -> PolicyTestResponse:
    """Return the decision about a connection; raises OverlayError.

    Where a router connects the networks of its ends, the policies of both decide.
    """
    network, source, target = _Ends(components, query).find()
    wanted = port_range(query.port or "icmp")
    has_ports = wanted.protocol != "icmp"
    if has_ports and wanted.first != wanted.last:
        raise UsageError(
            f"port: {query.port!r} is all ports of a protocol",
            hint=f"Give one, such as 5432/{wanted.protocol}",
            field="port",
        )
    numbers = PROTOCOL_NUMBERS[wanted.protocol]
    protocol = numbers[-1] if len(source) == 16 else numbers[0]
    decider = components.policies.decider
    entered, left = decider.at(network, target), decider.at(network, source)
    decisions: list[PolicyDecisionResponse] = []
    for each in _passed(components, network, source, target):
        require_policed(each.name, driver_of(each))
        left = decider.at(each, source) if _is_on(each, source) else left
        entered = decider.at(each, target) if _is_on(each, target) else entered
        ends = decider.at(each, source), decider.at(each, target)
        decided = decider.decide(each, *ends, protocol, wanted.first if has_ports else 0)
        decisions.append(
            {
                "network": each.name,
                "allowed": decided.allowed,
                "basis": decided.basis.value,
                "policy": decided.policy or None,
                "default": default_of(each),
            }
        )
    deciding = next((each for each in decisions if not each["allowed"]), decisions[-1])
    return {
        **deciding,
        "source": end_response(left),
        "target": end_response(entered),
        "protocol": wanted.protocol,
        "port": wanted.first if has_ports else None,
        "decisions": decisions,
    }


def _passed(components: Components, network: Network, source: Ip, target: Ip) -> list[Network]:
    """Return the networks that a connection passes, in order: two where a router connects them."""
    for other in components.directory.routed_with(network):
        if _is_on(network, source) and _is_on(other, target):
            return [network, other]
        if _is_on(other, source) and _is_on(network, target):
            return [other, network]
    return [network]


def end_response(party: Party) -> PolicyEndResponse:
    """Return one end of a connection."""
    name = "gateway" if party.is_gateway else party.name
    return {"name": name or None, "ip": ip_text(party.ip)}


class _Ends:
    """The two ends of a query; an address may be any, also one beyond the cluster."""

    def __init__(self, components: Components, query: PolicyTestQuery) -> None:
        self._directory = components.directory
        self._finder = components.diagnosis.parties
        self._query = query

    def find(self) -> tuple[Network, Ip, Ip]:
        """Return the network, and the address of each end; raises OverlayError."""
        query = self._query
        source, target = _parsed(query.source), _parsed(query.target)
        if source is not None and target is not None:
            self._require_alike(source, target)
            return self._network_of(source, target), source, target
        if source is not None:
            network, ip = self._beside(query.target, source)
            return network, source, ip
        if target is not None:
            network, ip = self._beside(query.source, target)
            return network, ip, target
        family = None if query.family is None else int(query.family)
        pair = self._finder.pair(
            self._finder.anywhere(query.source, query.network),
            self._finder.targets(query.target, query.network),
            family,
        )
        return pair.network, pair.source_ip, pair.target_ip

    def _beside(self, name: str, address: Ip) -> tuple[Network, Ip]:
        """Return the network of a named end, best one that has the address, and its own address."""
        found = self._finder.anywhere(name, self._query.network)
        choices = [
            (each.network, ip) for each in found for ip in each.ips if len(ip) == len(address)
        ]
        if not choices:
            raise _no_family(found[0].name, address)
        return max(choices, key=lambda each: _is_on(each[0], address))

    def _network_of(self, source: Ip, target: Ip) -> Network:
        """Return the network whose policies are about two addresses."""
        if self._query.network is not None:
            return self._directory.network(self._query.network)
        networks = [
            each
            for each in self._directory.networks()
            if _is_on(each, source) or _is_on(each, target)
        ]
        if not networks:
            raise ConflictError(
                f"neither {ip_text(source)} nor {ip_text(target)} is on a network",
                why="policies are about connections of a network's containers",
                hint="Name one end, or the network: --network NETWORK",
            )
        return max(networks, key=lambda each: _is_on(each, source) and _is_on(each, target))

    def _require_alike(self, source: Ip, target: Ip) -> None:
        if len(source) != len(target):
            raise _no_family(ip_text(source), target)


def _is_on(network: Network, ip: Ip) -> bool:
    return any(ip in subnet for subnet in network.subnets)


def _no_family(name: str, address: Ip) -> ConflictError:
    version = "IPv4" if len(address) == 4 else "IPv6"
    return ConflictError(
        f"{name} has no {version} address",
        why=f"the other end is {ip_text(address)}",
        hint="overlayd endpoint ls   (their addresses)",
    )


def _parsed(text: str) -> Ip | None:
    try:
        return parse_ip(text)
    except ValueError:
        return None
