"""Probe the data path to each peer, and say what is known of it.

Owns: which peers are probed and on which network, the timer of the probes, the events and health
lines about paths. Does not: judge (`core.paths`), or change an MTU (`agent.dataplane.mtu`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from overlay import limits
from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.encryption.controller import EncryptionController
from overlay.agent.gossip.context import NodeContext
from overlay.agent.paths import texts
from overlay.agent.paths.busy_networks import BusyNetworks
from overlay.agent.paths.probe_sockets import ProbeReceivers, ProbeSender, bound_socket
from overlay.agent.process.controller import Controller, Fault
from overlay.core.dataplane.network_drivers import has_tunnel
from overlay.core.encryption.device import wireguard_overhead
from overlay.core.paths.prober import PathProber
from overlay.core.paths.view import PathState, PathView, PeerPath, ProbeFrame
from overlay.core.protocol.messages import MemberState, PathReport
from overlay.errors import RemoteError
from overlay.kernel.sandbox.sandbox import Sandbox
from overlay.model import Card, Ip, Network, NodeId, Vni
from overlay.signals import Signal
from overlay.wire.codec import path_probe

_LIVE = frozenset({MemberState.ALIVE, MemberState.SUSPECT})


class ProbeOutcome(NamedTuple):
    """The peers whose paths lose frames, or have not answered in a short time."""

    lost: tuple[NodeId, ...]  # by the verdict on their paths
    unanswered: tuple[NodeId, ...]  # proven before, without an answer now: not known yet


class PathController(Controller):
    """The data paths of this node.

    Signal `size_changed`: the largest packet that the paths carry has changed.
    """

    name = "path probes"
    interval_s = limits.PATH_PROBE_INTERVAL_S
    settle_s = limits.PATH_PEERS_SETTLE_S
    level = "warn"
    announces_all = True

    def __init__(
        self, context: NodeContext, reconciler: Reconciler, encryption: EncryptionController
    ) -> None:
        super().__init__(context.event_log)
        self.size_changed: Signal[[]] = Signal()
        self.drops: Counter[str] = Counter()
        self._gossip = context.gossip
        self._directory = context.directory
        self._kernel = context.kernel
        self._reconciler = reconciler
        self._encryption = encryption
        self._encrypted: frozenset[NodeId] = frozenset()  # peers that share no other network
        self._event_loop = asyncio.get_running_loop()
        self._prober = PathProber(random.Random(os.urandom(16)))
        self._expected_size = context.gossip.card.underlay_mtu
        self._sender = ProbeSender()
        self._inner_sender = ProbeSender()  # through the tunnels
        self._receivers = ProbeReceivers(self._payload_received)
        self._busy = BusyNetworks(context.kernel, reconciler)
        self._timer: asyncio.TimerHandle | None = None
        self._answered = asyncio.Event()  # some path's verdict may have changed
        reconciler.sandbox_ready.connect(self._sandbox_ready)
        reconciler.sandbox_closing.connect(self._receivers.remove)

    # --- lookups ------------------------------------------------------------------------

    def path(self, node_id: NodeId) -> PathView | None:
        """Return what is known of the path to a peer; None for one that is not probed."""
        return self._prober.path(node_id)

    def paths(self) -> Iterator[PathView]:
        """Yield what is known of each path."""
        return self._prober.paths()

    def carried_size(self) -> int | None:
        """Return the largest underlay packet that every path carries; None if that is unknown."""
        found = [
            view.size_carried
            for view in self._prober.paths()
            if view.size_carried and view.size_carried >= limits.UNDERLAY_MTU_MIN
        ]
        return min(found, default=None)

    def faults(self) -> Iterator[Fault]:
        """Yield the paths that lose packets."""
        yield from super().faults()
        for view in self._prober.paths():
            card = self._directory.card(view.node_id)
            if card is not None:
                carrier = self._carrier(view.node_id, card)
                yield from texts.path_faults(view, card, carrier, self._gossip.transport.now())

    def is_encrypted(self, node_id: NodeId) -> bool:
        """Return whether probes of a peer take the tunnel of encrypted networks."""
        return node_id in self._encrypted

    def _carrier(self, node_id: NodeId, card: Card) -> texts.Carrier:
        vxlan_port = self._gossip.cluster.vxlan_port
        if node_id not in self._encrypted:
            return texts.Carrier(texts.VXLAN, vxlan_port)
        return texts.Carrier(texts.WIREGUARD, self._encryption.port_of(card))

    def probe(self, vnis: Iterable[Vni]) -> list[NodeId]:
        """Probe the live participants of networks now; `probe_outcome` takes what this returns.

        A path that was never proven is left to its own rounds, and so are those of large networks;
        one that has just been proven is not probed again: attaches come many at a time.
        """
        now = self._event_loop.time()
        peers = {
            node_id
            for vni in vnis
            for node_id in self._directory.participants(vni, forwarding=True)
            if self._prober.path(node_id) is not None
        }
        proven = [each for each in peers if self._sending(each) is PathState.OK]
        since = now - limits.PATH_FRESH_S
        stale = [each for each in proven if not self._prober.is_proven_since(each, since)]
        if stale and len(proven) <= limits.PATH_ATTACH_PEERS_MAX:
            for node_id in stale:
                self._prober.probe_now(node_id, now)
            self._run_timers()
        return sorted(peers)

    async def probe_outcome(self, peers: list[NodeId]) -> ProbeOutcome:
        """Return which peers' paths lose frames, and which have not answered `probe`.

        Waits for the answers for at most `limits.PATH_ATTACH_WAIT_S`, which is too short to call a
        path lost: only the verdict that stands does.
        """
        proven = [each for each in peers if self._sending(each) is PathState.OK]
        if len(proven) <= limits.PATH_ATTACH_PEERS_MAX:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limits.PATH_ATTACH_WAIT_S):
                    while any(map(self._is_unanswered, proven)):
                        self._answered.clear()
                        await self._answered.wait()
        lost = [each for each in peers if self._loses(each)]
        return ProbeOutcome(
            tuple(lost),
            tuple(each for each in proven if each not in lost and self._is_unanswered(each)),
        )

    async def check_sizes(self, seconds: float) -> None:
        """Check which packet sizes the paths carry; returns when that is known, or after a time."""
        self._prober.check_sizes(self._event_loop.time())
        self._flush()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._prober.is_size_waiting():
                    self._answered.clear()
                    await self._answered.wait()

    # --- for `netcheck` -----------------------------------------------------------------

    def check(self, peers: Iterable[NodeId]) -> None:
        """Probe these peers now, whatever their paths are like."""
        for node_id in peers:
            self._prober.probe_now(node_id, self._event_loop.time())
        self._run_timers()

    def is_known_since(self, node_id: NodeId, start: float) -> bool:
        """Return whether all that probes can tell of a path is newer than a time."""
        return self._prober.is_known_since(node_id, start, self._event_loop.time())

    def is_heard_since(self, node_id: NodeId, start: float) -> bool:
        """Return whether a frame of a peer has arrived since a time."""
        return self._prober.is_heard_since(node_id, start)

    def is_proven_since(self, node_id: NodeId, start: float) -> bool:
        """Return whether a peer has reported a probe that was sent since a time."""
        return self._prober.is_proven_since(node_id, start)

    def _sending(self, node_id: NodeId) -> PathState:
        view = self._prober.path(node_id)
        return PathState.UNKNOWN if view is None else view.sending

    def _is_unanswered(self, node_id: NodeId) -> bool:
        """Return whether a probe of a peer, small or of full size, waits for its report."""
        return self._prober.is_waiting(node_id) or self._prober.is_size_waiting([node_id])

    def _loses(self, node_id: NodeId) -> bool:
        view = self._prober.path(node_id)
        return view is not None and view.loses

    # --- what others tell ---------------------------------------------------------------

    def expect_size(self, size: int) -> None:
        """Set the size in bytes of an underlay packet that this host's interfaces let pass."""
        if size != self._expected_size:
            self._expected_size = size
            self.trigger()

    def report_received(self, sender: NodeId, report: PathReport) -> None:
        """Handle a peer's report."""
        self._prober.receive_report(sender, report, self._event_loop.time())
        self._answered.set()
        self._flush()

    def peer_moved(self, node_id: NodeId) -> None:
        """Probe a peer at once: its card has changed, perhaps its address or MTU."""
        self._prober.probe_now(node_id, self._event_loop.time(), full_size=True)
        self._flush()

    # --- which peers --------------------------------------------------------------------

    async def reconcile(self) -> None:
        """Probe each live member that shares an overlay network with a sandbox on both hosts.

        By a network in clear where there is one: its packets need a way of their own.
        """
        peers: dict[NodeId, PeerPath] = {}
        by_network: dict[Vni, list[NodeId]] = {}
        encrypted: set[NodeId] = set()
        own = self._gossip.card
        membership, view = self._gossip.node.membership, self._directory.view
        networks = sorted(
            self._directory.networks(), key=lambda each: (view.sends_encrypted(each), each.vni)
        )
        for network in networks:
            if not has_tunnel(network) or not self._receivers.is_open(network.vni):
                continue
            participants = self._directory.participants(network.vni, forwarding=True)
            if own.node_id not in participants:  # peers do not know of this host's sandbox
                continue
            for node_id in participants:
                card = self._directory.card(node_id)
                if card is None or len(card.address) != len(own.address):
                    continue
                if membership.state_of(node_id) not in _LIVE:
                    continue
                by_network.setdefault(network.vni, []).append(node_id)
                if node_id not in peers:
                    peers[node_id] = self._peer_path(network, own.address)
                    if view.sends_encrypted(network):
                        encrypted.add(node_id)
        self._encrypted = frozenset(encrypted)
        before = self.carried_size()
        self._prober.set_peers(peers, self._event_loop.time())
        if self.carried_size() != before:
            self.size_changed.emit()
        await self._check_busy(by_network)
        self._flush()

    def _peer_path(self, network: Network, address: Ip) -> PeerPath:
        """Return by which network a peer is probed, and what that costs."""
        inner = address
        overhead = 0
        if self._directory.view.sends_encrypted(network):
            inner, overhead = self._encryption.address, wireguard_overhead(address)
        report_size = path_probe.report_size_of(address)
        probe_size = path_probe.smallest_size_of(network, inner) + overhead
        return PeerPath(network.vni, self._expected_size, probe_size, report_size)

    async def _check_busy(self, by_network: dict[Vni, list[NodeId]]) -> None:
        """Check the sizes of the paths in use, where that is little beside what they carry."""
        each = limits.PATH_TRAFFIC_PER_CHECK * self._expected_size
        busy = await self._busy.find({vni: len(on) * each for vni, on in by_network.items()})
        for vni in busy:
            self._prober.check_sizes(self._event_loop.time(), by_network[vni])

    async def _sandbox_ready(self, network: Network, sandbox: Sandbox) -> None:
        """Receive the probes of a network; called again while that could not be begun."""
        if self._receivers.is_open(network.vni) or not has_tunnel(network):
            return
        with contextlib.suppress(OSError):  # the address is not there yet: the next call tries
            opened = await self._kernel.call(bound_socket, sandbox, network)
            runtime = self._reconciler.runtime(network.vni)
            if runtime is None or runtime.sandbox is not sandbox:  # closed meanwhile
                opened.close()
                return
            self._receivers.add(network.vni, opened)
            self.trigger()

    # --- the probes ---------------------------------------------------------------------

    def _payload_received(self, vni: Vni, payload: bytes) -> None:
        try:
            probe = path_probe.decode_path_probe(payload)
            key = self._prober.key_of(probe.sender)
            path_probe.verify_path_probe(payload, key, vni, self._gossip.node_id)
        except RemoteError as error:
            self.drops[error.reason] += 1
            return
        now = self._event_loop.time()
        if self._prober.receive_frame(
            probe.sender, probe.sequence, now, is_bare=probe.is_bare, is_large=probe.is_large
        ):
            self._flush()

    def _run_timers(self) -> None:
        """Begin what is due; the timer that is armed, if this is not it, is replaced."""
        now = self._event_loop.time()
        # It runs again even if an exception ends this; else `_flush` replaces it.
        self._arm(now + limits.CALLBACK_AGAIN_S)
        self._prober.handle_timer(now)
        self._answered.set()  # a round without an answer is one, too
        self._flush()

    def _flush(self) -> None:
        """Send what is due, tell of what has changed, and arm the timer."""
        for to, report in self._prober.drain_reports():
            self._gossip.node.send_to(to, report)
            self._gossip.transport.flush_soon()
        for frame in self._prober.drain_frames():
            self._send(frame)
        for before, after in self._prober.drain_changes():
            self._tell(before, after)
        self._arm(self._prober.next_timer())

    def _arm(self, due: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if due is None else self._event_loop.call_at(due, self._run_timers)

    def _send(self, frame: ProbeFrame) -> None:
        network = self._directory.network_by_vni(frame.vni)
        card = self._directory.card(frame.to)
        if network is None or card is None:
            return
        own, to, size, sender = self._gossip.card.address, card.address, frame.size, self._sender
        if self._directory.view.sends_encrypted(network):
            size = max(0, size - wireguard_overhead(own))
            own, to = self._encryption.address, self._encryption.address_of(frame.to)
            sender = self._inner_sender
        padding = path_probe.padding_size_of(network, size, to)
        packet = path_probe.encode_path_probe(
            network,
            self._gossip.node_id,
            frame.to,
            frame.key,
            frame.sequence,
            padding,
            is_bare=frame.is_bare,
        )
        sender.send(own, to, self._gossip.cluster.vxlan_port, packet, is_bare=frame.is_bare)

    def _tell(self, before: PathView, after: PathView) -> None:
        name = self._directory.node_name(after.node_id)
        for text, is_good in texts.path_events(before, after, name):
            level = logging.INFO if is_good else logging.WARNING
            self._event_log.record("path", text, level=level, peer=name)
        if before.size_carried != after.size_carried:
            self.size_changed.emit()

    def close(self) -> None:
        """Stop probing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._receivers.close()
        self._sender.close()
        self._inner_sender.close()
