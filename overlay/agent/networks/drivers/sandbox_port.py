"""Containers' ports on the bridges of sandboxes: common to the drivers overlay and bridge.

Owns: making and removing a port while no reconcile pass sees half of it. Does not: read records;
the endpoint it is given is durable, or deleted, already.
"""

from __future__ import annotations

from typing import ClassVar

from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.dataplane.sandbox_runtime import SandboxRuntime
from overlay.agent.gossip.context import NodeContext
from overlay.agent.networks.drivers.endpoint_subnets import subnets_of
from overlay.agent.networks.drivers.port_removals import PortRemovals
from overlay.agent.state.attachments import Attachments, planned
from overlay.agent.state.database import Row as StoredRow
from overlay.agent.state.documents import Attachment
from overlay.core.dataplane.controls.port_controls import control_rows, controls_on
from overlay.core.dataplane.planning.segments import bridge_name, has_subnet, segment_of
from overlay.core.dataplane.planning.vlan_ports import vlan_row
from overlay.core.dataplane.port_security import guard_row, port_rows
from overlay.core.dataplane.rate_limits import rate_row, rates_on
from overlay.core.dataplane.state import HookRow, Row
from overlay.core.vlan.vlans import port_mtu, vlans_of
from overlay.errors import ConflictError
from overlay.kernel.sandbox import veth
from overlay.kernel.sandbox.sandbox import Sandbox
from overlay.model import Endpoint, Mac, Network, Vni, is_isolated


class SandboxPortDriver:
    """Gives each container a veth pair whose other end is a port of a bridge."""

    name: ClassVar[str]
    recreates_forever: ClassVar[bool] = False  # the sandbox is overlayd's own

    def __init__(
        self,
        context: NodeContext,
        reconciler: Reconciler,
        attachments: Attachments,
        removals: PortRemovals,
    ) -> None:
        self._directory = context.directory
        self._kernel = context.kernel
        self._reconciler = reconciler
        self._attachments = attachments
        self._removals = removals

    @staticmethod
    def owns(attachment: Attachment) -> bool:
        """Return whether an attachment is a port: it has no parent interface."""
        return not attachment.parent

    def require_supported(self, mac: Mac | None, rates: tuple[int | None, int | None]) -> None:
        """Accept every option."""

    async def connect(
        self, network: Network, endpoint: Endpoint, attachment: Attachment, descriptor: int
    ) -> Attachment:
        """Make the pair of port and container interface; return the attachment with its name."""
        runtime = self._reconciler.runtime(network.vni)
        assert runtime is not None, "attach opened the sandbox"
        vlans = vlans_of(endpoint)
        if vlans.is_any or is_isolated(network, endpoint):
            _require_guard(runtime, in_vlans=vlans.is_any)
        used = subnets_of(network, endpoint, attachment.subnet_index)
        subnet = network.subnets[attachment.subnet_index]
        prefixes = {ip: s.prefix_length for ip, s in zip(endpoint.ips, used, strict=True)}
        if attachment.runtime_endpoint and not attachment.plugged:
            return await self._offer(network, endpoint, attachment, runtime)
        hooks = self._reconciler.hooks_of(network, planned(attachment), vlans)
        async with runtime.change_ports(attachment.port):
            attached = await self._kernel.call(
                veth.attach_interface,
                runtime.sandbox,
                port_name=attachment.port,
                bridge=bridge_name(network, attachment.subnet_index),
                netns_fd=descriptor,
                container=attachment.target,
                ifname=attachment.ifname or None,
                mac=endpoint.mac,
                addresses=sorted(prefixes.items(), key=lambda pair: len(pair[0])),
                mtu=port_mtu(self._reconciler.mtu_of(network), vlans),
                gateway=subnet.gateway if attachment.gateway else None,
                further_gateways=[s.gateway for s in used if s is not subnet],
                allowed=guard_row(network, attachment.port, endpoint),
                hooks=hooks,
            )
            connected = self._attachments.mark_connected(attachment, attached.ifname)
        is_limited = any(rates_on(network, endpoint)) or any(controls_on(network, endpoint))
        if hooks or is_isolated(network, endpoint) or is_limited:  # before other hosts hear of it
            await self._reconciler.reconcile_network(network.vni)
        return connected

    async def _offer(
        self,
        network: Network,
        endpoint: Endpoint,
        attachment: Attachment,
        runtime: SandboxRuntime,
    ) -> Attachment:
        """Make the pair of a container whose runtime moves and configures its interface."""
        async with runtime.change_ports(attachment.port):
            await self._kernel.call(
                veth.offer_interface,
                runtime.sandbox,
                port_name=attachment.port,
                bridge=bridge_name(network, attachment.subnet_index),
                ifname=attachment.ifname,
                mac=endpoint.mac,
                mtu=port_mtu(self._reconciler.mtu_of(network), vlans_of(endpoint)),
                allowed=guard_row(network, attachment.port, endpoint),
                hooks=self._reconciler.hooks_of(network, planned(attachment), vlans_of(endpoint)),
                runtime_endpoint=attachment.runtime_endpoint,
            )
            connected = self._attachments.mark_connected(attachment, attachment.ifname)
        hooks = self._reconciler.hooks_of(network, planned(connected), vlans_of(endpoint))
        if hooks or is_isolated(network, endpoint):
            await self._reconciler.reconcile_network(network.vni)
        return connected

    def removal_rows(self, attachment: Attachment) -> list[StoredRow]:
        """Return none: a start removes the ports that the state does not name."""
        del attachment
        return []

    async def disconnect(self, attachment: Attachment, endpoint: Endpoint | None) -> None:
        """Remove an endpoint's port and, before it, the rows that forward to it: now or later."""
        vni = Vni(attachment.vni)
        runtime, network = self._reconciler.runtime(vni), self._directory.network_by_vni(vni)
        if runtime is None:
            return
        rows = _rows_of(runtime.sandbox, network, attachment, endpoint)
        was_there = await self._removals.remove(vni, runtime, attachment.port, rows)
        if endpoint is None or not was_there:
            # Rows that forwarded to it may be left, under the number of its interface.
            runtime.mark_stale()

    def faults(self, vni: Vni) -> list[str]:
        """Return what the last pass could not program."""
        runtime = self._reconciler.runtime(vni)
        return [] if runtime is None else runtime.failures


