"""The verbs of a simulated agent: attach, detach, grant addresses, leave.

Owns: the answers to requests for addresses, and the clean-up after a start. The thin equivalent of
the agent's `endpoints` and `ipam`; decisions are the core's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from overlay.core.attach_order import detach_endpoint
from overlay.core.events import (
    CardAccepted,
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
from overlay.core.ipam.spread import initial_grants, keepers
from overlay.core.keys import rotation_driver
from overlay.core.protocol.messages import Delta, GrantRefusal, GrantRequest, MemberState
from overlay.core.protocol.records import CLUSTER_SCOPE, Participation, Scope, Segment, key_of
from overlay.model import Endpoint, Grant, Network, NodeId, Vni
from overlay.sim.host.attach import (
    TRY_S,
    AttachLedger,
    Confirmations,
    PendingAttach,
    SimAttach,
    SimDetach,
)
from overlay.sim.host.coroutines import Task
from overlay.sim.host.disk import AttachmentRow
from overlay.sim.host.host import Host
from overlay.sim.host.kernel import Container
from overlay.sim.host.reconciler import Reconciler
from overlay.sim.host.reserves import SimReserves

_GOODBYE_S: Final = 2.0


class SimAgent:
    """The verbs of one host."""

    def __init__(self, host: Host, reconciler: Reconciler, ledger: AttachLedger) -> None:
        self.host = host
        self.reconciler = reconciler
        self.ledger = ledger
        self._attaches: list[SimAttach] = []  # those that are not over
        self._confirmations = Confirmations(host)
        self._tidied = False
        self._reserves: SimReserves
        host.on_start = self._on_start
        host.on_event = self._on_event

    def _on_start(self) -> None:
        self._kill(self._attaches)
        self._confirmations.start()
        self._tidied = False
        self.reconciler.start()
        self._reserves = SimReserves(self.host, self.reconciler.view, self._may_write)
        self.host.later(0.0, self._tidy)

    @staticmethod
    def _kill(attaches: Sequence[SimAttach]) -> None:
        for attach in attaches:
            attach.task.kill()

    # --- after a start ------------------------------------------------------------------

    def _may_write(self) -> bool:
        node = self.host.node
        return node is not None and node.may_write(self.host.schedule.now)

    def _tidy(self, _: Any = None) -> None:
        """Withdraw endpoints without a container, once the own log is surely complete."""
        if not self._may_write():
            self.host.later(TRY_S, self._tidy)
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
                    host.publish(self.withdraw(endpoint))
        for endpoint_id, container in sorted(host.kernel.containers.items()):
            if container.endpoint not in self._own_endpoints(container.endpoint.vni):
                self.disconnect(endpoint_id)
                host.crash_point()
        for vni, part in sorted(parts.items()):
            if part.forwards and not self._runs_any(Vni(vni)):
                host.publish(self._give_up_sandbox(Vni(vni)))
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

    @property
    def pending(self) -> list[PendingAttach]:
        """The attaches that still wait for their sandbox or their address, in order."""
        return [attach.request for attach in self._pending()]

    def _pending(self) -> list[SimAttach]:
        return [attach for attach in self._attaches if attach.is_pending]

    def attach(self, request: PendingAttach) -> None:
        """Attach a container; tries for six seconds, then gives up."""
        if self.host.node is None:
            return
        attach = SimAttach(self, request, self._confirmations)
        self._attaches = [each for each in self._attaches if not each.task.done] + [attach]
        attach.start()
        self.host.flush()

    def may_attach(self) -> bool:
        """Return whether this host may write, and has tidied up after its start."""
        return self._tidied and self._may_write()

    # --- detach -------------------------------------------------------------------------

    def detach(self, container: Container) -> None:
        """Detach one container; its sandbox is removed with the last."""
        if not self.may_attach():
            return
        Task(self.host.crash_point).start(self._detach(container))
        self.host.flush()

    async def _detach(self, container: Container) -> None:
        await detach_endpoint(SimDetach(self, container))

    def disconnect(self, endpoint_id: bytes) -> None:
        """Remove a container's interface, if it has one."""
        container = self.host.kernel.containers.get(endpoint_id)
        if container is not None:
            self.host.kernel.unplug(endpoint_id)
            self.ledger.unplugged(self.host, container)

    def withdraw(self, endpoint: Endpoint) -> list[Segment]:
        """Delete an endpoint of this host durably; return the records that tell of it."""
        host = self.host
        assert host.addressing is not None
        segments = host.commit(
            Scope(endpoint.vni),
            deletes=[key_of(endpoint)],
            rows=[AttachmentRow(endpoint.endpoint_id, None)],
        )
        host.addressing.quarantine(endpoint.vni, endpoint.ips, host.schedule.now)
        return segments

    def end_unused(self, vni: Vni) -> list[Segment]:
        """Give the sandbox up if nothing needs it; return the records that tell of it."""
        wanted = any(attach.network.vni == vni for attach in self.pending)
        if wanted or self._runs_any(vni):
            return []
        return self._give_up_sandbox(vni)

    def _give_up_sandbox(self, vni: Vni) -> list[Segment]:
        self.host.kernel.remove_sandbox(vni)
        return self.host.commit(CLUSTER_SCOPE, [Participation(vni, forwards=False)])

    # --- events -------------------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        match event:
            case StoreChanged(scope=scope, keys=keys):
                if any(key != rotation_driver.KEY_STATE_KEY for key in keys):
                    self.reconciler.wake(scope)
                    self._reserves.trigger()
                if any(kind == "grant" for kind, _ in keys):
                    self._grants_changed(scope)
            case CardAccepted() | InitialSyncDone():
                self.reconciler.wake()
            case ConfirmRequested(scope=scope):
                self.reconciler.wake(scope)
            case MemberChanged(node_id=node_id, after=after):
                self._reserves.trigger()
                if after in {MemberState.DEAD, MemberState.LEFT}:
                    self._confirmations.dismiss(node_id)
                if after is MemberState.LEFT:
                    self.reconciler.wake()
            case GrantRequested(sender=sender, request=request):
                self._answer(sender, request)
            case GrantRefused(refusal=refusal):
                if not self._reserves.handle_refusal(refusal):
                    for attach in self._pending():
                        attach.refused(refusal.request_id)
            case OwnLogAhead():
                self._tidied = False
                self.host.later(0.0, self._tidy)
            case _:
                pass

    def _grants_changed(self, scope: Scope) -> None:
        """Check whether addresses have come; a refusal or silence is left to the next try."""
        if self.may_attach():
            for attach in self._pending():
                if Scope(attach.request.network.vni) == scope:
                    attach.grants_changed()

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
        segments: list[Segment] = store.segments_beyond(self.host.node_id, scope, 0)
        return [each for each in segments if grant in each.written][-1:]

    def divide(self, network: Network) -> None:
        """Grant each keeper its part of a network that this host has just created."""
        host = self.host
        assert host.node is not None
        assert host.addressing is not None
        present = sorted({*host.node.membership.live(), host.node_id})
        others = [each for each in keepers(network, present) if each != host.node_id]
        grants = initial_grants(host.addressing.ownership(network), host.node_id, others)
        if grants:
            host.publish(host.commit(Scope(network.vni), grants))

    # --- leaving ------------------------------------------------------------------------

    def leave(self, then: Callable[[], None]) -> None:
        """Withdraw everything, give the addresses back, announce it; `then` ends the agent."""
        if not self._tidied or not self._may_write():
            self.host.later(TRY_S, lambda _: self.leave(then))
            return
        host, view = self.host, self.reconciler.view
        assert host.node is not None
        assert host.addressing is not None
        host.leaving = True
        self._kill(self._pending())
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
