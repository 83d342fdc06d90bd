"""Counters of packets with wrong checksums: what is remembered, and when it is an error."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay import limits
from overlay.agent.netcheck.checksum_errors import ChecksumErrors
from overlay.kernel.netcheck.counters import ChecksumErrors as Errors

WEB = (4, 17)


class Host:
    """A host with one container, and counters that a test sets."""

    def __init__(self) -> None:
        self.own = Errors()
        self.web: Errors | None = Errors(tcp=100)
        attachment = SimpleNamespace(
            netns_identity=WEB, netns_path="/proc/1/ns/net", target="docker:web", plugged=True
        )
        context = SimpleNamespace(kernel=SimpleNamespace(call=self._call), event_log=None)
        attachments = SimpleNamespace(values=lambda: [attachment])
        self.watch = ChecksumErrors(cast("Any", context), cast("Any", attachments))

    async def _call(self, _function: object, *arguments: object) -> object:
        if not arguments:
            return self.own
        return {} if self.web is None else {WEB: self.web}

    async def read(self) -> list[tuple[str, int]]:
        """Read the counters, and return where errors were counted."""
        await self.watch.reconcile()
        return [(each.where, each.recent) for each in self.watch.errors()]


@pytest.fixture
async def host() -> Host:
    """Return a host."""
    return Host()


async def test_only_new_errors_count(host: Host) -> None:
    """Those before the agent's start, and those of a container before it was attached, do not."""
    assert await host.read() == []
    host.web = Errors(tcp=104)
    host.own = Errors(udp=1)

    assert sorted(await host.read()) == [("docker:web", 4), ("this host", 1)]


async def test_a_few_errors_are_no_fault(host: Host) -> None:
    """Noise on the wire does that; more is a health line, and told to members that ask."""
    await host.read()
    host.own = Errors(udp=limits.CHECKSUM_ERRORS_MIN - 1)
    await host.read()
    assert not list(host.watch.faults())
    assert not host.watch.is_failing()
    host.own = Errors(udp=limits.CHECKSUM_ERRORS_MIN)
    await host.read()

    (fault,) = host.watch.faults()
    assert "this host receives packets with wrong checksums" in fault.text
    assert "ethtool" in fault.hint
    assert host.watch.is_failing()


async def test_a_container_that_is_gone_is_forgotten(host: Host) -> None:
    """Its last readings mean nothing."""
    await host.read()
    host.web = Errors(tcp=109)
    assert await host.read()
    host.watch._attachments = cast("Any", SimpleNamespace(values=list))

    assert await host.read() == []
