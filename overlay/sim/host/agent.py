"""What a simulated agent does for its user: attach, detach, take part, grant, leave.

Owns: the order of an attach (own an address, make the endpoint durable, plug it in, tell the
others), the asking for addresses, and tidying up after a start. The thin equivalent of the
agent's `endpoints` and `addresses`; what is decided is decided by the core.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from overlay import limits
from overlay.core.dataplane.state import Port
from overlay.core.events import (
    CardAccepted,
    Confirmed,
    ConfirmRequested,
    Event,
    GrantRefused,
    GrantRequested,
    InitialSyncDone,
    MemberChanged,
    OwnLogAhead,
    StoreChanged,
)
from overlay.core.ipam.reclaim import hand_back
from overlay.core.keys import rotation_driver
from overlay.core.protocol.messages import Delta, GrantRefusal, GrantRequest, MemberState
from overlay.core.protocol.records import CLUSTER_SCOPE, Participation, Scope, Segment, key_of
from overlay.core.view import overlay_mtu
from overlay.model import Endpoint, Grant, Network, NodeId, Vni, mac_for
from overlay.sim.host.disk import AttachmentRow
from overlay.sim.host.host import UNDERLAY_MTU, Host
from overlay.sim.host.kernel import Container
from overlay.sim.host.reconciler import Reconciler

_TRY_S: Final = 0.5  # as the agent: a request for addresses is repeated under its id
_TRIES: Final = 12
_GOODBYE_S: Final = 2.0
_GRANT_SIZE: Final = 16  # small, so that a simulated network needs many grants


class PendingConfirmation(NamedTuple):
    """Who was asked to confirm an endpoint, and when."""

    node_ids: tuple[NodeId, ...]
    since: float


class AttachLedger(Protocol):
    """The world's book of what really runs where."""

    def plugged(self, host: Host, container: Container) -> None:
        """Note that a container has got its interface."""

    def unplugged(self, host: Host, container: Container) -> None:
        """Note that a container's interface is gone."""

    def confirmed(self, host: Host, container: Container, asked: PendingConfirmation) -> None:
        """Check that those who said that they can reach the container really can."""


@dataclass(slots=True)
class PendingAttach:
    """One attach under way."""

    network: Network
    subnet_index: int
    name: str
    request_id: bytes
    tries: int = 0
    asked: NodeId | None = None


