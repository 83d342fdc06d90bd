"""The order in which sysctls and rules change, and what a process before has opened."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast

import pytest
from overlay.agent.exposure import ip_forwarding as tested
from overlay.agent.exposure.host_endpoints import HostEndpoints
from overlay.agent.exposure.ip_forwarding import HostForwarding
from overlay.agent.exposure.rules import HostRules
from overlay.agent.process.event_log import EventLog
from overlay.agent.process.kernel_thread import KernelThread
from overlay.core.dataplane.host_rules import ForwardingInterface
from overlay.kernel.host import ip_forwarding
from overlay.kernel.host.ip_forwarding import Forwarding
from overlay.kernel.host.sysctl_record import SysctlRecord

LEFT = frozenset({ForwardingInterface(2, 4)})
RECORD = SysctlRecord({"ipv4/conf/eth1/forwarding": "0"}, {"eth1": 2})


class Host:
    """A host whose table of before guards an interface, and that is on a network or not."""

    table_name = "overlayd_host_000000"
    routes_localnet = None

    def __init__(self) -> None:
        self.own = {"ovh1"}
        self.opened: frozenset[ForwardingInterface] = frozenset()
        self.calls: list[object] = []
        self.refuses = False

    def names(self) -> tuple[set[str], bool]:
        """Return the uplinks, and whether any has IPv6."""
        return self.own, False

    def set_opened(self, opened: Iterable[ForwardingInterface]) -> None:
        """Set what the table guards."""
        self.opened = frozenset(opened)

    async def apply(self) -> None:
        """Write the table."""
        self.calls.append(("table", self.opened))

    def read_opened(self) -> dict[str, frozenset[ForwardingInterface]]:
        """Read the tables."""
        self.calls.append("read")
        return {self.table_name: LEFT, "overlayd_host_111111": frozenset()}

    def enable(self, *_: object, known: SysctlRecord, guarded: object, **__: object) -> Forwarding:
        """Switch interfaces on."""
        self.calls.append(("on", known, guarded))
        if self.refuses:
            raise OSError(30, "Read-only file system")
        return Forwarding(LEFT, [], RECORD)

    def restore(self, *_: object, known: SysctlRecord, guarded: object) -> list[str]:
        """Switch interfaces off."""
        self.calls.append(("off", known, guarded))
        return []


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    """Return a host."""
    made = Host()
    monkeypatch.setattr(tested, "read_opened", made.read_opened)
    monkeypatch.setattr(ip_forwarding, "enable_forwarding", made.enable)
    monkeypatch.setattr(ip_forwarding, "restore_sysctls", made.restore)
    return made


def run(host: Host, directory: Path, work: Callable[[HostForwarding], object]) -> list[object]:
    """Have an agent do something; return the calls."""

    async def main() -> None:
        thread = KernelThread()
        endpoints, rules = cast("HostEndpoints", host), cast("HostRules", host)
        made = HostForwarding(endpoints, rules, thread, EventLog(directory), directory)
        try:
            await cast("Callable[[HostForwarding], asyncio.Future[None]]", work)(made)
        finally:
            thread.close()

    asyncio.run(main())
    return host.calls


def test_what_the_table_guards_is_recorded_once(host: Host, tmp_path: Path) -> None:
    """From then on the record has it."""

    async def work(made: HostForwarding) -> None:
        await made.apply()
        await made.apply()

    none: frozenset[ForwardingInterface] = frozenset()
    written = ("table", LEFT)
    calls = ["read", ("on", SysctlRecord(), LEFT), written, ("on", RECORD, none), written]
    assert run(host, tmp_path, work) == calls


def test_it_is_guarded_also_if_the_switches_fail(host: Host, tmp_path: Path) -> None:
    """Whoever writes the table meanwhile keeps the guards; the next pass records them."""
    host.refuses = True

    async def work(made: HostForwarding) -> None:
        with pytest.raises(OSError, match="Read-only"):
            await made.apply()
        assert host.opened == LEFT
        host.refuses = False
        await made.apply()

    on = ("on", SysctlRecord(), LEFT)
    assert run(host, tmp_path, work) == ["read", on, on, ("table", LEFT)]


def test_what_a_process_before_opened_is_closed(host: Host, tmp_path: Path) -> None:
    """Where no network needs it any more: sysctls first, then the table."""
    host.own = set()

    async def work(made: HostForwarding) -> None:
        await made.apply()

    calls = ["read", ("off", SysctlRecord(), LEFT), ("table", frozenset())]
    assert run(host, tmp_path, work) == calls
