"""Create and remove networks for the API and for plugins of container runtimes.

Owns: what a definition depends on beside the records: the kernel of this host, and the division of
a new network's addresses. Does not: know the rules for a valid definition (`definition`) or for
valid settings (`settings`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from overlay.agent.declared.service import IGNORES, DeclaredService
from overlay.agent.declared.software import require_software
from overlay.agent.encryption.controller import EncryptionController
from overlay.agent.gossip.context import NodeContext
from overlay.agent.ipam.reserves import ReserveController
from overlay.agent.isolation.members import require_isolating_members
from overlay.agent.networks import definition, settings
from overlay.agent.networks.definition import HostConstraints
from overlay.agent.networks.participation import ParticipationService
from overlay.agent.networks.settings import SettingsSpec
from overlay.agent.networks.spec import NetworkSpec
from overlay.agent.networks.subnets import Range
from overlay.agent.records.plug_catalog import PlugCatalog
from overlay.core.declared.kinds import POLICY_KIND, SETTINGS_KIND
from overlay.core.declared.network_settings import NetworkSettings, difference, settings_name
from overlay.core.evpn.cluster_settings import EVPN_SOFTWARE
from overlay.core.policy.policy import POLICY_SOFTWARE
from overlay.errors import ConflictError
from overlay.kernel.host import underlay
from overlay.kernel.sandbox import kernel_support
from overlay.model import (
    DEFAULT_DENY_LABEL,
    ISOLATE_PORTS_LABEL,
    Network,
    has_default_deny,
    is_exported,
    isolates_ports,
)
from overlay.signals import Signal


class NetworkService:
    """Creates and removes networks of the cluster."""

    def __init__(
        self,
        context: NodeContext,
        participation: ParticipationService,
        reserves: ReserveController,
        encryption: EncryptionController,
        declared: DeclaredService,
        plugs: PlugCatalog,
    ) -> None:
        self._gossip = context.gossip
        self._directory = context.directory
        self._kernel = context.kernel
        self._participation = participation
        self._reserves = reserves
        self.changed: Signal[[]] = Signal()
        """Records that networks depend on have changed."""
        self._encryption = encryption
        self._declared = declared
        self._plugs = plugs

    async def create(self, spec: NetworkSpec) -> tuple[Network, bool]:
        """Return a network with this definition, and whether it is new; raises OverlayError."""
        constraints = await self.host_constraints()
        if self._encryption.policy.encrypts(spec.name, spec.driver):
            spec = replace(spec, encrypted=True)
        if spec.encrypted and self._directory.find_network(spec.name) is None:
            await self._encryption.capable.require_all()
        if DEFAULT_DENY_LABEL in spec.labels:
            self._require_enforced(spec.name)
        if ISOLATE_PORTS_LABEL in spec.labels:
            require_isolating_members(self._gossip.node, _isolation_title(spec.name))
        known = {network.name for network in self._directory.networks()}
        made = definition.create(self._gossip, self._directory, spec, constraints)
        if made.name not in known:
            # What a network left that had this VNI, removed while this host was cut off.
            self._end_settings(made)
            self._reserves.divide(made)
        return made, made.name not in known

    async def free_subnet(self, taken: Sequence[Range]) -> Range:
        """Return an IPv4 subnet that no network here has, nor one of `taken`."""
        constraints = await self.host_constraints()
        return definition.default_subnet(self._directory, constraints, taken).network

    async def host_constraints(self) -> HostConstraints:
        """Return the routes and VNIs of this host that a new network must not collide with."""
        port = self._gossip.cluster.vxlan_port
        routes = await self._kernel.call(underlay.routes)
        foreign = await self._kernel.call(kernel_support.foreign_vnis, port)
        return HostConstraints(
            overlapping_route=lambda wanted: underlay.overlapping(routes, wanted),
            vnis_in_use=frozenset(foreign),
        )

    async def check(self, spec: NetworkSpec) -> None:
        """Raise the error with which `create` would refuse a new network."""
        if DEFAULT_DENY_LABEL in spec.labels:
            self._require_enforced(spec.name)
        if ISOLATE_PORTS_LABEL in spec.labels:
            require_isolating_members(self._gossip.node, _isolation_title(spec.name))
        definition.check(self._gossip, self._directory, spec, await self.host_constraints())

    def require_valid(self, name: str, spec: SettingsSpec) -> None:
        """Raise the error with which `change` would refuse settings."""
        network = self._directory.network(name)
        self._override(network, settings.changed(network, spec)).body(_title(network))

    def change(self, name: str, spec: SettingsSpec) -> tuple[Network, bool]:
        """Return a network with other settings, and whether that changes it; raises OverlayError.

        All hosts follow as soon as they hear of it.
        """
        network = self._directory.network(name)
        wanted = settings.changed(network, spec)
        if wanted == network:
            return network, False
        if has_default_deny(wanted) and not has_default_deny(network):
            self._require_enforced(name)
        if isolates_ports(wanted) and not isolates_ports(network):
            require_isolating_members(self._gossip.node, _isolation_title(name))
        if is_exported(wanted) != is_exported(network):
            title = f"BGP EVPN of network {name}"
            require_software(self._gossip.node, EVPN_SOFTWARE, title, "would not follow it")
        override = self._override(network, wanted)
        if override == NetworkSettings():
            self._declared.remove(SETTINGS_KIND, settings_name(network))
        else:
            body = override.body(_title(network))
            self._declared.put(SETTINGS_KIND, settings_name(network), body)
        return wanted, True

    def _require_enforced(self, name: str) -> None:
        """Raise ConflictError while a live member would not deny what no policy allows."""
        title = f"the default of network {name}"
        require_software(self._gossip.node, POLICY_SOFTWARE, title, IGNORES)

    def _override(self, network: Network, wanted: Network) -> NetworkSettings:
        found = self._directory.definition(network.vni, network.creator)
        return difference(network if found is None else found, wanted)

    async def require_no_containers(self, name: str) -> None:
        """Raise ConflictError while containers are on a network, or may be."""
        network = self._directory.network(name)
        async with self._participation.holding_records(network):
            definition.require_unused(self._directory, network, services_end=True)

    async def remove(self, name: str) -> Network:
        """Remove a network everywhere; raises ConflictError while endpoints are on it."""
        network = self._directory.network(name)
        async with self._participation.holding_records(network):
            await self._participation.wait_seen(network.vni)
            self._require_unplugged(self._directory.network(name))
            removed = definition.remove(self._gossip, self._directory, name)
        self._end_settings(removed)
        return removed

    def _require_unplugged(self, network: Network) -> None:
        """Raise ConflictError while an interface of a host is plugged into a network."""
        hosts = {self._directory.node_name(each.origin) for each in self._plugs.plugs(network.vni)}
        if hosts:
            raise ConflictError(
                f"network {network.name} is in use",
                why=f"interfaces of {', '.join(sorted(hosts))} are plugged into it",
                hint=f"There: sudo overlayd network unplug {network.name}",
            )

    def _end_settings(self, network: Network) -> None:
        """Remove what is declared about a VNI: another network may have it next."""
        self._declared.remove(SETTINGS_KIND, settings_name(network))
        policies = self._directory.policies
        for policy in () if policies is None else policies.policies(network.vni):
            self._declared.remove(POLICY_KIND, policy.name)


def _title(network: Network) -> str:
    return f"the record of network {network.name}'s settings"


def _isolation_title(name: str) -> str:
    return f"the isolation of network {name}'s ports"
