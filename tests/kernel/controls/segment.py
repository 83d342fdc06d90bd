"""A segment of two hosts, whose containers send raw frames."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.link_state import Link, Vxlan
from overlay.core.dataplane.port_security import DEFAULT_TARGET_MAC
from overlay.core.dataplane.state import (
    BoundaryRow,
    HookRow,
    Row,
    SandboxState,
    SourceRow,
    TargetRow,
)
from overlay.kernel import netns
from overlay.kernel.bpf.fast_path import FastPath
from overlay.model import mac_for, parse_ip

if TYPE_CHECKING:
    from tests.kernel.conftest import Capture, Host, World

FENCE = 0x88B5  # for local experiments: not IP, and not of a switch


class Segment:
    """Containers .2 and .4 on the first host, .3 on the second."""

    def __init__(self, world: World, *, fast: bool) -> None:
        self.world = world
        self._ports: dict[str, dict[int, str]] = {}
        self.hosts = one, two = world.host("192.168.56.11"), world.host("192.168.56.12")
        for host in self.hosts:
            host.sandbox.fast_path = FastPath() if fast else None
            assert host.converge() == []
        world.pair(one, two)
        self.first, self.second = world.plug(one, two)
        self.fourth = one.attach(parse_ip("10.32.0.4"))
        self.macs = {name: mac_for(one.vni, parse_ip(f"10.32.0.{name}")) for name in (2, 3, 4)}
        two.remotes.append((parse_ip("10.32.0.4"), one.underlay))
        for host, ports in ((one, {2: "p0", 4: "p1"}), (two, {3: "p0"})):
            self.converge(host, ports if fast else {})

    def converge(self, host: Host, ports: dict[int, str]) -> None:
        """Write the boundary's row, and those of the fast path."""
        self._ports[host.name] = ports
        self._write(host, host.desired().links)

    def put(self, *rows: Row) -> None:
        """Give the first host's sandbox these rows; its VXLAN device copies DSCP if there are any.

        A further pass does nothing.
        """
        host = self.hosts[0]
        links = {
            name: link._replace(inherits_dscp=bool(rows)) if isinstance(link, Vxlan) else link
            for name, link in host.desired().links.items()
        }
        self._write(host, links, *rows)

    def _write(self, host: Host, links: dict[str, Link], *rows: Row) -> None:
        kept: set[Row] = self.fast_rows(host) | {BoundaryRow(), *rows}
        desired = SandboxState(links, frozenset({*host.desired().rows, *kept}))
        assert host.sandbox.apply(diff(desired, host.sandbox.read(), prune=True)) == []
        assert diff(desired, host.sandbox.read(), prune=True) == []

    def fast_rows(self, host: Host) -> set[Row]:
        """Return the rows of the fast path on a host, if it has one."""
        rows: set[Row] = set()
        if self._ports[host.name]:
            rows |= {HookRow(0, "vxlan0"), TargetRow(DEFAULT_TARGET_MAC, 0, "vxlan0")}
        for name, port in self._ports[host.name].items():
            mac = self.macs[name]
            rows |= {HookRow(0, port), TargetRow(mac, 0, port)}
            rows.add(SourceRow(parse_ip(f"10.32.0.{name}"), mac, port))
        return rows

    def until(self, watch: Capture, fence: bytes) -> list[bytes]:
        """Return the frames that arrive, up to one that certainly does."""
        seen: list[bytes] = []

        def is_over() -> bool:
            seen.extend(watch.frames())
            return fence in seen

        self.world.wait_until(is_over, "the fence")
        return seen

    def send(self, container: str, *frames: bytes) -> None:
        """Send frames from a container."""
        with (
            netns.inside(self.world.fd(container)),
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw,
        ):
            raw.bind(("eth0", 0))
            for frame in frames:
                raw.send(frame)
