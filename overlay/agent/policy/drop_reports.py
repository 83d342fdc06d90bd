"""Record an event when a policy that logs begins to deny packets on this host.

Owns: these events. Does not: count; the kernel does.
"""

from __future__ import annotations

import logging

from overlay import limits
from overlay.agent.gossip.context import NodeContext
from overlay.agent.policy.counters import PolicyCount, PolicyCounters
from overlay.agent.policy.decider import PolicyDecider
from overlay.agent.process.controller import Controller
from overlay.agent.records.policy_catalog import PolicyCatalog
from overlay.core.policy.drops import DropStarts, Key
from overlay.kernel.bpf.policy_maps import DeniedPacket
from overlay.model import Ip, Network, ip_text

PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp"}


class DropReports(Controller):
    """Looks for denied packets as long as a policy logs them."""

    name = "reports of denied packets"
    problem = "denied packets cannot be reported"
    level = "warn"
    interval_s = limits.POLICY_REPORT_INTERVAL_S

    def __init__(
        self,
        context: NodeContext,
        counters: PolicyCounters,
        catalog: PolicyCatalog,
        decider: PolicyDecider,
    ) -> None:
        super().__init__(context.event_log)
        self._context = context
        self._counters = counters
        self._catalog = catalog
        self._decider = decider
        self._starts = DropStarts()

    async def reconcile(self) -> None:
        """Record what has begun to be denied since the last pass."""
        counts: dict[Key, int] = {}
        samples: dict[Key, DeniedPacket] = {}
        logged = [policy for policy in self._catalog.all() if policy.log]
        readings = {vni: await self._counters.read(vni) for vni in {each.vni for each in logged}}
        for policy in logged:
            reading = readings[policy.vni]
            if reading is not None:
                key, name = (policy.vni, policy.name), policy.name.lower()
                counts[key] = reading.counts.get(name, PolicyCount()).denied
                for each in reading.denied.get(name, ())[:1]:
                    samples[key] = each
        for vni, name in self._starts.begun(counts, self._context.gossip.transport.now()):
            network = self._context.directory.network_by_vni(vni)
            if network is not None:
                self._record(network, name, samples.get((vni, name)))

    def _record(self, network: Network, name: str, sample: DeniedPacket | None) -> None:
        text = f"policy {name} denies packets"
        if sample is not None:
            source, destination = (
                self._end(network, ip) for ip in (sample.source, sample.destination)
            )
            text += f", such as {source} to {destination}, {port_text(sample)}"
        self._context.event_log.record(
            "policies", text, level=logging.WARNING, network=network.name
        )

    def _end(self, network: Network, ip: Ip) -> str:
        name = self._decider.at(network, ip).name
        return f"{name} ({ip_text(ip)})" if name else ip_text(ip)


def port_text(packet: DeniedPacket) -> str:
    """Return protocol and port as they are typed, such as `25/tcp`, or `protocol 47`."""
    protocol = PROTOCOLS.get(packet.protocol, f"protocol {packet.protocol}")
    return f"{packet.port}/{protocol}" if packet.port else protocol
