"""Derive the MTU of containers from the underlay and its routes to the peers.

Owns: the card's MTU, the reason for it, and the MTU of containers' interfaces. Sandboxes and host
endpoints follow in their own reconcile passes.
"""

from __future__ import annotations

import logging
from typing import Protocol

from overlay import limits
from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.dataplane.underlay import Underlay
from overlay.agent.gossip.context import NodeContext
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.documents import Attachment
from overlay.core.dataplane.network_drivers import (
    has_sandbox,
    has_tunnel,
    parent_interface_of,
)
from overlay.core.declared.network_options import MTU, option_of
from overlay.core.encryption.device import wireguard_overhead
from overlay.core.vlan.vlans import NO_VLANS, port_mtu, vlans_of
from overlay.errors import OverlayError
from overlay.kernel import netns
from overlay.kernel.host.underlay import UnderlayAddress, carried_mtu
from overlay.kernel.netlink import link_decoder
from overlay.kernel.sandbox import container_namespace, veth
from overlay.model import Ip, Network, Vni
from overlay.signals import Signal


class PathSizes(Protocol):
    """Knows what the paths to the peers carry, by probes."""

    size_changed: Signal[[]]

    def expect_size(self, size: int) -> None:
        """Set the size in bytes of an underlay packet that this host's interfaces let pass."""

    def carried_size(self) -> int | None:
        """Return the largest underlay packet that every path carries; None if unknown."""


class MtuController:
    """Keeps this node's MTUs at what the underlay carries; runs in the underlay's passes.

    Signal `mtu_changed`: the overlay's MTU has changed.
    """

    def __init__(
        self,
        context: NodeContext,
        reconciler: Reconciler,
        attachments: Attachments,
        underlay: Underlay,
        paths: PathSizes,
    ) -> None:
        self.mtu_changed: Signal[[]] = Signal()
        self._gossip = context.gossip
        self._directory = context.directory
        self._kernel = context.kernel
        self._event_log = context.event_log
        self._reconciler = reconciler
        self._attachments = attachments
        self._limited_by = underlay.interface
        self._settled = False
        self._options = self._wanted_options()
        self._underlay = underlay
        self._paths = paths
        paths.size_changed.connect(underlay.trigger)
        underlay.address_checked.connect(self.reconcile)

    def why(self, network: Network) -> str:
        """Return the reason for a network's MTU, as shown to people."""
        own = self._gossip.card
        if not has_sandbox(network):
            return f"that of {parent_interface_of(network)} on each host"
        carried = f"{self._limited_by} carries {own.underlay_mtu} bytes"
        if option_of(network, MTU) == self._reconciler.mtu_of(network):
            return f"set for the network; {carried}"
        if not has_tunnel(network):
            return carried
        if self._directory.view.uses_tunnels(network):
            taken = wireguard_overhead(own.address) + limits.VXLAN_OVERHEAD_IPV6
            text = f"{carried}, WireGuard and VXLAN take {taken}"
            return self._with_ipv6_floor(network, text, own.underlay_mtu - taken)
        mtu = self._reconciler.overlay_mtu
        text = f"{carried}, VXLAN takes {own.underlay_mtu - mtu}"
        return self._with_ipv6_floor(network, text, mtu)

    def _with_ipv6_floor(self, network: Network, text: str, mtu: int) -> str:
        if self._reconciler.mtu_of(network) == mtu:
            return text
        return f"{text}; IPv6 needs {limits.IPV6_MTU_MIN}, so the underlay carries fragments"

    async def reconcile(self, found: UnderlayAddress) -> None:
        """Follow what the underlay carries now; raises OverlayError where that is too small."""
        mtu, self._limited_by = await self._kernel.call(carried_mtu, found, self._peers())
        self._paths.expect_size(mtu)
        carried = self._paths.carried_size()
        if carried is not None and carried < mtu:
            mtu, self._limited_by = carried, "a path to a peer"
        before = self._gossip.card.underlay_mtu
        if mtu < limits.UNDERLAY_MTU_MIN:
            raise OverlayError(
                f"{self._limited_by} carries {mtu} bytes: too small for an overlay",
                why=f"at least {limits.UNDERLAY_MTU_MIN} are needed; interfaces keep the MTU for "
                f"{before}",
                hint="Raise the MTU there (ip link set INTERFACE mtu 1500); the agent follows",
            )
        if mtu != before:
            self._gossip.renew_card(underlay_mtu=mtu)
            self._reconciler.mark_stale()
            self.mtu_changed.emit()
            self._event_log.record(
                "underlay",
                f"{self._limited_by} carries {mtu} bytes, not {before}: the MTU of containers is "
                f"{self._reconciler.overlay_mtu} now",
                level=logging.WARNING,
            )
        wanted = self._wanted_options()
        if wanted != self._options:
            self._options = wanted
            self.mtu_changed.emit()  # host endpoints follow
            self._settled = False
        if mtu != before or not self._settled:
            self._settled = True  # at a start, too: it may have changed while no agent ran
            await self._resize_containers()

    def networks_changed(self) -> None:
        """Have the containers follow soon where the MTU of a network was set."""
        if self._wanted_options() != self._options:
            self._underlay.trigger()

    def _wanted_options(self) -> dict[Vni, int]:
        networks = self._directory.view.networks().values()
        return {each.vni: mtu for each in networks if (mtu := option_of(each, MTU))}

    def _peers(self) -> list[tuple[str, Ip]]:
        own = self._gossip.card
        cards = (
            self._directory.card(member.node_id)
            for member in self._gossip.node.membership.members()
        )
        return [
            (card.name, card.address)
            for card in cards
            if card is not None and not card.left and len(card.address) == len(own.address)
        ]

    async def resize_network(self, vni: Vni) -> None:
        """Have the containers on a network, and this host, follow its MTU."""
        await self._resize_containers(vni)
        self.mtu_changed.emit()

    async def _resize_containers(self, vni: Vni | None = None) -> None:
        for attachment in list(self._attachments.values()):
            network = self._directory.network_by_vni(attachment.vni)
            if network is None or not has_sandbox(network) or vni not in (None, network.vni):
                continue
            endpoint = self._directory.endpoint_of(attachment)
            vlans = NO_VLANS if endpoint is None else vlans_of(endpoint)
            mtu = port_mtu(self._reconciler.mtu_of(network), vlans)
            try:
                await self._kernel.call(_resize, attachment, mtu)
            except (OverlayError, OSError) as error:
                text = f"the MTU of {attachment.target} is unchanged: {error}"
                self._event_log.record("underlay", text, level=logging.WARNING)


def _resize(attachment: Attachment, mtu: int) -> None:
    """Set the MTU in a container, unless that is gone.

    Its name, or the process id in its path, may belong to another namespace by now, which may even
    have the same inode: the kernel assigns the lowest free one.
    """
    fd = container_namespace.open_same(attachment.netns_path, attachment.netns_identity)
    if fd is None:
        return
    with netns.closing(fd):
        found = veth.inspect_interface(fd, attachment.ifname)
        if found is not None and link_decoder.is_overlayd_link(found.alias) and found.mtu != mtu:
            veth.change_mtu(fd, attachment.ifname, mtu)
