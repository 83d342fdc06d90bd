"""The input of each sandbox's plan: addresses and MTUs, by how far a network is encrypted.

Owns: which VTEP and MTU a network has here, and the interface of encryption to the data plane,
which `agent.encryption` provides. Does not: plan, or read the kernel.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import replace
from typing import Protocol

from overlay.agent.dataplane.fabric_table import FabricTable
from overlay.agent.gossip.context import NodeContext
from overlay.agent.resolvers.container_resolvers import ContainerResolvers
from overlay.agent.state.attachments import Attachments
from overlay.core.dataplane.network_drivers import has_tunnel
from overlay.core.dataplane.planning.inputs import LocalPort, PlanInput, RoutedNetwork
from overlay.core.dataplane.planning.ports import required_hooks
from overlay.core.dataplane.state import HookRow
from overlay.core.declared.network_options import MTU, option_of
from overlay.core.encryption.switch_phase import SwitchPhase
from overlay.core.mtu import encrypted_mtu, network_mtu, overlay_mtu
from overlay.core.policy.plans import PolicyPlans
from overlay.core.router.routing import routed_subnets
from overlay.core.vlan.vlans import Vlans
from overlay.model import Card, Ip, Network, NodeId, Vni


class EncryptedTunnels(Protocol):
    """The WireGuard tunnels to the other members."""

    def address_of(self, node_id: NodeId) -> Ip:
        """Return a node's VTEP on encrypted networks."""

    @property
    def is_fenced(self) -> bool:
        """Return whether frames to inner addresses go nowhere without the device."""

    async def enter(self, vni: Vni) -> None:
        """Have the tunnels while this network's sandbox exists."""

    async def leave(self, vni: Vni) -> None:
        """Remove the tunnels when the last such sandbox is gone."""

    async def follow_members(self) -> None:
        """Let exactly the present members be peers."""


class PlanInputs:
    """Collects the inputs of the plans of this node's sandboxes."""

    def __init__(
        self,
        context: NodeContext,
        attachments: Attachments,
        tunnels: EncryptedTunnels,
        fabric: FabricTable,
    ) -> None:
        self._gossip = context.gossip
        self._directory = context.directory
        self._view = context.directory.view
        self._attachments = attachments
        self._tunnels = tunnels
        self._fabric = fabric
        self.resolvers = ContainerResolvers(attachments)
        self._multicast = context.directory.multicast
        catalog = context.directory.policies
        self._policies = None if catalog is None else PolicyPlans(catalog)

    @property
    def overlay_mtu(self) -> int:
        """Return the MTU of networks in clear in bytes."""
        card = self._gossip.card
        return overlay_mtu(card.underlay_mtu, card.address)

    def mtu_of(self, network: Network) -> int:
        """Return the MTU of a network's containers in bytes: what the underlay carries, or less.

        Without a tunnel that is the underlay's own.
        """
        carried = self._carried_mtu(network)
        return min(carried, option_of(network, MTU) or carried)

    def _carried_mtu(self, network: Network) -> int:
        card = self._gossip.card
        if not has_tunnel(network):
            return card.underlay_mtu
        if self._view.uses_tunnels(network):
            return encrypted_mtu(network, card.underlay_mtu, card.address)
        return network_mtu(network, self.overlay_mtu, card.address)

    def vtep_of(self, network: Network, card: Card) -> Ip:
        """Return a node's VTEP of a network, by its card; inside the tunnels if encrypted."""
        if self._view.sends_encrypted(network):
            return self._tunnels.address_of(card.node_id)
        return card.address

    def plan_input(
        self, network: Network, here: Container[Vni] = (), *, remotes: bool = True
    ) -> PlanInput:
        """Return the input of a network's plan; `here` are the networks with a sandbox.

        Without `remotes`, remote endpoints are there only as far as policies need them.
        """
        vni = network.vni
        is_policed = self._policies is not None and self._policies.is_policed(network)
        given = self._view.collect_input(
            network,
            self.vtep_of(network, self._gossip.card),
            self._gossip.cluster.vxlan_port,
            self._link_mtu_of(network),
            self._attachments.ports_on(vni),
            self._receiving(network),
            remotes=remotes or is_policed,
        )
        given = replace(
            given,
            fabric=self._fabric.rows(vni) or given.fabric,
            plugged=self._fabric.interfaces(vni),
            is_clear=self._view.encryption_phase(network) is SwitchPhase.CLEAR,
        )
        if len(given.local) == 16 and self._directory.zero_checksum is not None:
            given = replace(given, zero_checksum=self._directory.zero_checksum.nodes())
        routed = tuple(self._routed(network, here))
        given = replace(given, routed=routed) if routed else given
        groups = () if self._multicast is None else self._multicast.targets(network)
        given = replace(given, groups=groups) if groups else given
        if self._policies is None or not is_policed:
            return given
        resolvers = tuple(self.resolvers.of(network))
        policy = self._policies.rows(given, self._view.networks(), resolvers)
        return replace(given, policy=policy) if policy else given

    def _routed(self, network: Network, here: Container[Vni]) -> Iterator[RoutedNetwork]:
        for other in self._directory.routed_with(network):
            if other.vni in here:
                subnets = tuple(routed_subnets(network, other))
                yield RoutedNetwork(other.vni, subnets, self._link_mtu_of(other))

    def hooks_of(self, network: Network, port: LocalPort, vlans: Vlans) -> tuple[HookRow, ...]:
        """Return the hooks that a port must have before it carries anything."""
        is_policed = self._policies is not None and self._policies.is_policed(network)
        return tuple(required_hooks(network, port, vlans, is_policed=is_policed))

    def _link_mtu_of(self, network: Network) -> int:
        """Return the MTU of a sandbox's links in bytes.

        That of the containers; the one in clear while a network is switched, so that frames of
        hosts whose containers have not followed yet pass.
        """
        phase = self._view.encryption_phase(network)
        if not has_tunnel(network) or phase in (SwitchPhase.CLEAR, SwitchPhase.ENCRYPTED):
            return self.mtu_of(network)
        return network_mtu(network, self.overlay_mtu, self._gossip.card.address)

    def _receiving(self, network: Network) -> Ip | None:
        """Return the address of a second VXLAN device, which receives only; None without one.

        An IPv6 underlay needs none: its device receives whatever address it has.
        """
        phase, card = self._view.encryption_phase(network), self._gossip.card
        if phase not in (SwitchPhase.BOTH, SwitchPhase.SENDING) or len(card.address) == 16:
            return None
        is_sending = phase is SwitchPhase.SENDING
        return card.address if is_sending else self._tunnels.address_of(card.node_id)