class SimAgent:
    """The verbs of one host."""

    def __init__(self, host: Host, reconciler: Reconciler, ledger: AttachLedger) -> None:
        self.host = host
        self.reconciler = reconciler
        self.ledger = ledger
        self.pending: list[PendingAttach] = []
        self.failed_attaches = 0
        self._confirming: dict[int, tuple[Container, PendingConfirmation]] = {}
        self._tidied = False
        host.on_start = self._on_start
        host.on_event = self._on_event

    def _on_start(self) -> None:
        self.pending.clear()
        self._confirming.clear()
        self._tidied = False
        self.reconciler.start()
        self.host.later(0.0, self._tidy)

    # --- after a start ------------------------------------------------------------------

    def _may_write(self) -> bool:
        node = self.host.node
        return node is not None and node.may_write(self.host.schedule.now)

    def _tidy(self, _: Any = None) -> None:
        """Withdraw what does not run here (any more), once the own log is surely whole."""
        if not self._may_write():
            self.host.later(_TRY_S, self._tidy)
            return
        self._tidied = True
        host = self.host
        store = self._store()
        parts = {
            value.vni: value
            for origin, value in list(store.values(CLUSTER_SCOPE, "participation"))
            if origin == host.node_id and isinstance(value, Participation)
        }
        for vni in sorted(parts):
            for endpoint in self._own_endpoints(Vni(vni)):
                if endpoint.endpoint_id not in host.kernel.containers:
                    self._withdraw(endpoint)
        for endpoint_id, container in sorted(host.kernel.containers.items()):
            if container.endpoint not in self._own_endpoints(container.endpoint.vni):
                self._unplug(endpoint_id)
        for vni, part in sorted(parts.items()):
            if part.forwards and not self._runs_any(Vni(vni)):
                self._give_up_sandbox(Vni(vni))
        host.flush()

    def _own_endpoints(self, vni: Vni) -> list[Endpoint]:
        return [
            value
            for origin, value in self._store().values(Scope(vni), "endpoint")
            if origin == self.host.node_id and isinstance(value, Endpoint)
        ]

    def _store(self) -> Any:
        node = self.host.node
        assert node is not None
        return node.store

    def _runs_any(self, vni: Vni) -> bool:
        containers = self.host.kernel.containers.values()
        return any(container.endpoint.vni == vni for container in containers)

    # --- attach -------------------------------------------------------------------------

    def attach(self, attach: PendingAttach) -> None:
        """Attach a container; tries for some seconds, then gives up."""
        if self.host.node is None:
            return
        self.pending.append(attach)
        self._try(attach)
        self.host.flush()

    def _try(self, attach: PendingAttach) -> None:
        if attach not in self.pending:
            return
        attach.tries += 1
        if attach.tries > _TRIES:
            self._fail(attach)
            return
        self.host.later(_TRY_S, self._try, attach)
        if not self._tidied or not self._may_write():
            return
        if attach.network.vni not in self.reconciler.view.networks():
            return
        if self._take_part(attach.network):
            self._place(attach)
        self.host.flush()

    def _fail(self, attach: PendingAttach) -> None:
        """Give a wish up, and leave nothing half-made."""
        self.pending.remove(attach)
        self.failed_attaches += 1
        vni = attach.network.vni
        wanted = any(other.network.vni == vni for other in self.pending)
        if vni in self.host.kernel.sandboxes and not wanted and not self._runs_any(vni):
            self._give_up_sandbox(vni)
            self.host.flush()

    def _take_part(self, network: Network) -> bool:
        part = Participation(network.vni, forwards=True)
        view = self.reconciler.view
        if not view.takes_part(self.host.node_id, part):
            self.host.publish(self.host.commit(CLUSTER_SCOPE, [part]))
        return self.reconciler.open(network)

    def _place(self, attach: PendingAttach, *, ask: bool = True) -> None:
        host, network = self.host, attach.network
        assert host.addressing is not None
        ip = host.addressing.pick(network, attach.subnet_index, host.schedule.now)
        if ip is None:
            if ask:
                self._ask(attach)
            return
        self.pending.remove(attach)
        endpoint_id = host.environment.rng.randbytes(8)
        endpoint = Endpoint(endpoint_id, network.vni, attach.name, mac_for(network.vni, ip), (ip,))
        container = Container(endpoint, f"ve{endpoint_id[:6].hex()}", attach.subnet_index)
        segments = host.commit(
            Scope(network.vni),
            [endpoint],
            rows=[AttachmentRow(endpoint_id, container)],
        )
        mtu = overlay_mtu(UNDERLAY_MTU, host.address)
        host.kernel.plug(container, Port(container.port, mtu, f"br{attach.subnet_index}"))
        self.ledger.plugged(host, container)
        host.crash_point()
        self.reconciler.wake(Scope(network.vni))
        wait = host.publish(segments, confirm=True)
        if wait is not None:
            assert host.node is not None
            asked = PendingConfirmation(host.node.unconfirmed_nodes(wait), host.schedule.now)
            self._confirming[wait] = (container, asked)
            host.later(limits.ATTACH_CONFIRM_TIMEOUT_S, self._give_up_waiting, wait)

    def _give_up_waiting(self, wait: int) -> None:
        if self._confirming.pop(wait, None) is not None and self.host.node is not None:
            self.host.node.cancel_confirmation(wait)

    def _ask(self, attach: PendingAttach) -> None:
        node = self.host.node
        addressing = self.host.addressing
        assert node is not None
        assert addressing is not None
        reachable = set(node.membership.live())
        owners = addressing.grant_candidates(attach.network, attach.subnet_index, reachable)
        if not owners:
            return
        if attach.asked not in owners or attach.tries % 3 == 0:
            # A refusal or a silent owner: ask the next one, under an id of its own.
            attach.request_id = self.host.environment.rng.randbytes(8)
            attach.asked = owners[attach.tries % len(owners)]
        subnet = attach.network.subnets[attach.subnet_index]
        request = GrantRequest(
            attach.request_id, attach.network.vni, subnet.base, _GRANT_SIZE, exact=False
        )
        node.send_to(attach.asked, request)

    # --- detach -------------------------------------------------------------------------

    def detach(self, container: Container) -> None:
        """Take one endpoint away; its sandbox goes with the last."""
        if not self._tidied or not self._may_write():
            return
        vni = container.endpoint.vni
        self._unplug(container.endpoint.endpoint_id)
        self._withdraw(container.endpoint)
        wanted = any(attach.network.vni == vni for attach in self.pending)
        if not wanted and not self._runs_any(vni):
            self._give_up_sandbox(vni)
        self.host.flush()

    def _unplug(self, endpoint_id: bytes) -> None:
        container = self.host.kernel.containers.get(endpoint_id)
        if container is not None:
            self.host.kernel.unplug(endpoint_id)
            self.ledger.unplugged(self.host, container)
        self.host.crash_point()

    def _withdraw(self, endpoint: Endpoint) -> None:
        host = self.host
        assert host.addressing is not None
        segments = host.commit(
            Scope(endpoint.vni),
            deletes=[key_of(endpoint)],
            rows=[AttachmentRow(endpoint.endpoint_id, None)],
        )
        host.addressing.quarantine(endpoint.vni, endpoint.ips, host.schedule.now)
        host.publish(segments)

    def _give_up_sandbox(self, vni: Vni) -> None:
        self.host.kernel.remove_sandbox(vni)
        part = Participation(vni, forwards=False)
        self.host.publish(self.host.commit(CLUSTER_SCOPE, [part]))

    # --- events -------------------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        match event:
            case StoreChanged(scope=scope, keys=keys):
                if any(key != rotation_driver.KEY_STATE_KEY for key in keys):
                    self.reconciler.wake(scope)
                if any(kind == "grant" for kind, _ in keys):
                    self._grants_changed(scope)
            case CardAccepted() | InitialSyncDone():
                self.reconciler.wake()
            case ConfirmRequested(scope=scope):
                self.reconciler.wake(scope)
            case MemberChanged(node_id=node_id, after=after):
                if after in {MemberState.DEAD, MemberState.LEFT}:
                    self._dismiss(node_id)
                if after is MemberState.LEFT:
                    self.reconciler.wake()
            case GrantRequested(sender=sender, request=request):
                self._answer(sender, request)
            case GrantRefused(refusal=refusal):
                for attach in self.pending:
                    if attach.request_id == refusal.request_id:
                        attach.asked = None
            case Confirmed(wait_id=wait):
                waited = self._confirming.pop(wait, None)
                if waited is not None:
                    self.ledger.confirmed(self.host, *waited)
            case OwnLogAhead():
                self._tidied = False
                self.host.later(0.0, self._tidy)
            case _:
                pass

    def _dismiss(self, node_id: NodeId) -> None:
        """Note that a dead node's word is waited for no longer."""
        for wait, (container, asked) in list(self._confirming.items()):
            others = tuple(other for other in asked.node_ids if other != node_id)
            self._confirming[wait] = (container, PendingConfirmation(others, asked.since))

    def _grants_changed(self, scope: Scope) -> None:
        """See whether space has come; a refusal or silence is left to the next try."""
        if self._tidied and self._may_write():
            for attach in list(self.pending):
                if Scope(attach.network.vni) == scope and attach.asked is not None:
                    self._place(attach, ask=False)

    def _answer(self, asker: NodeId, request: GrantRequest) -> None:
        host = self.host
        network = self.reconciler.view.networks().get(Vni(request.vni))
        if network is None or not self._may_write():
            return  # the asker tries again
        assert host.node is not None
        assert host.addressing is not None
        now = host.schedule.now
        answer, void = host.addressing.decide_grant(network, asker, request, now)
        if isinstance(answer, GrantRefusal):
            host.node.send_to(asker, answer)
            return
        deletes = [key_of(older) for older in void]
        segments = host.commit(Scope(network.vni), [answer], deletes)
        if segments:
            host.publish(segments)
        else:  # granted before: the answer was lost
            host.node.send_to(asker, Delta(tuple(self._segments_with(answer))))

    def _segments_with(self, grant: Grant) -> list[Segment]:
        """Return the segment of the own log that holds a grant."""
        store = self._store()
        scope = Scope(grant.vni)
        entry = store.log(self.host.node_id, scope).live[key_of(grant)]
        found: list[Segment] = store.segments_beyond(self.host.node_id, scope, entry.version - 1)
        return found[:1]

    # --- leaving ------------------------------------------------------------------------

    def leave(self, then: Callable[[], None]) -> None:
        """Withdraw everything, give the addresses back, say goodbye; `then` ends the agent."""
        if not self._tidied or not self._may_write():
            self.host.later(_TRY_S, lambda _: self.leave(then))
            return
        host, view = self.host, self.reconciler.view
        assert host.node is not None
        assert host.addressing is not None
        host.leaving = True
        self.pending.clear()
        for container in list(host.kernel.containers.values()):
            self.detach(container)
        live = set(host.node.membership.live())
        for network in view.networks().values():
            candidates = [
                node_id
                for node_id in view.participants(network.vni, forwarding=False)
                if node_id in live
            ]
            known = host.addressing.ownership(network)
            grants = hand_back(known, host.node_id, candidates)
            if grants:
                host.publish(host.commit(Scope(network.vni), grants))
        host.renew_card(left=True)
        host.flush()
        host.later(_GOODBYE_S, lambda _: then())
