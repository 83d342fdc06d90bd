"""One pass over the shadow: make it, announce what is here, read what others announce.

All of it runs in the kernel thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from overlay.core.dataplane.state import SandboxState
from overlay.core.evpn.announcement import OwnRow, change
from overlay.core.fabric import NO_FABRIC, FabricRows
from overlay.errors import NotFoundError
from overlay.kernel.evpn import frr, process, sessions, supervisor
from overlay.kernel.evpn.sessions import Connections
from overlay.kernel.evpn.shadow import Shadow
from overlay.kernel.evpn.supervisor import FrrPlan
from overlay.kernel.sandbox.sandbox import Sandbox
from overlay.model import Ip, Vni


@dataclass(frozen=True, slots=True)
class ShadowWish:
    """The desired state of the shadow."""

    vnis: frozenset[Vni]
    local: Ip
    port: int  # UDP, of VXLAN
    own: Mapping[OwnRow, bytes]  # the rows to announce, each with its endpoint
    config: str  # bgpd's


@dataclass(frozen=True, slots=True)
class ShadowReading:
    """The actual state of the shadow."""

    announced: int = 0  # rows of this host
    yielded: tuple[OwnRow, ...] = ()  # rows of this host that the fabric has elsewhere
    fabric: FabricRows = NO_FABRIC
    connections: Connections = field(default_factory=dict)
    processes: tuple[int, ...] | None = None
    is_supervised: bool = False


class ShadowKeeper:
    """The shadow of one agent, open from the first pass on."""

    def __init__(self, name: str, state_dir: Path, run_dir: Path) -> None:
        self.name = name
        self._state_dir = state_dir
        self._run_dir = run_dir
        self._shadow: Shadow | None = None
        self._applied: tuple[frozenset[Vni], Ip, int] | None = None
        self._announced: dict[OwnRow, bytes] | None = None  # None: not known after a start

    def fileno(self) -> int | None:
        """Return a descriptor that becomes readable when rows change."""
        return None if self._shadow is None else self._shadow.fileno()

    def reread(self) -> None:
        """Have the next pass check all devices and rows."""
        self._applied = None
        if self._shadow is not None:
            self._shadow.mark_stale()

    def peek(self) -> FabricRows:
        """Return what FRR has written already, without changing anything; for a start."""
        try:
            shadow = Shadow.open(self.name, create=False)
        except NotFoundError:
            return NO_FABRIC
        try:
            return shadow.read_devices().fabric()
        finally:
            shadow.close()

    def run(self, wish: ShadowWish) -> ShadowReading:
        """Run one pass. Raises OverlayError, OSError."""
        shadow = self._ready_shadow(wish)
        found = shadow.read()
        if self._announced is None:  # what is here now was announced by the agent before
            self._announced = dict(wish.own)
        wanted = change(wish.own, found.own(), found.fabric(), self._announced)
        if wanted.puts or wanted.deletions:
            shadow.put(wanted.puts)
            shadow.delete(wanted.deletions)
            found = shadow.read()
        self._announced = dict(wish.own)
        supervisor.write_plan(self._run_dir, FrrPlan(self.name, wish.config))
        is_supervised = supervisor.is_running(self._run_dir)
        if not is_supervised and process.uses_unit():
            frr.require_programs()
            process.ensure_supervisor(self._state_dir, self._run_dir)
            is_supervised = True
        # After the rows: a connection is gone before FRR removes its rows.
        return ShadowReading(
            len(found.own()),
            wanted.yielded,
            found.fabric(),
            sessions.connections(),
            frr.processes(self.name),
            is_supervised,
        )

    def _ready_shadow(self, wish: ShadowWish) -> Shadow:
        if self._shadow is not None and not self._shadow.is_named():
            self._shadow.close()
            self._shadow = None
        if self._shadow is None:
            self._shadow, self._applied = Shadow.open(self.name, create=True), None
        applied = (wish.vnis, wish.local, wish.port)
        if self._applied != applied:
            if self._applied is None or self._applied[1] != wish.local:
                self._shadow.prepare(wish.local)
            self._shadow.use_segments(*applied)
            self._applied = applied
        return self._shadow

    def remove(self) -> None:
        """Remove the shadow, with which FRR's processes end. Raises OverlayError, OSError."""
        supervisor.delete_plan(self._run_dir)
        shadow, self._shadow, self._applied = self._shadow, None, None
        self._announced = None
        try:
            shadow = shadow or Shadow.open(self.name, create=False)
        except NotFoundError:
            return
        shadow.destroy()

    def close(self) -> None:
        """Close the sockets; the shadow stays, and FRR runs on."""
        if self._shadow is not None:
            self._shadow.close()
            self._shadow = None


def read_sandbox(name: str) -> SandboxState:
    """Return what a sandbox has now; nothing if there is none. Raises OverlayError, OSError."""
    try:
        sandbox = Sandbox.open(name, create=False)
    except NotFoundError:
        return SandboxState()
    try:
        return sandbox.read()
    finally:
        sandbox.close()
