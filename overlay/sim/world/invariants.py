"""Invariants that hold at every moment.

Owns: which container has which address on which host, and the invariants, which hold even during
the storm: no address is used twice, no gateway is taken by another host, no datagram exceeds the
limit, no queue exceeds its bound, and a confirmed container is reachable.
Does not: read records.
"""

from __future__ import annotations

from collections.abc import Iterable

from overlay import limits
from overlay.core.protocol.messages import MemberState
from overlay.model import Ip, Network, Vni, ip_text
from overlay.sim.host.attach import PendingConfirmation
from overlay.sim.host.host import Host
from overlay.sim.host.kernel import Container, Kernel
from overlay.sim.host.oracle import trace_packet
from overlay.sim.world.liar import claimed, stolen_gateway
from overlay.sim.world.refusals import Refusals


class InvariantError(AssertionError):
    """An invariant is violated: the run has found a bug."""


class Invariants:
    """The running containers by network and address. `work.Ledger` for all hosts."""

    def __init__(self, hosts: list[Host]) -> None:
        self.hosts = hosts
        self.refusals = Refusals(hosts)
        self.running: dict[tuple[Vni, Ip], tuple[Host, Container]] = {}
        self.attached = 0
        self.detached = 0
        self.confirmed_count = 0
        self._upset_until: dict[Host, float] = {}

    def plugged(self, host: Host, container: Container) -> None:
        """Record a container's new interface.

        Raises InvariantError if its address is in use.
        """
        for ip in container.endpoint.ips:
            place = (container.endpoint.vni, ip)
            other = self.running.get(place)
            if other is not None:
                raise InvariantError(
                    f"{ip_text(ip)} of VNI {container.endpoint.vni} is given to "
                    f"{container.endpoint.name} on {host.name}, but {other[1].endpoint.name} "
                    f"on {other[0].name} has it"
                )
            self.running[place] = (host, container)
        self.attached += 1

    def unplugged(self, host: Host, container: Container) -> None:
        """Record that a container's interface is gone."""
        for ip in container.endpoint.ips:
            if self.running.get((container.endpoint.vni, ip)) == (host, container):
                del self.running[container.endpoint.vni, ip]
        self.detached += 1

    def lost(self, host: Host) -> None:
        """Record that a host has lost power, and with it all its containers."""
        for container in list(host.kernel.containers.values()):
            self.unplugged(host, container)

    def confirmed(self, host: Host, container: Container, pending: PendingConfirmation) -> None:
        """Check that the hosts that confirmed a container can reach it.

        Raises InvariantError.
        """
        self.confirmed_count += 1
        endpoint = container.endpoint
        if endpoint.endpoint_id not in host.kernel.containers or self._is_disturbed(host):
            return
        assert host.node is not None
        for other in self.hosts:
            if other.node_id not in pending.node_ids or self._is_disturbed(other):
                continue
            if other.node is None or other.started_at > pending.since:
                continue  # it went down meanwhile, so its confirmation was no longer awaited
            state = host.node.membership.state_of(other.node_id)
            if state is not MemberState.ALIVE or endpoint.vni not in other.kernel.sandboxes:
                continue
            if endpoint.ips[0] in claimed(other, endpoint.vni):
                continue  # its own false record hides the container from it
            found = trace_packet(
                other.kernel, endpoint.vni, container.subnet_index, endpoint.ips[0], self.kernel_at
            )
            if found != container:
                raise InvariantError(
                    f"{other.name} confirmed {endpoint.name} on {host.name}, but a packet to "
                    f"{ip_text(endpoint.ips[0])} gets nowhere: {found}"
                )

    def mark_disturbed(self, host: Host, seconds: float) -> None:
        """Suspend the reachability check for a host for some seconds."""
        until = host.schedule.now + seconds
        self._upset_until[host] = max(until, self._upset_until.get(host, 0.0))

    def _is_disturbed(self, host: Host) -> bool:
        return self._upset_until.get(host, 0.0) > host.schedule.now

    def kernel_at(self, vtep: Ip) -> Kernel | None:
        """Return the kernel of the host with an underlay address.

        Returns None if there is none.
        """
        return next((host.kernel for host in self.hosts if host.address == vtep), None)

    def check_gateways(self, networks: Iterable[Network]) -> None:
        """Check that no host's gateway is taken by another. Raises InvariantError."""
        stolen = stolen_gateway(self.hosts, networks)
        if stolen is not None:
            raise InvariantError(stolen)

    def check_bounds(self, size_max: int) -> None:
        """Check sizes and queue lengths. Raises InvariantError."""
        if size_max > limits.DATAGRAM_SIZE_MAX:
            raise InvariantError(
                f"a datagram of {size_max} bytes; the limit is {limits.DATAGRAM_SIZE_MAX}"
            )
        for host in self.hosts:
            if host.node is None:
                continue
            waiting = len(host.node.outbox)
            if waiting > limits.OUTBOX_MESSAGES_MAX:
                raise InvariantError(f"{host.name}: {waiting} messages wait to be sent")
