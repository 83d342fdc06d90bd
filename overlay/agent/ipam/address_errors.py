"""Why an address, or any address of a network, cannot be had.

Owns: the errors' texts, for people. Does not: choose addresses (`allocator`).
"""

from __future__ import annotations

from overlay.agent.gossip.service import GossipService
from overlay.agent.records.directory import Directory
from overlay.core.dataplane.planning.segments import segment_of
from overlay.core.ipam import grants
from overlay.core.ipam.address_space import AddressSpace
from overlay.core.ipam.shares import shortage_text
from overlay.errors import ConflictError, UsageError
from overlay.model import Ip, Network, ip_text


class AddressErrors:
    """Explains refusals by the records that this node holds."""

    def __init__(self, gossip: GossipService, directory: Directory, space: AddressSpace) -> None:
        self._gossip = gossip
        self._directory = directory
        self._space = space

    def refused(self, network: Network, wanted: Ip, fault: str) -> UsageError | ConflictError:
        """Return the error for an address that this node cannot have, by its fault."""
        text = ip_text(wanted)
        if fault == grants.OUTSIDE:
            shown = " ".join(str(subnet) for subnet in network.subnets)
            return UsageError(
                f"{text} is not an address of network {network.name}",
                why=f"its subnets are {shown}",
                hint="Choose an address in one of them, or omit it",
                field="ip",
            )
        if fault == grants.RESERVED:
            names = {ip: name for subnet in network.subnets for name, ip in subnet.auxiliary}
            reserved = "it is the subnet's gateway, network or broadcast address"
            if wanted in names:
                reserved = f"it is reserved as {names[wanted]!r} (--aux-address)"
            return ConflictError(
                f"{text} cannot be given to a container",
                why=reserved,
                hint="Choose another address, or omit --ip",
            )
        why = self._use_of(network, wanted)
        if why is not None:
            return ConflictError(
                f"{text} is in use", why=why, hint="Choose another address, or omit --ip"
            )
        owner = self._space.ownership(network).owner_of(wanted)
        name = "a node that is gone" if owner is None else self._directory.node_name(owner)
        return ConflictError(
            f"{text} is not available now",
            why=f"it belongs to {name}, which has not granted it",
            hint="Try again later, choose another address, or omit --ip",
        )

    def _use_of(self, network: Network, ip: Ip) -> str | None:
        """Return what an address is used for, as far as this node knows."""
        for placed in self._directory.all_endpoints(network.vni):
            if ip in placed.endpoint.ips:
                return (
                    f"{placed.endpoint.name} on {self._directory.node_name(placed.origin)} has it"
                )
        if ip in self._space.virtual_ips(network.vni):
            return "it is the virtual address of a service (overlayd service ls)"
        if ip in self._space.outside_ips(network.vni):
            return f"a machine outside the cluster has it (overlayd network inspect {network.name})"
        if ip in self._space.reserved(network.vni):
            return "it is reserved for a container of a runtime on this host"
        if ip in self._space.withdrawn_ips(network.vni):
            return "a container here still has it, whose record a copy of this disk withdrew"
        return None

    def exhausted(self, network: Network) -> ConflictError:
        """Return the error for a network of which no address is left."""
        found = self._space.shares(network)
        live = frozenset(self._gossip.node.membership.live())
        texts = [
            shortage_text(found, index, self._gossip.node_id, live, self._directory.node_name)
            for index in range(len(network.subnets))
        ]
        if len(texts) > 1:
            texts = [f"{s}: {text}" for s, text in zip(network.subnets, texts, strict=True)]
        return ConflictError(
            f"no free address on network {network.name}",
            why="; ".join(texts),
            hint=f"To see which node owns what: overlayd ipam {network.name}",
        )


def require_one_segment(network: Network, wanted: tuple[Ip, ...]) -> None:
    """Raise UsageError for addresses that are on different segments of a network."""
    indexes = [next((i for i, s in enumerate(network.subnets) if ip in s), None) for ip in wanted]
    found = {segment_of(network, index) for index in indexes if index is not None}
    if len(found) > 1:
        raise UsageError(
            f"{' and '.join(map(ip_text, wanted))} are on different segments of {network.name}",
            why="the first IPv4 subnet and the first IPv6 subnet are one segment, the second ones "
            "another",
            hint=f"Choose addresses of one segment: overlayd network inspect {network.name}",
            field="ips",
        )
