"""A simulated kernel: a host's sandboxes and their containers.

Owns: the kernel state, across crashes of the agent. It is stricter than the real kernel, to expose
careless operations: adding something twice, changing something that differs from the expected
state, and deleting something that is gone are refused.
Does not: know records, plans or peers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from overlay.core.dataplane.link_state import Bridge, Link, Port, Vxlan
from overlay.core.dataplane.operations import (
    ChangeLink,
    DeleteLink,
    DeleteRow,
    Operation,
    PutLink,
    PutRow,
    RowKey,
    row_key,
)
from overlay.core.dataplane.state import Row, SandboxState
from overlay.model import Endpoint, Mac, Vni


class KernelRefusedError(Exception):
    """The kernel refuses an operation, or it should not have been tried."""


@dataclass(frozen=True, slots=True)
class Container:
    """One container's interface: the reality that records only describe."""

    endpoint: Endpoint
    port: str
    subnet_index: int


@dataclass(slots=True)
class Sandbox:
    """One network's namespace on one host."""

    links: dict[str, Link] = field(default_factory=dict)
    rows: dict[RowKey, Row] = field(default_factory=dict)

    def state(self) -> SandboxState:
        """Return what a dump of the namespace shows."""
        return SandboxState(dict(self.links), frozenset(self.rows.values()))


class Kernel:
    """All sandboxes of one host; they survive a crash of the agent."""

    __slots__ = ("containers", "failing", "operation_count", "sandboxes")

    def __init__(self) -> None:
        self.sandboxes: dict[Vni, Sandbox] = {}
        self.containers: dict[bytes, Container] = {}
        self.operation_count = 0
        self.failing = False  # every operation fails, as if out of memory

    def open(self, vni: Vni) -> None:
        """Create a network's namespace if it does not exist."""
        self.sandboxes.setdefault(vni, Sandbox())

    def read(self, vni: Vni) -> SandboxState | None:
        """Return the state of a network's sandbox; None if there is none."""
        sandbox = self.sandboxes.get(vni)
        return None if sandbox is None else sandbox.state()

    def apply(
        self, vni: Vni, operations: Sequence[Operation], stop_after: int | None = None
    ) -> bool:
        """Apply operations to a sandbox; return whether all were applied.

        `stop_after` limits their number, as a kill -9 would. Raises KernelRefusedError.
        """
        sandbox = self.sandboxes[vni]
        for index, operation in enumerate(operations):
            if self.failing or index == stop_after:
                return False
            self._apply_one(sandbox, operation)
            self.operation_count += 1
        return True

    def _apply_one(self, sandbox: Sandbox, operation: Operation) -> None:
        links, rows = sandbox.links, sandbox.rows
        match operation:
            case PutRow(row):
                if row.link not in links:
                    raise KernelRefusedError(f"{operation}: no such device")
                key = row_key(row)
                if rows.get(key) == row:
                    raise KernelRefusedError(f"{operation}: the row already exists")
                rows[key] = row
            case DeleteRow(row):
                key = row_key(row)
                if rows.get(key) != row:
                    raise KernelRefusedError(f"{operation}: there is no such row")
                del rows[key]
            case PutLink(link):
                if link.name in links:
                    raise KernelRefusedError(f"{operation}: file exists")
                if isinstance(link, Port):
                    raise KernelRefusedError(f"{operation}: only an attach creates a port")
                self._check_master(sandbox, link, operation)
                links[link.name] = link
            case ChangeLink(before, after):
                if links.get(before.name) != before or before.name != after.name:
                    raise KernelRefusedError(f"{operation}: the link is {links.get(before.name)}")
                self._check_master(sandbox, after, operation)
                links[after.name] = after
            case DeleteLink(link):
                if link.name not in links:
                    raise KernelRefusedError(f"{operation}: no such device")
                self.delete_link(sandbox, link.name)

    @staticmethod
    def _check_master(sandbox: Sandbox, link: Link, operation: Operation) -> None:
        if not isinstance(link, Vxlan | Port):
            return
        if not isinstance(sandbox.links.get(link.master), Bridge):
            raise KernelRefusedError(f"{operation}: no bridge {link.master!r}")

    def delete_link(self, sandbox: Sandbox, name: str) -> None:
        """Delete a link, its rows, and its ports' master, as the kernel does."""
        del sandbox.links[name]
        for key in [key for key in sandbox.rows if key[1] == name]:
            del sandbox.rows[key]
        for other in list(sandbox.links.values()):
            if isinstance(other, Vxlan | Port) and other.master == name:
                sandbox.links[other.name] = other._replace(master="")

    # --- attach and detach ---------------------------------------------------------------

    def plug(self, container: Container, port: Port) -> None:
        """Create a container's veth pair, with a port in the sandbox.

        Raises KernelRefusedError.
        """
        vni = container.endpoint.vni
        sandbox = self.sandboxes.get(vni)
        if sandbox is None or port.master not in sandbox.links:
            raise KernelRefusedError(f"no sandbox of VNI {vni} with a bridge {port.master}")
        if port.name in sandbox.links:
            raise KernelRefusedError(f"{port.name}: file exists")
        sandbox.links[port.name] = port
        self.containers[container.endpoint.endpoint_id] = container

    def unplug(self, endpoint_id: bytes) -> None:
        """Delete a container's veth pair; succeeds if it is already gone."""
        container = self.containers.pop(endpoint_id, None)
        if container is None:
            return
        sandbox = self.sandboxes.get(container.endpoint.vni)
        if sandbox is not None and container.port in sandbox.links:
            self.delete_link(sandbox, container.port)

    def remove_sandbox(self, vni: Vni) -> None:
        """Delete a network's namespace and everything in it."""
        self.sandboxes.pop(vni, None)
        for endpoint_id, container in list(self.containers.items()):
            if container.endpoint.vni == vni:
                del self.containers[endpoint_id]

    def lose_all(self) -> None:
        """Lose power: all sandboxes and containers are gone."""
        self.sandboxes.clear()
        self.containers.clear()

    def container_behind(self, vni: Vni, bridge: str, mac: Mac) -> Container | None:
        """Return the container with that MAC on a port of `bridge`."""
        sandbox = self.sandboxes.get(vni)
        if sandbox is None:
            return None
        for container in self.containers.values():
            if container.endpoint.vni == vni and container.endpoint.mac == mac:
                port = sandbox.links.get(container.port)
                if isinstance(port, Port) and port.master == bridge:
                    return container
        return None