def _require_guard(runtime: SandboxRuntime, *, in_vlans: bool) -> None:
    """Raise ConflictError where nothing would keep a port apart from others."""
    sandbox, what = runtime.sandbox, "put a port into VLANs" if in_vlans else "isolate a port"
    if sandbox.guard is None:
        raise ConflictError(
            f"this host cannot {what}",
            why=f"that needs port security: {sandbox.guard_fault}",
            hint="modprobe nf_tables, and restart the agent; or attach on another host",
        )
    if in_vlans and sandbox.fast_path is None:
        raise ConflictError(
            f"this host cannot {what}",
            why=f"that needs eBPF: {runtime.without_programs}",
            hint="Use a kernel with eBPF, and restart the agent; or attach on another host",
        )


def _rows_of(
    sandbox: Sandbox, network: Network | None, attachment: Attachment, endpoint: Endpoint | None
) -> list[Row]:
    """Return the rows that name a port by its number, which may outlive the port."""
    if network is None or endpoint is None:
        return []
    found: list[Row] = [
        guard_row(network, attachment.port, endpoint),
        *control_rows(attachment.port, controls_on(network, endpoint)),
    ]
    rates = rates_on(network, endpoint)
    rate = rate_row(attachment.port, rates)
    if rate is not None:
        found.append(rate)
    vlans = vlans_of(endpoint)
    if vlans.is_any:
        found.append(vlan_row(attachment.port, vlans))
    if sandbox.fast_path is not None and has_subnet(network, attachment.subnet_index):
        segment = segment_of(network, attachment.subnet_index)
        rows = port_rows(segment, attachment.port, endpoint, rates)
        found += (row for row in rows if not isinstance(row, HookRow))  # goes with the port
    return found
