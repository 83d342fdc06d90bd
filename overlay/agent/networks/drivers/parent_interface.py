"""Containers' macvlan and ipvlan interfaces, on parent interfaces of this host.

Nothing of such an interface is in a namespace of overlayd, and no notification reports its loss:
each is checked in its container every few seconds.

Owns: creating and removing them, and the VLAN interfaces made for them. The intent to remove one
is on disk before its record is deleted.
"""

from __future__ import annotations

import abc
import asyncio
import collections
import contextlib
import logging
from typing import ClassVar

from overlay import limits
from overlay.agent.gossip.context import NodeContext
from overlay.agent.networks.drivers.endpoint_subnets import subnets_of
from overlay.agent.process.controller import Controller
from overlay.agent.state import documents
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.database import Row
from overlay.agent.state.documents import Attachment
from overlay.core.dataplane.network_drivers import driver_of
from overlay.errors import ConflictError, OverlayError, UsageError
from overlay.kernel.host import address_conflict, macvlan
from overlay.kernel.host.macvlan import InterfaceLocation
from overlay.model import Endpoint, Mac, Network, Vni, ip_text, mac_text
from overlay.signals import Signal


class MacvlanPorts(Controller):
    """All such interfaces of this host.

    Signal `interfaces_lost`: the ports whose interface is gone, after each check.
    """

    name = "macvlan interfaces"
    problem = "macvlan and ipvlan interfaces are not checked"
    interval_s = limits.MACVLAN_CHECK_INTERVAL_S

    def __init__(self, context: NodeContext, attachments: Attachments) -> None:
        super().__init__(context.event_log)
        self.interfaces_lost: Signal[[list[str]]] = Signal()
        self.failures: dict[str, tuple[int, str, float]] = {}  # by port: VNI, reason, and when
        self._state = context.gossip.state
        self._directory = context.directory
        self._kernel = context.kernel
        self._attachments = attachments
        self._to_remove = ""  # why an interface could not be removed yet
        self._arriving: collections.Counter[str] = (
            collections.Counter()
        )  # parents of interfaces that are being made

    def _all(self) -> list[Attachment]:
        return [each for each in self._attachments.values() if each.parent]

    # --- connecting ---------------------------------------------------------------------

    async def connect(
        self,
        network: Network,
        endpoint: Endpoint,
        attachment: Attachment,
        descriptor: int,
        mac: Mac | None,
    ) -> Attachment:
        """Create the interface; return the changed attachment.

        Raises OverlayError where the kernel refuses it, and ConflictError where a host on the
        segment has the address.
        """
        kind, parent = driver_of(network), attachment.parent
        used = subnets_of(network, endpoint, attachment.subnet_index)
        wanted = attachment.gateway and not network.internal
        self._arriving[parent] += 1
        try:
            if not attachment.plugged:
                await self._require_free(parent, endpoint)
            attached = await self._kernel.call(
                macvlan.attach_interface,
                kind=kind,
                parent=parent,
                mark=attachment.port,
                netns_fd=descriptor,
                container=attachment.target,
                ifname=attachment.ifname or None,
                mac=mac,
                addresses=[(ip, s.prefix_length) for ip, s in zip(endpoint.ips, used, strict=True)],
                gateways=[subnet.gateway for subnet in used] if wanted else [],
            )
        except OverlayError as error:
            loop = asyncio.get_running_loop()
            self.failures[attachment.port] = (network.vni, str(error), loop.time())
            raise
        finally:
            self._arriving[parent] -= 1
        self.failures.pop(attachment.port, None)
        return self._attachments.mark_connected(attachment, attached.ifname)

    async def _require_free(self, parent: str, endpoint: Endpoint) -> None:
        """Raise ConflictError where another host has an address of the endpoint."""
        await self._kernel.call(macvlan.ensure_parent, parent)
        queries = (
            asyncio.to_thread(address_conflict.address_owner, parent, ip) for ip in endpoint.ips
        )
        for ip, owner in zip(endpoint.ips, await asyncio.gather(*queries), strict=True):
            if owner is not None:
                raise ConflictError(
                    f"{ip_text(ip)} is in use on the segment of {parent}",
                    why=f"{mac_text(owner)} answers for it" if any(owner) else "this host has it",
                    hint="Attach again for another address. Reserve a range for the network that "
                    "nothing else assigns: --ip-range, --aux-address",
                )

    def removal_row(self, attachment: Attachment) -> Row:
        """Return the row that says that an interface must go; commit it with the withdrawal."""
        return documents.INTERFACE_REMOVALS.row(_place(attachment))

    async def disconnect(self, attachment: Attachment) -> None:
        """Remove the interface, and its VLAN with the last one on it."""
        self.failures.pop(attachment.port, None)
        try:
            await self._remove(_place(attachment))
        except (OverlayError, OSError) as error:
            self._to_remove = f"the interface of {attachment.target} is not removed yet: {error}"
            self._event_log.record("kernel", self._to_remove, level=logging.ERROR)

    async def _remove(self, place: InterfaceLocation) -> None:
        await self._kernel.call(macvlan.detach_interface, place)
        await self.release_vlans()
        documents.INTERFACE_REMOVALS.drop(self._state, place.mark)

    async def release_vlans(self) -> None:
        """Remove the VLANs that were made for interfaces or plugs, and that none uses."""
        in_use = {attachment.parent for attachment in self._all()} | set(+self._arriving)
        in_use |= {plug.interface for plug in documents.PLUGS.load(self._state)}
        for name in await self._kernel.call(macvlan.release_parents, frozenset(in_use)):
            self._event_log.record("vlan", f"removed {name}: no container uses it")

    # --- checking -----------------------------------------------------------------------

    async def start(self) -> None:
        """Finish what a crash interrupted: removals, and half-made interfaces."""
        unfinished = [attachment for attachment in self._all() if not attachment.plugged]
        for attachment in unfinished:
            with contextlib.suppress(
                OverlayError, OSError
            ):  # the next connect finds it by its mark
                await self._kernel.call(macvlan.detach_interface, _place(attachment))
        await self._finish()

    async def _finish(self) -> None:
        """Remove the interfaces that could not be removed before."""
        self._to_remove = ""
        for place in documents.INTERFACE_REMOVALS.load(self._state):
            try:
                await self._remove(place)
            except (OverlayError, OSError) as error:
                self._to_remove = f"an interface is not removed yet: {error}"
        await self.release_vlans()

    async def reconcile(self) -> None:
        """Retry pending removals, then check every interface."""
        if self._to_remove:
            await self._finish()
        await self.check()

    async def check(self) -> list[Attachment]:
        """Return the attachments whose interface is gone, and report those for repair."""
        watched = {attachment.port: attachment for attachment in self._all()}
        places = [_place(attachment) for attachment in watched.values()]
        gone = await self._kernel.call(macvlan.missing_interfaces, places) if places else []
        found = [watched[place.mark] for place in gone]
        # Without those detached meanwhile, and those that failed a moment ago.
        due = {attachment.port for attachment in self._all()} - self._is_backing_off()
        lost = [attachment.port for attachment in found if attachment.port in due]
        self.interfaces_lost.emit(lost)
        return found

    def _is_backing_off(self) -> set[str]:
        since = asyncio.get_running_loop().time() - limits.MACVLAN_RETRY_S
        return {port for port, (_, _, when) in self.failures.items() if when > since}

    def faults_of(self, vni: int) -> list[str]:
        """Return why interfaces of a network cannot be recreated."""
        return [text for at, text, _ in self.failures.values() if at == vni]

    async def differences(self) -> list[tuple[str, str]]:
        """Return what is gone, as pairs of network name and description."""
        found = []
        for attachment in await self.check():
            network = self._directory.network_by_vni(attachment.vni)
            name = f"vni {attachment.vni}" if network is None else network.name
            found.append((name, f"{attachment.ifname} of {attachment.target} is gone"))
        return found


