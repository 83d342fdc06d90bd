"""Check after the storm that every host has converged.

Owns: comparing the stores with each other, memberships with the hosts that are present, keys, and
kernels with the oracle; and tracing packets between all containers.
"""

from __future__ import annotations

from typing import Final

from overlay.core.dataplane.diff import diff
from overlay.core.mtu import overlay_mtu
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.records import CLUSTER_SCOPE, Scope, key_of
from overlay.model import Network, NodeId, Vni, ip_text
from overlay.sim.host.authority import WANTED
from overlay.sim.host.host import UNDERLAY_MTU, Host
from overlay.sim.host.kernel import Container
from overlay.sim.host.key_rotation import HOLDER
from overlay.sim.host.oracle import HostTruth, expected, trace_packet
from overlay.sim.world import declarations
from overlay.sim.world.liar import claimed, disagreement
from overlay.sim.world.world import World

_SAMPLE_COUNT: Final = 20
_TRACES_MAX: Final = 20_000


class ConvergenceCheck:
    """Checks a whole world and describes the first deviation."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.share = 1.0
        self._truth: dict[tuple[NodeId, Scope], int] = {}

    def _up(self) -> list[Host]:
        return [host for host in self._world.hosts if host.node is not None]

    # --- the curve ----------------------------------------------------------------------

    def share_current(self) -> float:
        """Return the share of required logs that are up to date, by a sample."""
        up = self._up()
        for host in up:
            assert host.node is not None
            own = self._scopes(host)
            for scope in own:
                self._truth[host.node_id, scope] = host.node.store.version(host.node_id, scope)
        step = max(1, len(up) // _SAMPLE_COUNT)
        current = total = 0
        for host in up[::step]:
            assert host.node is not None
            store = host.node.store
            wanted = set(self._scopes(host))
            for (origin, scope), version in self._truth.items():
                if scope in wanted:
                    total += 1
                    current += store.version(origin, scope) >= version
        self.share = current / total if total else 1.0
        return self.share

    def _scopes(self, host: Host) -> list[Scope]:
        assert host.node is not None
        networks = (Scope(network.vni) for network in self._world.networks)
        return [CLUSTER_SCOPE] + [
            scope for scope in networks if host.node.store.takes_part(host.node_id, scope)
        ]

    # --- everything ---------------------------------------------------------------------

    def faults(self) -> str | None:
        """Return a description of the first deviation.

        Returns None if everything has converged.
        """
        for host in self._world.hosts:
            if host.node is None and not host.gone:
                return f"{host.name} is down"
            if host.leaving and not host.gone:
                return f"{host.name} is still leaving"
        for site in self._world.sites:
            if site.agent.pending:
                return f"{site.host.name} is still attaching {site.agent.pending[0].name}"
        return (
            self._cards()
            or self._members()
            or self._stores()
            or disagreement(self._up())
            or declarations.difference(self._up())
            or declarations.leftovers(self._up())
            or self._keys()
            or self._authority()
            or self._kernels()
        )

    def _cards(self) -> str | None:
        up = self._up()
        for host in up:
            assert host.node is not None
            for other in self._world.hosts:
                card = host.node.store.card(other.node_id)
                if other.gone:
                    continue
                assert other.card is not None
                if card is None:
                    return f"{host.name} does not know {other.name}"
                if card.epoch != other.card.epoch:
                    return (
                        f"{host.name} holds {other.name}'s card of epoch {card.epoch}, "
                        f"not {other.card.epoch}"
                    )
        return None

    def _members(self) -> str | None:
        for host in self._up():
            assert host.node is not None
            membership = host.node.membership
            for other in self._world.hosts:
                if other is host:
                    continue
                state = membership.state_of(other.node_id)
                if other.gone:
                    if state not in {None, MemberState.LEFT}:
                        return f"{host.name} holds {other.name}, which left, as {state.name}"
                elif state is not MemberState.ALIVE:
                    state_text = "unknown" if state is None else state.name
                    return f"{host.name} holds {other.name} as {state_text}"
        return None

    def _stores(self) -> str | None:
        up = self._up()
        by_id = {host.node_id: host for host in up}
        scopes = [CLUSTER_SCOPE, *(Scope(network.vni) for network in self._world.networks)]
        for scope in scopes:
            holders = [host for host in up if scope in self._scopes(host)]
            for host in holders:
                assert host.node is not None
                store = host.node.store
                for origin, other in by_id.items():
                    if scope not in self._scopes(other):
                        continue
                    assert other.node is not None
                    if store.version(origin, scope) != other.node.store.version(origin, scope):
                        return (
                            f"{host.name} holds {other.name}'s log of scope {scope} up to "
                            f"{store.version(origin, scope)}, not "
                            f"{other.node.store.version(origin, scope)}"
                        )
                    if _live(store.log(origin, scope)) != _live(
                        other.node.store.log(origin, scope)
                    ):
                        return f"{host.name} holds other records of {other.name} in scope {scope}"
            roots = {host.node.store.root([scope]) for host in holders if host.node is not None}
            if len(roots) > 1:
                return f"the roots of scope {scope} differ although all its logs are equal"
        return None

    def _keys(self) -> str | None:
        up = self._up()
        newest = max((host.disk.ring.newest for host in up), default=None)
        for host in up:
            ring = host.disk.ring
            if newest is not None and (ring.newest, ring.sealing) != (newest, newest):
                return f"{host.name} seals with key {ring.sealing}, not with {newest}"
        return None

    def _authority(self) -> str | None:
        up = self._up()
        holders = [host for host in up if host.is_holder]
        if len(holders) < min(WANTED, len(up)):
            return f"only {len(holders)} of {len(up)} hosts hold the authority"
        for host in up:
            assert host.node is not None
            says_so = host.node.store.value(host.node_id, CLUSTER_SCOPE, key_of(HOLDER))
            if (says_so is not None) != host.is_holder:
                return (
                    f"{host.name} says {'that' if says_so else 'not that'} it holds the authority"
                )
        return None

    def _kernels(self) -> str | None:
        hosts = [host for host in self._world.hosts if not host.gone]
        for network in self._world.networks:
            truths = {host: self._truth_of(host, network.vni) for host in hosts}
            with_sandbox = [host for host in hosts if truths[host].containers]
            for host in hosts:
                actual = host.kernel.read(network.vni)
                if host not in with_sandbox:
                    if actual is not None:
                        return f"{host.name} has an unneeded sandbox of {network.name}"
                    continue
                mtu = overlay_mtu(UNDERLAY_MTU, host.address)
                others = [truths[other] for other in with_sandbox if other is not host]
                desired = expected(network, mtu, truths[host], others)
                if actual != desired:
                    return _difference(host, network, desired, actual)
        return None

    @staticmethod
    def _truth_of(host: Host, vni: Vni) -> HostTruth:
        running = host.kernel.containers.values()
        own = tuple(container for container in running if container.endpoint.vni == vni)
        return HostTruth(host.address, own, claimed(host, vni))

    # --- at the very end ----------------------------------------------------------------

    def old_keys(self) -> str | None:
        """Return which host still holds a key that is no longer used.

        Returns None if none does.
        """
        for host in self._up():
            if len(host.disk.ring.held) > 1:
                return f"{host.name} holds {len(host.disk.ring.held)} keys"
        return None

    def second_pass(self) -> str | None:
        """Return what a further pass would change, or which packet is lost."""
        for site in self._world.sites:
            if site.host.node is None:
                continue
            for vni in sorted(site.host.kernel.sandboxes):
                actual = site.host.kernel.read(vni)
                assert actual is not None
                operations = diff(site.reconciler.desired(vni), actual, prune=True)
                if operations:
                    return f"{site.host.name} would still apply: {operations[0]}"
        return self._traces()

    def _traces(self) -> str | None:
        """Trace packets from every host to every container of its networks.

        The number of traces is limited.
        """
        count = 0
        at = {host.address: host.kernel for host in self._world.hosts if not host.gone}
        # A false record hides a container from its writer's host.
        hidden = {
            (host, vni, ip)
            for host in self._world.hosts
            for vni in host.kernel.sandboxes
            for ip in claimed(host, vni)
        }
        for (vni, ip), (_, container) in sorted(
            self._world.invariants.running.items(), key=lambda item: item[0]
        ):
            for host in self._world.hosts:
                if vni not in host.kernel.sandboxes or count > _TRACES_MAX:
                    continue
                if (host, vni, ip) in hidden:
                    continue
                count += 1
                found = trace_packet(host.kernel, vni, container.subnet_index, ip, at.get)
                if found != container:
                    reached = found if isinstance(found, str) else _container_text(found)
                    return f"a packet from {host.name} to {ip_text(ip)} reaches: {reached}"
        return None


def _live(log: object) -> object:
    return {} if log is None else dict(log.live)  # type: ignore[attr-defined]


def _difference(host: Host, network: Network, desired: object, actual: object) -> str:
    if actual is None:
        return f"{host.name} lacks its sandbox of {network.name}"
    operations = diff(desired, actual, prune=True)  # type: ignore[arg-type]
    first = "; ".join(str(operation) for operation in operations[:3])
    return (
        f"{host.name}, {network.name}: "
        f"{len(operations)} operations from the expected state: {first}"
    )


def _container_text(container: Container) -> str:
    return f"{container.endpoint.name} ({ip_text(container.endpoint.ips[0])})"
