"""The invariant that no live host is refused while live hosts hold free space.

Owns: which hosts are steady, that is neither down, asleep nor cut off lately, and comparing a
refusal with what the steady hosts own. An address counts if its owner had it free from before the
attach searched until it gave up, and the attaching host could reach that owner all the time.
"""

from __future__ import annotations

from overlay.core.ipam.address_choice import dynamic_addresses, reserved_addresses
from overlay.core.ipam.intervals import Intervals
from overlay.core.ipam.subnet_numbers import number_of
from overlay.core.protocol.messages import MemberState
from overlay.model import Network, NodeId, ip_text
from overlay.sim.host.host import Host

RECOVERY_S = 15.0  # after a fault, until membership and records are current again
FreeSpace = dict[NodeId, Intervals]


class RefusalError(AssertionError):
    """A host found no address although it could reach an owner with free space."""


class Refusals:
    """Checks each attach that found no address."""

    def __init__(self, hosts: list[Host]) -> None:
        self.hosts = hosts
        self.checked = 0
        self._unsteady_until: dict[Host, float] = {}

    def disturb(self, host: Host, lasts_s: float) -> None:
        """Note a fault of a host, or of its links, that lasts so long from now."""
        until = host.schedule.now + lasts_s + RECOVERY_S
        self._unsteady_until[host] = max(until, self._unsteady_until.get(host, 0.0))

    def reachable_space(self, host: Host, network: Network, index: int) -> FreeSpace:
        """Return what steady owners have free that a host can reach."""
        if not self._is_steady(host):
            return {}
        assert host.node is not None
        found: FreeSpace = {}
        for owner in self.hosts:
            if self._is_steady(owner) and (
                owner is host or host.node.membership.state_of(owner.node_id) is MemberState.ALIVE
            ):
                space = _free_space(owner, network, index)
                if space:
                    found[owner.node_id] = space
        return found

    def check(self, host: Host, network: Network, index: int, before: FreeSpace) -> None:
        """Check a refusal. Raises RefusalError."""
        if not before:
            return
        self.checked += 1
        for node_id, space in self.reachable_space(host, network, index).items():
            lasting = space & before.get(node_id, Intervals())
            if lasting:
                owner = next(each for each in self.hosts if each.node_id == node_id)
                first = lasting.runs[0][0].to_bytes(len(network.subnets[index].base), "big")
                raise RefusalError(
                    f"{host.name} found no address on {network.name}, but {owner.name} has "
                    f"{lasting.count} free, among them {ip_text(first)}"  # type: ignore[arg-type]
                )

    def _is_steady(self, host: Host) -> bool:
        return (
            host.node is not None
            and not host.leaving
            and host.schedule.now >= host.started_at + RECOVERY_S
            and host.schedule.now >= self._unsteady_until.get(host, 0.0)
        )


def _free_space(host: Host, network: Network, index: int) -> Intervals:
    """Return what a host may allocate, without what was released lately."""
    assert host.addressing is not None
    subnet = network.subnets[index]
    now, size = host.schedule.now, len(subnet.base)
    taken = host.addressing.used(network.vni) | host.addressing.resting(network.vni, now)
    return (
        (host.addressing.owned(network, index) & dynamic_addresses(subnet))
        - reserved_addresses(subnet)
        - Intervals.of_numbers(number_of(ip) for ip in taken if len(ip) == size)
    )