def _place(attachment: Attachment) -> InterfaceLocation:
    return InterfaceLocation(attachment.netns_path, attachment.netns_identity, attachment.port)


class ParentInterfaceDriver(abc.ABC):
    """Gives each container a device on a parent interface: common to macvlan and ipvlan."""

    name: ClassVar[str]
    recreates_forever: ClassVar[bool] = True  # the parent may come back at any time

    def __init__(self, ports: MacvlanPorts) -> None:
        self._ports = ports

    @staticmethod
    def owns(attachment: Attachment) -> bool:
        """Return whether an attachment's interface is on a parent."""
        return bool(attachment.parent)

    def require_supported(self, mac: Mac | None, rates: tuple[int | None, int | None]) -> None:
        """Raise UsageError for a rate."""
        del mac  # any will do
        if any(rates):
            raise UsageError(
                f"a rate is not supported by driver {self.name}",
                why="the frames of its containers pass no queue of overlayd",
                hint="Networks of the drivers overlay and bridge have rates",
                field="rate_in" if rates[0] else "rate_out",
            )

    @abc.abstractmethod
    def mac_of(self, endpoint: Endpoint) -> Mac | None:
        """Return the MAC to give the interface; None for that of its parent."""

    async def connect(
        self, network: Network, endpoint: Endpoint, attachment: Attachment, descriptor: int
    ) -> Attachment:
        """Make the interface; return the attachment with its name."""
        mac = self.mac_of(endpoint)
        return await self._ports.connect(network, endpoint, attachment, descriptor, mac)

    def removal_rows(self, attachment: Attachment) -> list[Row]:
        """Return where the interface is: a start would not find it otherwise."""
        return [self._ports.removal_row(attachment)]

    async def disconnect(self, attachment: Attachment, endpoint: Endpoint | None) -> None:
        """Remove the interface; no row of overlayd names it."""
        del endpoint
        await self._ports.disconnect(attachment)

    def faults(self, vni: Vni) -> list[str]:
        """Return why interfaces of a network cannot be made again."""
        return self._ports.faults_of(vni)
