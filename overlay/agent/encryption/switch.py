"""Move this host's networks into the tunnels, or out of them, phase by phase.

The goal is in the network's record, which its creator alone can change; other members ask for that
by a record of theirs. Each phase is on disk before the kernel is changed and published as done when
a fresh reading of the kernel agrees, so a start continues where the agent died.

Owns: when a phase begins and is done here, and the network's record if this node created it.
Does not: know the order of the phases (`core.encryption.switch_phase`), or how a command waits for
all members (`switch_service`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator

from overlay import limits
from overlay.agent.dataplane.mtu import MtuController
from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.encryption.controller import EncryptionController
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.controller import Controller, Fault
from overlay.core.dataplane.network_drivers import (
    EncryptionGoal,
    encryption_goal,
    has_room_for_goal,
    is_encrypted,
    with_goal,
)
from overlay.core.encryption.switch_phase import (
    Progress,
    SwitchPhase,
    is_complete,
    is_switching,
    next_progress,
    waits,
)
from overlay.core.encryption.switch_records import (
    CAPABLE,
    SwitchRequest,
    progress_of,
    progress_record,
    request_record,
    requests_of,
)
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.records import CLUSTER_SCOPE, CustomRecord, key_of
from overlay.failpoint import failpoint
from overlay.model import Network, NodeId, is_exported

_SHOWN = 5


class EncryptionSwitch(Controller):
    """Takes this node's steps of every switch, and decides on requests for its own networks."""

    name = "encryption switch"
    problem = "networks are not switched to encryption, or back"
    settle_s = 0.02
    recovered = "networks are switched again"
    event_kind = "encryption"

    def __init__(
        self,
        context: NodeContext,
        encryption: EncryptionController,
        reconciler: Reconciler,
        mtu: MtuController,
    ) -> None:
        super().__init__(context.event_log)
        self._gossip = context.gossip
        self._directory = context.directory
        self._encryption = encryption
        self._reconciler = reconciler
        self._mtu = mtu
        self._decided = (-1, -1)  # changes of the records that were decided on
        self._missing: dict[int, str] = {}  # by VNI: why this node's step is not done yet
        self._began_at: dict[int, float] = {}
        self._ended_at: dict[int, float] = {}  # when the records of a switch became useless

    # --- for the API ----------------------------------------------------------------------

    def incapable(self) -> list[NodeId]:
        """Return the members that do not switch networks: their version cannot."""
        return [
            node_id
            for node_id in self._directory.view.members()
            if CAPABLE not in self._records(node_id)
        ]

    def ask(self, network: Network, *, encrypted: bool) -> None:
        """Give a network a goal, or ask its creator to; raises OverlayError if the disk refuses."""
        goal = encryption_goal(network)
        if network.creator == self._gossip.node_id:
            self._set_goal(network, encrypted=encrypted)
        else:
            request = SwitchRequest(network.vni, goal.serial if goal else 0, encrypted)
            self._write([request_record(request)], [])
        self.trigger()

    def withdraw(self, network: Network) -> None:
        """Take back this node's request for a network."""
        vni = network.vni
        own = self._records(self._gossip.node_id)
        self._write([], [each for each in own if any(r.vni == vni for r in requests_of([each]))])

    def waits(self, network: Network) -> list[str]:
        """Return what a network's switch waits for, as texts."""
        goal, own = encryption_goal(network), self._gossip.node_id
        if goal is None or not is_switching(network):
            return []
        progress = self._directory.view.switch_progress(network)
        here = progress[own]
        phase = SwitchPhase.CLEAR if here is None else here.phase
        missing = self._missing.get(network.vni, "")
        if missing or (here is not None and not here.is_done):
            return [f"{self._directory.node_name(own)}: {missing or 'its kernel is being changed'}"]
        found = []
        for node_id, why in waits(goal, phase, progress):
            name, is_alive = self._directory.node_name(node_id), self._is_alive(node_id)
            found.append(f"{name}: {why.value if is_alive else 'its agent does not answer'}")
        return found

    def faults(self) -> Iterator[Fault]:
        """Yield the fault, and the switches that have been waiting for long."""
        yield from super().faults()
        now = asyncio.get_running_loop().time()
        for network in self._switching():
            began = self._began_at.get(network.vni, now)
            texts = self.waits(network)
            if now - began > limits.ENCRYPTION_SWITCH_STUCK_S and texts:
                more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
                yield Fault(
                    f"encryption of network {network.name} is not "
                    f"{'complete' if self._is_encrypting(network) else 'removed'} yet: waiting for "
                    f"{'; '.join(texts[:_SHOWN])}{more}",
                    "Packets pass as before. Start the agent of that host; or, if the host is "
                    "gone: overlayd forget NAME",
                )

    # --- the controller -------------------------------------------------------------------

    def next_interval_s(self) -> float | None:
        """Return the time to the next pass: short while a network is being switched."""
        is_busy = bool(self._missing) or not self._is_tidy()
        return limits.ENCRYPTION_SWITCH_POLL_S if is_busy else self._encryption.interval_s

    async def reconcile(self) -> None:
        """Take every step that this node can take now."""
        if not self._gossip.may_write or self._encryption.has_left:
            return
        self._write([CAPABLE], [])
        self._decide()
        switching = list(self._switching())
        self._missing = {}
        for network in switching:
            self._began_at.setdefault(network.vni, asyncio.get_running_loop().time())
            await self._advance(network)
        self._tidy({network.vni for network in switching})

    async def _advance(self, network: Network) -> None:
        """Take this node's steps of one switch until it has to wait."""
        own_id, view = self._gossip.node_id, self._directory.view
        while True:
            others = view.switch_progress(network)
            own = others.pop(own_id)
            if own is not None and not own.is_done:
                missing = await self._make(network, own.phase)
                if missing:
                    self._missing[network.vni] = missing
                    return
                self._publish(own._replace(is_done=True))
                self._report(network, own.phase)
                continue
            if self._refuses(network, own):
                self._missing[network.vni] = 'its configuration has encryption = "required"'
                return
            following = next_progress(network, own, others)
            if following is None:
                if network.creator == own_id and is_complete(network, own, others):
                    self._complete(network)
                return
            self._publish(following)

    async def _make(self, network: Network, phase: SwitchPhase) -> str:
        """Have the kernel in a phase; return what is missing, or nothing.

        Where containers' packets become smaller this is done first, and where they may become
        larger last: packets of either size pass while the hosts differ.
        """
        failpoint(f"encryption.{phase.name.lower()}")
        is_open = self._reconciler.runtime(network.vni) is not None
        if is_open and phase >= SwitchPhase.READY:
            await self._encryption.enter(network.vni)
            if self._encryption.fault is not None:
                return self._encryption.fault.text
        missing = await self._reconciler.apply(network)
        if missing:
            return missing
        await self._mtu.resize_network(network.vni)
        if is_open and phase is SwitchPhase.BOTH:
            silent = await self._encryption.unanswered(self._peers(network))
            if silent:
                names = ", ".join(map(self._directory.node_name, silent[:_SHOWN]))
                port = self._encryption.port
                return f"no answer through the tunnel (UDP {port}) from {names}"
        if phase is SwitchPhase.CLEAR:
            await self._encryption.leave(network.vni)
        return ""

    def _peers(self, network: Network) -> list[NodeId]:
        """Return the other members with a sandbox of a network."""
        there = self._directory.participants(network.vni, forwarding=True)
        return [
            node_id
            for node_id in there
            if node_id != self._gossip.node_id and self._directory.view.vtep_of(node_id) is not None
        ]

    def _refuses(self, network: Network, own: Progress | None) -> bool:
        """Return whether this host's configuration rules out a goal that it has not taken up."""
        goal = encryption_goal(network)
        if goal is None or goal.encrypted or not self._encryption.policy.required:
            return False
        return own is None or own.serial != goal.serial

    # --- the networks of this node --------------------------------------------------------

    def _decide(self) -> None:
        """Give this node's networks the goals that members ask for."""
        count = self._gossip.node.store.change_count
        seen = (count(CLUSTER_SCOPE, "name"), count(CLUSTER_SCOPE, "network"))
        if seen == self._decided:
            return  # with 1,000 members it takes milliseconds
        for node_id in self._directory.view.members():
            for request in requests_of(self._records(node_id)):
                network = self._directory.network_by_vni(request.vni)
                if network is None or network.creator != self._gossip.node_id:
                    continue
                goal = encryption_goal(network)
                if request.after == (goal.serial if goal else 0):
                    self._set_goal(network, encrypted=request.encrypted)
        self._decided = seen

    def _set_goal(self, network: Network, *, encrypted: bool) -> None:
        if encrypted and is_exported(network):
            return
        if not has_room_for_goal(network):
            return  # a record with more labels would be refused, and this node's log with it
        goal = encryption_goal(network)
        serial = max(int(time.time()), goal.serial + 1 if goal else 1)
        self._define(network, EncryptionGoal(encrypted, serial), is_encrypted(network))

    def _complete(self, network: Network) -> None:
        goal = encryption_goal(network)
        if goal is not None:
            self._define(network, goal, goal.encrypted)

    def _define(self, network: Network, goal: EncryptionGoal, encrypted: bool) -> None:
        definition = with_goal(network, goal, encrypted=encrypted)
        if definition != network:
            self._gossip.publish(self._gossip.commit(CLUSTER_SCOPE, [definition]))
            self.trigger()

    # --- records --------------------------------------------------------------------------

    def _switching(self) -> Iterator[Network]:
        return (each for each in self._directory.networks() if is_switching(each))

    def _is_encrypting(self, network: Network) -> bool:
        goal = encryption_goal(network)
        return goal is not None and goal.encrypted

    def _is_alive(self, node_id: NodeId) -> bool:
        return self._directory.node_state(node_id) is MemberState.ALIVE

    def _records(self, node_id: NodeId) -> list[CustomRecord]:
        values = self._gossip.node.store.values_of(node_id, CLUSTER_SCOPE, "name")
        return [value for value in values if isinstance(value, CustomRecord)]

    def _publish(self, progress: Progress) -> None:
        """Write this node's progress in place of the one before."""
        own = self._records(self._gossip.node_id)
        self._write(
            [progress_record(progress)],
            [each for each in own if progress.vni in progress_of([each])],
        )

    def _write(self, puts: Iterable[CustomRecord], deletes: Iterable[CustomRecord]) -> None:
        there = self._records(self._gossip.node_id)
        new = [each for each in puts if each not in there]
        keys = [key_of(each) for each in deletes if each not in new]
        if new or keys:
            self._gossip.publish(self._gossip.commit(CLUSTER_SCOPE, new, keys))

    def _is_tidy(self) -> bool:
        return not self._ended_at and not any(True for _ in self._switching())

    def _tidy(self, switching: set[int]) -> None:
        """Delete the records of switches that are over, some time later.

        A member that learns of the end late still learns from them where all are.
        """
        now, own = asyncio.get_running_loop().time(), self._records(self._gossip.node_id)
        progress, answered = progress_of(own), self._answered(own)
        for vni in self._began_at.keys() - switching:
            del self._began_at[vni]
        over = {vni for vni in progress if vni not in switching}
        self._ended_at = {vni: self._ended_at.get(vni, now) for vni in over}
        late = {
            vni
            for vni, ended in self._ended_at.items()
            if now - ended >= limits.ENCRYPTION_SWITCH_KEPT_S
        }
        self._write([], [*answered, *(progress_record(progress[vni]) for vni in sorted(late))])
        for vni in late:
            del self._ended_at[vni]

    def _answered(self, own: list[CustomRecord]) -> Iterator[CustomRecord]:
        """Yield this node's requests that the network's creator has decided on."""
        for request in requests_of(own):
            network = self._directory.network_by_vni(request.vni)
            goal = None if network is None else encryption_goal(network)
            if network is None or (goal.serial if goal else 0) != request.after:
                yield request_record(request)

    def _report(self, network: Network, phase: SwitchPhase) -> None:
        texts = {
            SwitchPhase.CLEAR: "frames pass in clear",
            SwitchPhase.READY: "containers' MTU fits the tunnels",
            SwitchPhase.BOTH: "frames are accepted by the tunnels and in clear",
            SwitchPhase.SENDING: "frames are sent by the tunnels only",
            SwitchPhase.ENCRYPTED: "frames in clear are dropped",
        }
        self._event_log.record("encryption", texts[phase], network=network.name)
