"""Containers' ports on the bridges of sandboxes, made and removed beside the passes.

Owns: what a pass over the same sandbox must not see half of. Must not know: records: what it is
given is durable already, or forgotten already.
"""

from __future__ import annotations

from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.process.kernel_thread import KernelThread
from overlay.agent.records.directory import Directory
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.documents import Attachment
from overlay.core.dataplane.operations import DeleteRow
from overlay.core.dataplane.planner import bridge_name, segment_of
from overlay.core.dataplane.port_policy import guard_row, port_rows
from overlay.core.dataplane.rate_limits import rate_row
from overlay.core.dataplane.state import Row
from overlay.kernel.sandbox import veth
from overlay.kernel.sandbox.sandbox import Sandbox
from overlay.model import Endpoint, Network, Vni


class BridgePorts:
    """The ports of this node's endpoints."""

    def __init__(
        self,
        directory: Directory,
        reconciler: Reconciler,
        kernel: KernelThread,
        attachments: Attachments,
    ) -> None:
        self._directory = directory
        self._reconciler = reconciler
        self._kernel = kernel
        self._attachments = attachments

    async def connect(
        self, network: Network, endpoint: Endpoint, attachment: Attachment, descriptor: int
    ) -> Attachment:
        """Make the pair of port and container's end; return the attachment as it is then."""
        runtime = self._reconciler.runtime(network.vni)
        assert runtime is not None, "attach opened the sandbox"
        subnet = network.subnets[attachment.subnet_index]
        used = [next(s for s in network.subnets if ip in s) for ip in endpoint.ips]
        prefixes = {ip: s.prefix_length for ip, s in zip(endpoint.ips, used, strict=True)}
        # A pass that was planned without this port must not read the kernel with it.
        async with self._reconciler.lock(network.vni):
            runtime.reconnected.add(attachment.port)
            attached = await self._kernel.call(
                veth.attach_interface,
                runtime.sandbox,
                port_name=attachment.port,
                bridge=bridge_name(network, attachment.subnet_index),
                netns_fd=descriptor,
                ifname=attachment.ifname or None,
                mac=endpoint.mac,
                addresses=sorted(prefixes.items(), key=lambda pair: len(pair[0])),
                mtu=self._reconciler.mtu_of(network),
                gateway=subnet.gateway if attachment.gateway else None,
                further_gateways=[s.gateway for s in used if s is not subnet],
                allowed=guard_row(network, attachment.port, endpoint),
            )
            return self._attachments.mark_connected(attachment, attached.ifname)

    async def disconnect(self, attachment: Attachment, endpoint: Endpoint | None) -> None:
        """Remove an endpoint's port; before it, what leads there on the fast path."""
        vni = Vni(attachment.vni)
        runtime, network = self._reconciler.runtime(vni), self._directory.network_by_vni(vni)
        if runtime is None:
            return
        # From now on the plan is without it; the passes until it is gone leave it to us.
        runtime.removing.leaving.add(attachment.port)
        runtime.reconnected.add(attachment.port)
        try:
            async with self._reconciler.lock(vni):  # a pass under way still puts what it planned
                runtime.reconnected.add(attachment.port)
                if network and endpoint:
                    rows = _rows_of(runtime.sandbox, network, attachment, endpoint)
                    await self._kernel.call(runtime.sandbox.apply, [DeleteRow(r) for r in rows])
            was_there = await runtime.removing.remove(attachment.port)
        finally:
            runtime.removing.leaving.discard(attachment.port)
        if endpoint is None or not was_there:
            # What led to it may be left, under the number of its interface.
            self._reconciler.mark_stale(vni)


def _rows_of(
    sandbox: Sandbox, network: Network, attachment: Attachment, endpoint: Endpoint
) -> list[Row]:
    """Return what names a port by its number, which outlives the port."""
    found: list[Row] = [guard_row(network, attachment.port, endpoint)]
    rate = rate_row(attachment.port, endpoint)
    if rate is not None:
        found.append(rate)
    if sandbox.fast_path is not None:
        segment = segment_of(network, attachment.subnet_index)
        found += port_rows(segment, attachment.port, endpoint)
    return found
