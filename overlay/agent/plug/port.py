"""One plug of this host: its port, its guard, and its role.

All methods but the constructor's callers' run in the kernel thread.

Owns: what the kernel is told, and what it says. Does not: know records.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from overlay import limits
from overlay.core.plug.election import Election, Rival
from overlay.core.plug.probe import probe_frame
from overlay.core.plug.records import Machine
from overlay.kernel.netlink import link_decoder, link_requests
from overlay.kernel.netlink.socket import NetlinkError
from overlay.kernel.plug import plug_port, prober
from overlay.kernel.plug.guard import PlugGuard
from overlay.kernel.sandbox.sandbox import Sandbox
from overlay.model import Ip, Mac

_NO_MACHINES: frozenset[Machine] = frozenset()


class PortReading(NamedTuple):
    """The state of a plug in the kernel."""

    is_ready: bool = False  # the port is there, and its interface has a carrier
    heard: frozenset[Mac] = frozenset()  # probes of other plugs
    machines: frozenset[Machine] = _NO_MACHINES


@dataclass(slots=True)
class PlugPortState:
    """A plug as it is now."""

    sandbox: Sandbox
    name: str  # of the port in the sandbox
    guard: PlugGuard
    mac: Mac  # of its probes
    election: Election
    reading: PortReading = field(default_factory=PortReading)
    is_leased: bool = False
    refused: int = 0  # frames from outside, and to it
    cannot_probe: str = ""  # why it sends no probes
    failure: str = ""
    _protected: object = None
    _is_flushed: bool = False  # what is behind a closed port is behind another host's

    def read(self) -> None:
        """Read the kernel, and write the guard again if another program changed it."""
        self.guard.repair()
        index, has_carrier = self._port()
        machines = frozenset(Machine(mac, ip) for mac, ip in self.guard.seen())
        self.refused = self.guard.refused()
        self.reading = PortReading(bool(index) and has_carrier, self.guard.heard(), machines)

    def protect(self, macs: Collection[Mac], ips: Collection[Ip]) -> None:
        """Accept none of these from outside."""
        wanted = (frozenset(macs), frozenset(ips))
        if wanted != self._protected:
            self.guard.protect(*wanted)
            self._protected = wanted

    def set_open(self, *, is_open: bool, is_leased: bool, questions: Sequence[bytes] = ()) -> None:
        """Open the port, for a while if leased, or close it; an open one sends a probe.

        And `questions` for addresses.
        """
        index, _ = self._port()
        if not is_open:
            self.guard.close_port()
            if index and not self._is_flushed:
                self.sandbox.socket.transact([plug_port.forget_learned(index)])
                self._is_flushed = True
            return
        self._is_flushed = False
        self.guard.open_port(int(limits.PLUG_LEASE_S * 1000) if is_leased else 0)
        self.is_leased = is_leased
        try:
            if index:
                frames = [probe_frame(self.mac), *questions]
                prober.send(self.sandbox.netns_fd, index, frames)
            self.cannot_probe = ""
        except OSError as error:
            self.cannot_probe = error.strerror or str(error)

    def as_rival(self, title: str) -> Rival:
        """Return this plug as another one of its host, on another wire, sees it."""
        return Rival(
            title,
            self.mac,
            is_same_segment=False,
            is_active=self.election.is_active,
            is_leased=self.is_leased,
            is_ready=self.reading.is_ready,
            is_live=True,
            term=self.election.term,
        )

    def remove(self) -> None:
        """Let nothing pass from now on, and remove the guard; the port is the reconciler's."""
        with suppress(OSError):
            self.guard.close_port()
        self.guard.remove()

    def close(self) -> None:
        """Close the sockets; the guard stays in force."""
        self.guard.close()

    def _port(self) -> tuple[int, bool]:
        try:
            found = self.sandbox.socket.get(link_requests.get_link(self.name))
        except NetlinkError:
            return 0, False
        link = link_decoder.decode(found[0])
        return link.index, link.carrier
