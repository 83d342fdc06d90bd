"""Keep this host's WireGuard tunnels to the other members as the records describe them.

A device exists while this host has a sandbox of an encrypted network, and a second one while a key
is replaced. Each member with a published key is a peer that may send from its one inner address.
Without a device, or without a peer, frames go nowhere: a fence in the routing table and the filter
of the VXLAN port see to that.

Owns: when the key is published, when devices are made, repaired and removed, and the health lines.
Does not: know which members are peers (`tunnel_plan`), when a key is replaced (`key_replacement`),
how a device is made (`kernel.wireguard`), or which rows lead into it (the planner).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping

from overlay import limits
from overlay.agent.dataplane.watch import watch_monitor
from overlay.agent.encryption.capable_members import CapableMembers
from overlay.agent.encryption.key_replacement import KeyReplacement
from overlay.agent.encryption.own_keys import OwnKeys
from overlay.agent.encryption.peer_faults import PeerFaults, Tunnel
from overlay.agent.encryption.policy import EncryptionPolicy
from overlay.agent.encryption.tunnel_plan import TunnelPlan
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process import tasks
from overlay.agent.process.config import AUTO, REQUIRED, Config
from overlay.agent.process.controller import Controller, Fault
from overlay.core.dataplane.network_drivers import is_encrypted
from overlay.core.encryption.device import DeviceReading, PeerReading, TunnelState
from overlay.core.encryption.first_handshakes import FirstHandshakes
from overlay.core.encryption.key_record import WireguardKey
from overlay.core.encryption.rotation import MemberKeys, slot_order
from overlay.errors import ConflictError, OverlayError, TimedOutError
from overlay.kernel.sandbox.monitor import UnderlayMonitor
from overlay.kernel.wireguard import backend, link, tunnel, uapi
from overlay.kernel.wireguard.backend import Backend, Support
from overlay.model import Card, Ip, Network, NodeId, Vni

_UNKNOWN = Support(None, "not checked yet", "Try again in a moment")


class EncryptionController(Controller):
    """The tunnels of this node's encrypted networks; satisfies `EncryptedTunnels`."""

    name = "encryption"
    problem = "encrypted networks do not reach other hosts (nothing leaves in clear)"
    settle_s = 0.02
    retry_first_s = 0.1  # right after a kill the kernel has the device for a moment
    recovered = "encrypted networks reach other hosts again"
    event_kind = "encryption"

    def __init__(self, context: NodeContext, config: Config) -> None:
        super().__init__(context.event_log)
        self.interval_s = config.reconcile_interval_s
        self.policy = EncryptionPolicy(context, required=config.encryption == REQUIRED)
        self.capable = CapableMembers(context)
        self.first_handshakes = FirstHandshakes()
        self.support = _UNKNOWN
        self._only = None if config.wireguard == AUTO else Backend(config.wireguard)
        self.keys = OwnKeys(context.gossip)
        self.replacement = KeyReplacement(
            self.keys, context.event_log, config.encryption_rotation_interval_s
        )
        self._gossip = context.gossip
        self._directory = context.directory
        self._kernel = context.kernel
        self._plan = TunnelPlan(context, self.keys)
        self._in_use: set[Vni] = set()
        self._is_fenced = False
        self._is_stale = True
        self._has_left = False
        self._applied: tuple[TunnelState, ...] = ()
        self._silent: set[str] = set()  # devices whose process did not answer at the last look
        self._answering: frozenset[bytes] = frozenset()  # keys that the newer device had answers by
        self._lock = asyncio.Lock()
        self._peer_faults = PeerFaults(context, self._plan, self.replacement)

    # --- lookups ------------------------------------------------------------------------

    @property
    def address(self) -> Ip:
        """Return this node's inner address."""
        return self._plan.address_of(self._gossip.node_id)

    @property
    def is_fenced(self) -> bool:
        """Return whether frames to inner addresses go nowhere without the device."""
        return self._is_fenced

    @property
    def is_in_use(self) -> bool:
        """Return whether this host has a sandbox of an encrypted network."""
        return bool(self._in_use)

    def missing(self, name: str, readings: Collection[str]) -> str | None:
        """Return why a device is not among the readings; None if it is."""
        if name in readings:
            return None
        if not self._in_use:
            return "no encrypted network has containers here"
        if self.fault is not None:
            return self.fault.reason
        return "it does not answer" if self._applied else "it is being made"

    @property
    def has_left(self) -> bool:
        """Return whether this node has left the cluster."""
        return self._has_left

    @property
    def port(self) -> int:
        """Return the UDP port of this node's WireGuard."""
        return self.port_of(self._gossip.card)

    def port_of(self, card: Card) -> int:
        """Return the UDP port of a member's WireGuard: all are of one slot, but in a rotation."""
        return self._plan.port(card.gossip_port, self.keys.slots.current)

    def address_of(self, node_id: NodeId) -> Ip:
        """Return a node's inner address."""
        return self._plan.address_of(node_id)

    def keys_used(self) -> dict[NodeId, WireguardKey]:
        """Return the key by which each member is reached."""
        return self._plan.keys_used(self._plan.members(self._answering))

    def tunnels(self) -> dict[NodeId, Tunnel]:
        """Return the tunnels to live members, while this host has an encrypted network."""
        if not self._in_use:
            return {}
        return {each.node_id: each for each in self._peer_faults.tunnels(self.keys_used())}

    async def require_support(self, network: Network) -> None:
        """Raise ConflictError if a network needs WireGuard, and this host has none."""
        needed = self._directory.view.uses_tunnels(network)
        if needed and self.support.backend is None:
            self.support = await self._kernel.call(backend.find_support, self._only)
        if needed and self.support.backend is None:
            raise ConflictError(
                f"network {network.name} is encrypted, and this host has no WireGuard",
                why=self.support.why,
                hint=self.support.hint,
            )

    async def readings(self) -> dict[str, DeviceReading]:
        """Return the devices with their counters, by name, but for those that nothing answers for.

        That of the newer key is first.
        """
        found = {}
        for state in self._applied:
            if await asyncio.to_thread(uapi.is_hung, state.name):
                continue  # the kernel thread must not wait for it
            with contextlib.suppress(OverlayError, OSError):
                reading = await self._kernel.call(tunnel.read, state.name)
                if reading is not None:
                    found[state.name] = reading
        self.first_handshakes.update(found.values())
        return found

    async def differences(self) -> list[str]:
        """Return how fence and devices differ from what they should be; changes nothing."""
        if not self._in_use:
            return []
        async with self._lock:
            texts: list[str] = []
            for wanted in self._wanted():
                before = self._before(wanted.slot)
                texts += await self._kernel.call(tunnel.differences, wanted, before)
        return list(dict.fromkeys(texts))

    async def unanswered(self, members: Iterable[NodeId]) -> list[NodeId]:
        """Return the members with which there was no handshake; greets those, which begins one."""
        used, readings = self.keys_used(), await self.readings()
        reached = self._used(readings)
        silent = []
        for node_id in members:
            peer = reached.get(used[node_id].public_key) if node_id in used else None
            if peer is None or not peer.handshake_s:
                silent.append(node_id)
        for name in readings:
            await self._kernel.call(tunnel.greet, name, [*map(self.address_of, silent)])
        return silent

    async def rotate(self) -> int:
        """Replace the WireGuard keys of all members; return the new epoch of this node's.

        Raises ConflictError where this host has no key, and TimedOutError with the members that
        are waited for: the rotation continues.
        """
        if not self.keys.is_published:
            raise ConflictError(
                "this host has no WireGuard key to replace",
                why=self.support.why or "it has not been published yet",
                hint=self.support.hint or "Try again in a moment",
            )
        epoch = max(key.epoch for key in self.keys.public)
        epoch += len(self.keys.public) == 1  # else one has begun, and continues
        if len(self.keys.public) == 1:
            self.replacement.ask()
        try:
            async with asyncio.timeout(limits.WIREGUARD_ROTATION_WAIT_S):
                while self.keys.public[0].epoch < epoch:
                    self.trigger()
                    await asyncio.sleep(limits.WIREGUARD_ROTATION_POLL_S)
        except TimeoutError:
            raise TimedOutError(
                "the WireGuard keys are not replaced yet",
                why="; ".join(self.waits()) or "this host has not finished",
                hint="Packets use the former keys, and the rotation continues: 'overlayd "
                "encryption status' shows it. A member that is gone: overlayd forget NAME",
            ) from None
        return epoch

    def waits(self) -> list[str]:
        """Return what a rotation waits for, as texts."""
        return self._peer_faults.waits()

    # --- for the reconciler ---------------------------------------------------------------

    async def enter(self, vni: Vni) -> None:
        """Have the tunnels while this network's sandbox exists; an error becomes `fault`."""
        self._in_use.add(vni)
        await self.attempt()

    async def leave(self, vni: Vni) -> None:
        """Remove the tunnels when the last sandbox of an encrypted network is gone."""
        if vni in self._in_use:
            self._in_use.discard(vni)
            if not self._in_use:
                await self.attempt()

    async def follow_members(self) -> None:
        """Let exactly the present members be peers; an error becomes `fault`."""
        if self._in_use and self._wanted() != self._applied:
            await self.attempt()

    async def remove(self) -> None:
        """Remove device and fence: this node has left; its key is no longer published."""
        self._in_use.clear()
        self._has_left = True
        await self.attempt()

    # --- the controller -------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def prepare(self) -> AsyncIterator[None]:
        """Watch for changes of links, addresses and routes."""
        monitor = await self._kernel.call(UnderlayMonitor)
        with watch_monitor(monitor, self.trigger, self.settle_s):
            yield

    async def look(self) -> None:
        """Replace each wireguard-go that stops answering; what has ended, the monitor tells of."""
        while True:
            await tasks.pause(limits.WIREGUARD_LOOK_S)
            if self._applied:
                await self.replace_hung()

    async def replace_hung(self) -> None:
        """Have the process of each device made again if it does not answer; that is a `fault`.

        At the second look in a row: its end loses packets, and a host may be busy for a moment.
        """
        async with self._lock:
            silent = set()
            for state in self._applied:
                if not await asyncio.to_thread(uapi.is_hung, state.name):
                    continue
                if state.name not in self._silent:
                    silent.add(state.name)
                    continue
                try:
                    await self._kernel.call(tunnel.give_up_hung, state.name)
                except (OverlayError, OSError) as error:
                    self._fail(error)
                self.trigger()
            self._silent = silent

    def resync(self) -> None:
        """Have the next pass read the whole device."""
        self._is_stale = True
        super().resync()

    def next_interval_s(self) -> float | None:
        """Return the time to the next check: short until the key is published, or replaced."""
        if self.support.backend is None:
            return self.interval_s
        if not self.keys.is_published:
            return limits.WIREGUARD_KEYS_POLL_S
        return limits.WIREGUARD_ROTATION_POLL_S if self._is_rotating else self.interval_s

    @property
    def _is_rotating(self) -> bool:
        # One that waits for a member looks less often, as that can take for ever.
        return self.replacement.is_active and not self.replacement.is_stuck

    async def reconcile(self) -> None:
        """Publish the key, and make devices, peers and routes what they should be."""
        async with self._lock:
            if self._is_stale or self.support.backend is None:
                self.support = await self._kernel.call(backend.find_support, self._only)
            self._publish()
            members = await self._members()
            if self._in_use:
                await self._establish(members)
            elif self._applied or self._is_fenced:
                await self._kernel.call(tunnel.remove, self._plan.prefix)
                self._applied, self._is_fenced = (), False
            if self._is_stale and self._in_use:
                self._peer_faults.silent.update(self._used(await self.readings()))
            self._is_stale = False
            if self.keys.is_published and self._may_write and self.replacement.advance(members):
                self.trigger()

    @property
    def _may_write(self) -> bool:
        return not self._has_left and self._gossip.may_write

    def _publish(self) -> None:
        if not self._may_write:
            return
        if self.support.backend is not None:
            self.keys.publish()
            self.keys.date()
        elif not self._in_use:
            self.keys.withdraw()

    async def _members(self) -> list[MemberKeys]:
        """Return the members that can be peers, and which of them answer by the newer of two keys.

        Those that do not are greeted: a handshake begins with a packet.
        """
        former, newer = slot_order(self.keys.slots)
        answering: frozenset[bytes] = frozenset()
        applied = self._before(newer)
        if former != newer and applied is not None:
            found = (await self.readings()).get(applied.name)
            if found is not None:
                answering = frozenset(k for k, peer in found.peers.items() if peer.handshake_s)
            silent = [p.inner for p in applied.peers if p.public_key not in answering]
            await self._kernel.call(tunnel.greet, applied.name, silent)
        self._answering = answering
        return self._plan.members(answering)

    def _used(self, readings: Mapping[str, DeviceReading]) -> dict[bytes, PeerReading]:
        """Return the peers as the device has them by which packets to them leave."""
        return {
            peer.public_key: readings[state.name].peers[peer.public_key]
            for state in self._applied
            if state.name in readings
            for peer in state.peers
            if peer.inner not in state.standby and peer.public_key in readings[state.name].peers
        }

    async def _establish(self, members: list[MemberKeys]) -> None:
        """Make the fence first, whatever else fails: nothing leaves in clear then."""
        missing = await self._kernel.call(link.ensure_fence, self._plan.prefix)
        was_fenced, self._is_fenced = self._is_fenced, True
        if missing and was_fenced:
            self._report(["its unreachable route was gone"])
        wanted = self._plan.states(members)
        if not wanted or self.support.backend is None:
            raise OverlayError(
                "this host has no WireGuard" if wanted else "there is no key yet",
                why=self.support.why,
                hint=self.support.hint,
            )
        for state in wanted:  # the newer first: a route moves before its peer goes
            before = self._before(state.slot)
            wrong = await self._kernel.call(
                tunnel.establish, state, before, self.support.backend, read=self._is_stale
            )
            others = (each for each in self._applied if each.slot != state.slot)
            self._applied = (state, *others)
            if before == state and wrong:
                self._report(wrong)
        if self._applied != wanted:
            await self._kernel.call(tunnel.remove_surplus, [state.name for state in wanted])
        self._applied = wanted

    def _before(self, slot: int) -> TunnelState | None:
        """Return the device of a slot as it was made last, or None."""
        return next((each for each in self._applied if each.slot == slot), None)

    def _wanted(self) -> tuple[TunnelState, ...]:
        """Return the desired devices; none before there is a key."""
        return self._plan.states(self._plan.members(self._answering))

    def _report(self, wrong: list[str]) -> None:
        self._event_log.record(
            "repaired", f"encryption: {'; '.join(wrong)}: repaired", level=logging.WARNING
        )

    # --- health lines ---------------------------------------------------------------------

    def faults(self) -> Iterator[Fault]:
        """Yield the fault, and what keeps hosts out of the cluster's encrypted networks."""
        yield from super().faults()
        yield from self._peer_faults.contested()
        if self._in_use and self._peer_faults.silent.keys:
            yield from self._peer_faults.silence(self.keys_used())
        yield from self._peer_faults.stuck()
        yield from self.policy.faults(self.capable.missing() if self.policy.required else ())
        if self.support.backend is None and self.support is not _UNKNOWN and not self._in_use:
            names = [each.name for each in self._directory.networks() if is_encrypted(each)]
            if names:
                yield Fault(
                    f"this host can take part in no encrypted network ({', '.join(names[:3])}): "
                    f"{self.support.why}",
                    self.support.hint,
                )
