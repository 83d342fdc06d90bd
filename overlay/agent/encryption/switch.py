"""Move this host's networks into the tunnels, or out of them, phase by phase.

The goal is in the network's record, which its creator alone can change; other members ask for that
by a record of theirs. Where the creator is gone for good, any member sets the goal by its progress
(`core.encryption.orphan_goal`). Each phase is on disk before the kernel is changed and published as
done when a fresh reading of the kernel agrees, so a start continues where the agent died.

Owns: when a phase begins and is done here, and the network's record if this node created it.
Does not: know the order of the phases (`core.encryption.switch_phase`), the form and lifetime of
records (`switch_log`), or how a command waits for all members (`switch_service`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from overlay import limits
from overlay.agent.dataplane.mtu import MtuController
from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.encryption.controller import EncryptionController
from overlay.agent.encryption.switch_log import SwitchLog
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.controller import Controller, Fault
from overlay.core.dataplane.network_drivers import (
    EncryptionGoal,
    encryption_goal,
    has_room_for_goal,
    is_encrypted,
    with_goal,
)
from overlay.core.encryption.orphan_goal import goal_after, serial_of
from overlay.core.encryption.switch_phase import (
    Progress,
    SwitchPhase,
    final_progress,
    is_complete,
    is_switching,
    next_progress,
    waits,
)
from overlay.core.encryption.switch_records import (
    CAPABLE,
    ORPHANS,
    requests_of,
)
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.records import CLUSTER_SCOPE
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
        self.log = SwitchLog(context)
        self._gossip = context.gossip
        self._directory = context.directory
        self._encryption = encryption
        self._reconciler = reconciler
        self._mtu = mtu
        self._decided = (-1, -1)  # changes of the records that were decided on
        self._missing: dict[int, str] = {}  # by VNI: why this node's step is not done yet
        self._began_at: dict[int, float] = {}

    # --- for the API ----------------------------------------------------------------------

    def incapable(self, network: Network) -> list[NodeId]:
        """Return the members that do not switch a network: their version cannot."""
        needed = ORPHANS if self._directory.view.switches.is_orphan(network) else CAPABLE
        return [
            node_id
            for node_id in self._directory.view.members()
            if needed not in self.log.records(node_id)
        ]

    def ask(self, network: Network, *, encrypted: bool) -> None:
        """Give a network a goal, or ask its creator to; raises OverlayError if the disk refuses."""
        if network.creator == self._gossip.node_id:
            self._set_goal(network, encrypted=encrypted)
        elif self._directory.view.switches.is_orphan(network):
            self.log.give_goal(network, encrypted=encrypted)
        else:
            self.log.ask_creator(network, encrypted=encrypted)
        self.trigger()

    def is_over(self, network: Network) -> bool:
        """Return whether a network is everywhere as it is here."""
        goal = encryption_goal(network)
        if goal is None or is_switching(network) or self.log.is_defined(network):
            return not is_switching(network)
        progress = self._directory.view.switch_progress(network)
        return not any(True for _ in waits(goal, final_progress(network.vni, goal).phase, progress))

    def waits(self, network: Network) -> list[str]:
        """Return what a network's switch waits for, as texts."""
        goal, own = encryption_goal(network), self._gossip.node_id
        if goal is None or self.is_over(network):
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
        yield from self._unaware()

    def _unaware(self) -> Iterator[Fault]:
        """Yield the members that go by a definition that nobody can change now."""
        for network in self._directory.networks():
            if not is_encrypted(network) or self.log.is_defined(network):
                continue
            there = self._directory.participants(network.vni, forwarding=True)
            names = [*map(self._directory.node_name, set(self.incapable(network)) & set(there))]
            if names:
                yield Fault(
                    f"{', '.join(sorted(names)[:_SHOWN])} may send frames of network "
                    f"{network.name} in clear: it was encrypted after its creator was gone, which "
                    "the version of overlayd there does not know",
                    "What comes in clear is dropped here. Upgrade overlayd on that host, or remove "
                    "its containers from the network",
                    "error",
                )

    # --- the controller -------------------------------------------------------------------

    def next_interval_s(self) -> float | None:
        """Return the time to the next pass: short while a network is being switched."""
        is_busy = self._missing or not self.log.is_tidy or any(True for _ in self._switching())
        return limits.ENCRYPTION_SWITCH_POLL_S if is_busy else self._encryption.interval_s

    async def reconcile(self) -> None:
        """Take every step that this node can take now."""
        if not self._gossip.may_write or self._encryption.has_left:
            return
        self.log.write([CAPABLE, ORPHANS], [])
        self._decide()
        self._confirm()
        switching = list(self._switching())
        self._missing = {}
        for network in switching:
            self._began_at.setdefault(network.vni, asyncio.get_running_loop().time())
            await self._advance(network)
        vnis = {network.vni for network in switching}
        for vni in self._began_at.keys() - vnis:
            del self._began_at[vni]
        self.log.tidy(vnis, asyncio.get_running_loop().time())

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
                self.log.publish(own._replace(is_done=True))
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
            self.log.publish(following)

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

    def _confirm(self) -> None:
        """Say where this node is in networks that have reached their goal without it."""
        for network in self._directory.networks():
            goal = encryption_goal(network)
            if goal is None or is_switching(network) or self.log.is_defined(network):
                continue
            final = final_progress(network.vni, goal)
            if self._directory.view.switches.progress_of(self._gossip.node_id, network) != final:
                self.log.publish(final)

    # --- the networks of this node --------------------------------------------------------

    def _decide(self) -> None:
        """Give this node's networks the goals that members ask for."""
        count = self._gossip.node.store.change_count
        seen = (count(CLUSTER_SCOPE, "name"), count(CLUSTER_SCOPE, "network"))
        if seen == self._decided:
            return  # with 1,000 members it takes milliseconds
        for node_id in self._directory.view.members():
            for request in requests_of(self.log.records(node_id)):
                network = self._directory.network_by_vni(request.vni)
                if network is None or network.creator != self._gossip.node_id:
                    continue
                if request.after == serial_of(network):
                    self._set_goal(network, encrypted=request.encrypted)
        self._decided = seen

    def _set_goal(self, network: Network, *, encrypted: bool) -> None:
        if encrypted and is_exported(network):
            return
        if not has_room_for_goal(network):
            return  # a record with more labels would be refused, and this node's log with it
        goal = goal_after([serial_of(network)], int(time.time()), encrypted=encrypted)
        self._define(network, goal, is_encrypted(network))

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

    def _report(self, network: Network, phase: SwitchPhase) -> None:
        texts = {
            SwitchPhase.CLEAR: "frames pass in clear",
            SwitchPhase.READY: "containers' MTU fits the tunnels",
            SwitchPhase.BOTH: "frames are accepted by the tunnels and in clear",
            SwitchPhase.SENDING: "frames are sent by the tunnels only",
            SwitchPhase.ENCRYPTED: "frames in clear are dropped",
        }
        self._event_log.record("encryption", texts[phase], network=network.name)
