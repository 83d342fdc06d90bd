"""Which networks this host has an end on, and the ends themselves.

Owns: the decision whether a network is exposed here, the host's own endpoint records, their
interfaces, and what the host's rules and sysctls are told of them. A host's end is an endpoint
as a container's is: an address from this node's own space, announced to all, so that a container
anywhere answers it over the overlay without translation. Level-triggered: `settle` makes what is
so into what should be, whatever came before.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from overlay import limits
from overlay.agent import obstacles, stored
from overlay.agent.addresses import Addresses
from overlay.agent.datapath import Datapath
from overlay.agent.directory import Directory
from overlay.agent.hearing import hearing
from overlay.agent.hostrules import HostRules
from overlay.agent.journal import Journal
from overlay.agent.kernelthread import KernelThread
from overlay.agent.member import Member
from overlay.agent.onepass import Runtime
from overlay.agent.stored import Attachment
from overlay.core.drivers import driver_of, has_sandbox
from overlay.core.hostrules import ExposedLink
from overlay.core.plan import host_port_name, segment_count, segment_of
from overlay.core.records import Scope, Segment, key_of
from overlay.errors import ConflictError, OverlayError
from overlay.kernel import forwarding, hostlink
from overlay.kernel.hostlink import HostLink
from overlay.kernel.monitor import UnderlayMonitor
from overlay.model import HOST_LABEL, Endpoint, Network, Vni, ip_text, is_host, mac_for

_RETRY_S = 2.0
_SETTLE_S = 0.05  # a change of several steps is looked at once
_START_WAIT_S = 60.0


class Exposure:
    """The host's ends on networks: the only writer of host endpoint records."""

    def __init__(
        self,
        member: Member,
        directory: Directory,
        addresses: Addresses,
        datapath: Datapath,
        kernel: KernelThread,
        journal: Journal,
        attachments: dict[bytes, Attachment],
        rules: HostRules,
        run_dir: Path,
    ) -> None:
        self.failures: dict[Vni, str] = {}  # of the last settling, for `status`
        self.obstacles: dict[Vni, str] = {}  # why a network is not exposed by itself
        self.take_part: Callable[[Network], Awaitable[list[Segment]]]
        self.give_up: Callable[[Vni], Awaitable[list[Segment]]]
        self.changed: Callable[[], None] = lambda: None  # what is exposed is so no more, or anew
        self._member = member
        self._directory = directory
        self._addresses = addresses
        self._datapath = datapath
        self._kernel = kernel
        self._journal = journal
        self._attachments = attachments
        self._rules = rules
        self._run_dir = run_dir
        self._wishes = stored.load_exposures(member.state)
        self._up: set[Vni] = set()  # as the last settling left them
        self._locks: dict[Vni, asyncio.Lock] = {}
        self._due: set[Vni] = set()
        self._retries: dict[Vni, asyncio.TimerHandle] = {}
        self._wake = asyncio.Event()

    # --- looking ------------------------------------------------------------------------

    def ends(self, vni: Vni) -> list[Endpoint]:
        """Return this host's own endpoints on a network, one per segment; none: not exposed."""
        values = self._member.node.store.values_of(self._member.node_id, Scope(vni), "endpoint")
        return [value for value in values if isinstance(value, Endpoint) and is_host(value)]

    def links(self, network: Network) -> tuple[HostLink, ...]:
        """Return this host's interfaces on a network as they should be."""
        found: dict[int, HostLink] = {}
        for end in self.ends(network.vni):
            lengths = {ip: s.prefix_length for s in network.subnets for ip in end.ips if ip in s}
            segment = _segment(network, end)
            if segment is not None:
                found[segment] = HostLink(
                    name=hostlink.name_of(Vni(network.vni + segment), self._member.node_id),
                    port=host_port_name(segment),
                    bridge=f"br{segment}",
                    mac=end.mac,
                    mtu=self._datapath.mtu_of(network),
                    addresses=tuple((ip, lengths[ip]) for ip in end.ips if ip in lengths),
                )
        return tuple(found[segment] for segment in sorted(found))

    def _all_links(self) -> dict[Vni, tuple[HostLink, ...]]:
        networks = self._directory.view.networks()
        return {vni: self.links(networks[vni]) for vni in sorted(self._up) if vni in networks}

    def keeps(self, vni: Vni) -> bool:
        """Say whether a network was exposed by hand: its sandbox stays without containers."""
        return self._wishes.get(vni) is True

    def wished(self) -> list[Vni]:
        """Return the networks that were exposed by hand."""
        return sorted(vni for vni, wish in self._wishes.items() if wish)

    def _populated(self, vni: Vni) -> bool:
        return any(attachment.vni == vni for attachment in self._attachments.values())

    # --- the verbs ----------------------------------------------------------------------

    async def expose(self, network: Network, *, exposed: bool) -> bool:
        """Give this host an end on a network, or take it away, for good; say if that is new.

        Raises ConflictError where another network or a route of the host stands in the way.
        """
        vni = network.vni
        before = bool(self.ends(vni))
        if exposed and not before:
            await self._require_possible(network)
        with self._member.state.transaction():
            stored.put_exposure(self._member.state, vni, exposed=exposed)
        self._wishes[vni] = exposed
        segments = await self.take_part(network) if exposed else []
        await self.settle(vni)
        self._member.publish(segments)
        if not exposed:
            self._member.publish(await self.give_up(vni))
            self.wake()  # others may have waited for the place
        if vni in self.failures:
            raise OverlayError(
                f"network {network.name} is not {'exposed' if exposed else 'hidden'} yet",
                why=self.failures[vni],
                hint="The agent tries again by itself; see: overlayd status",
            )
        return before != exposed

    async def _require_possible(self, network: Network) -> None:
        self._directory.require_here(network)
        if not has_sandbox(network):
            raise ConflictError(
                f"network {network.name} is on an interface of this host as it is",
                why=f"it is of the kind {driver_of(network)}: its router is the segment's own",
                hint="Ask that router for a way in or out",
            )
        if network.internal:
            raise ConflictError(
                f"network {network.name} is internal",
                why="it was made with --internal: nothing gets in or out",
                hint="Make another network without --internal",
            )
        obstacle = await self._obstacle(network)
        if obstacle is not None:
            raise ConflictError(
                f"network {network.name} cannot be exposed to this host",
                why=obstacle.why,
                hint=obstacle.hint,
            )

    async def _obstacle(self, network: Network) -> obstacles.Obstacle | None:
        others = [n for n in self._directory.networks() if n.vni in self._up | set(self._wishes)]
        exposed = [n for n in others if n.vni != network.vni and self.ends(n.vni)]
        return await self._kernel.call(obstacles.find, network, exposed)

    async def _wanted(self, network: Network) -> bool:
        vni = network.vni
        self.obstacles.pop(vni, None)
        wish = self._wishes.get(vni)
        if wish is not None or network.internal or not self._populated(vni) or self.ends(vni):
            return wish is True or (wish is None and not network.internal and self._populated(vni))
        obstacle = obstacles.too_small(network) or await self._obstacle(network)
        if obstacle is not None:
            self.obstacles[vni] = obstacle.why
        return obstacle is None

    # --- when to look -------------------------------------------------------------------

    async def arrived(self, vni: Vni) -> None:
        """Expose a network that has got its first container here, if nothing is in the way."""
        if vni not in self._up and vni not in self.obstacles:
            await self.settle(vni)

    def wake(self, vni: Vni | None = None) -> None:
        """Say that something about a network (None: about all) may have changed."""
        known = self._up | set(self._wishes) | {Vni(a.vni) for a in self._attachments.values()}
        self._due |= known if vni is None else {vni}
        self._wake.set()

    def networks_changed(self) -> None:
        """Look at networks that exist no more."""
        gone = (self._up | set(self._wishes)) - self._directory.view.networks().keys()
        for vni in gone:
            self.wake(vni)

    async def start(self) -> None:
        """Adopt what this host has: the same interfaces, rules and sysctls as before."""
        for vni, network in sorted(self._directory.view.networks().items()):
            runtime = self._datapath.runtime(vni)
            if runtime is not None and self.ends(vni):
                with contextlib.suppress(OverlayError, OSError):  # `run` tries again, and tells
                    await self._plug(network, runtime)
        with contextlib.suppress(OverlayError, OSError):  # as above
            await self._tell_rules()

    async def run(self, interval_s: float) -> None:
        """Settle what is due, and everything every interval, until cancelled."""
        while not await self._member.wait_may_write(_START_WAIT_S):
            pass
        monitor = await self._kernel.call(UnderlayMonitor)
        self.wake()
        with hearing(monitor, self._wake.set) as listen_again:
            while True:
                try:
                    async with asyncio.timeout(interval_s):
                        await self._wake.wait()
                except TimeoutError:
                    self.wake()
                await asyncio.sleep(_SETTLE_S)
                listen_again()
                self._wake.clear()
                await self._look()

    async def _look(self) -> None:
        """Settle what is due, and what somebody has altered in the host's namespace."""
        due, self._due = self._due, set()
        altered: dict[Vni, list[str]] = {}
        with contextlib.suppress(OverlayError, OSError):  # never held still: the next look sees
            altered = await self._altered()
            due |= self._up if await self._lacking() else set()
        for vni in sorted(due | altered.keys()):
            await self.settle(vni)
        with contextlib.suppress(OverlayError, OSError):  # a settling that needs it fails and tells
            await self._tell_rules()

    async def _altered(self) -> dict[Vni, list[str]]:
        """Return what is wrong with the interfaces in the host's namespace, by network."""
        wanted = self._all_links()
        if not wanted:
            return {}
        everything = [link for links in wanted.values() for link in links]
        found = await self._kernel.call(hostlink.survey, everything)
        altered: dict[Vni, list[str]] = {}
        for vni, links in wanted.items():
            faults = [fault for link in links for fault in hostlink.faults(link, found)]
            if faults:
                altered[vni] = faults
        return altered

    async def _lacking(self) -> list[str]:
        """Return the sysctls that are not as they should be."""
        own, has_ipv6 = self._own()
        if not own:
            return []
        return await self._kernel.call(forwarding.lacking, own, ipv6=has_ipv6)

    def _own(self) -> tuple[set[str], bool]:
        """Return the names of our interfaces, and whether any has IPv6."""
        links = [link for links in self._all_links().values() for link in links]
        has_ipv6 = any(len(ip) == 16 for link in links for ip, _ in link.addresses)
        return {link.name for link in links}, has_ipv6

    async def differences(self) -> list[str]:
        """Return what is wrong in the host's namespace, in words: interfaces and sysctls."""
        altered = await self._altered()
        found = [fault for vni in sorted(altered) for fault in altered[vni]]
        return found + [_readable(f"net/{name} was altered") for name in await self._lacking()]

    async def mend(self) -> None:
        """Look at every network now."""
        self.wake()
        await self._look()

    def why_not(self, network: Network) -> str | None:
        """Return why a network that is not exposed here is not."""
        vni = network.vni
        if network.internal:
            return "it is internal"
        if not has_sandbox(network):
            return f"it is of the kind {driver_of(network)}: on a segment that has its own router"
        if self._wishes.get(vni) is False:
            return "by overlayd unexpose"
        if self._datapath.runtime(vni) is None:
            return "nothing on this host is attached to it"
        return self.failures.get(vni) or self.obstacles.get(vni)

    # --- making it so -------------------------------------------------------------------

    async def settle(self, vni: Vni) -> None:
        """Make one network's ends what they should be; what fails is tried again later."""
        async with self._locks.setdefault(vni, asyncio.Lock()):
            try:
                await self._settle(vni)
            except (OverlayError, OSError) as error:
                text = str(error)
                if self.failures.get(vni) != text:
                    self._journal.record("exposure", text, level=logging.WARNING)
                self.failures[vni] = text
                self._try_again(vni)
            else:
                self.failures.pop(vni, None)
        if vni in self._wishes and self._directory.network_by_vni(vni) is None:
            await self._forget(vni)

    def _try_again(self, vni: Vni) -> None:
        """Settle once more, later; once for however many failures until then."""
        loop = asyncio.get_running_loop()
        if vni not in self._retries or self._retries[vni].when() <= loop.time():
            self._retries[vni] = loop.call_later(_RETRY_S, self.wake, vni)

    async def _settle(self, vni: Vni) -> None:
        network = self._directory.network_by_vni(vni)
        runtime = self._datapath.runtime(vni)
        if network is None or runtime is None or not await self._wanted(network):
            await self._take_away(vni)
            return
        segments = await self._write_ends(network)
        made = await self._plug(network, runtime)
        await self._tell_rules()
        if made or segments:
            await self._datapath.reconcile(vni)  # its way out, before anybody goes there
            self.changed()
        if segments:
            self._member.publish(segments)
            shown = ", ".join(ip_text(ip) for end in self.ends(vni) for ip in end.ips)
            self._journal.record("expose", f"this host is {shown}", network=network.name)

    async def _write_ends(self, network: Network) -> list[Segment]:
        """Make the host's endpoint on each segment durable where there is none."""
        there = {_segment(network, end) for end in self.ends(network.vni)}
        written: list[Segment] = []
        for segment in range(segment_count(network)):
            if segment in there:
                continue
            async with self._addresses.lock(network.vni):
                ips = await self._addresses.allocate_host(network, segment)
                end = Endpoint(
                    endpoint_id=os.urandom(8),
                    vni=network.vni,
                    name=f"host-{self._member.card.name}"[: limits.NAME_LENGTH_MAX].rstrip(".-_"),
                    mac=mac_for(network.vni, ips[0]),
                    ips=ips,
                    labels=(HOST_LABEL,),
                )
                written += self._member.commit(Scope(network.vni), [end])
        return written

    async def _plug(self, network: Network, runtime: Runtime) -> bool:
        """Make or repair the interfaces; say whether anything was to do."""
        links, fresh = self.links(network), network.vni not in self._up
        async with self._datapath.lock(network.vni):
            found = await self._kernel.call(hostlink.survey, links)
            wrong: list[str] = []
            for link in links:
                wrong += await self._kernel.call(hostlink.ensure, runtime.sandbox, link, found)
            if wrong:
                runtime.replugged |= {link.port for link in links}
        self._up.add(network.vni)
        self._rules.set_links(network.vni, [ExposedLink(link.name, link.ranges) for link in links])
        if wrong and not fresh:
            text = f"{'; '.join(wrong)}: put right"
            self._journal.record("repaired", text, level=logging.WARNING, network=network.name)
        return bool(wrong) or fresh

    async def _tell_rules(self) -> None:
        """Bring the host's sysctls and rules up to what is exposed."""
        own, has_ipv6 = self._own()
        if own:
            done = await self._kernel.call(forwarding.enable, self._run_dir, own, ipv6=has_ipv6)
            self._rules.set_opened(done.opened)
            if done.changed:
                self._journal.record("exposure", f"this host forwards now: {_short(done.changed)}")
        await self._rules.apply()

    # --- and taking it back -------------------------------------------------------------

    async def _take_away(self, vni: Vni) -> None:
        """Durable first: an interface without a record goes with the next pass, or start."""
        ends = self.ends(vni)
        if not ends and vni not in self._up:
            return
        self._rules.set_links(vni, ())
        await self._rules.apply()
        self._up.discard(vni)
        segments = self._member.commit(Scope(vni), deletes=[key_of(end) for end in ends])
        for end in ends:
            self._addresses.released(end)
        runtime = self._datapath.runtime(vni)
        if runtime is not None:
            async with self._datapath.lock(vni):
                for number in range(max(1, len(ends))):
                    runtime.replugged.add(host_port_name(number))
                    port = host_port_name(number)
                    await asyncio.to_thread(hostlink.remove, runtime.sandbox, port)
        self._member.publish(segments)
        self._datapath.wake(vni)
        self.changed()

    async def leaving(self, vni: Vni) -> None:
        """Take the ends away before the network's sandbox goes."""
        async with self._locks.setdefault(vni, asyncio.Lock()):
            await self._take_away(vni)

    async def _forget(self, vni: Vni) -> None:
        """End what was wished of a network that exists no more."""
        if self._member.node.caught_up:
            with self._member.state.transaction():
                stored.drop_exposure(self._member.state, vni)
            del self._wishes[vni]
            self._member.publish(await self.give_up(vni))

    async def withdraw_all(self) -> None:
        """Before leaving the cluster: take every end away, and the rules and sysctls of ours."""
        for vni in sorted(self._up | set(self._wishes)):
            self._wishes.pop(vni, None)
            await self.leaving(vni)
            await self.give_up(vni)
        await self._rules.remove()
        await self._kernel.call(forwarding.restore, self._run_dir)


def _segment(network: Network, end: Endpoint) -> int | None:
    for index, subnet in enumerate(network.subnets):
        if end.ips[0] in subnet:
            return segment_of(network, index)
    return None


def _short(names: list[str]) -> str:
    shown = ", ".join(_readable(f"net/{name}") for name in names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def _readable(text: str) -> str:
    """Return a text that any file takes: interfaces of others may have names that are no text."""
    return text.encode("utf-8", "backslashreplace").decode()
