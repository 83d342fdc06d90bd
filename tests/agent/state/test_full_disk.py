"""A full disk delays the writes of records from peers; it causes no uncaught error."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from overlay.agent.gossip.join_client import JoinAttempt
from overlay.agent.state.database import Row, StateDatabase
from overlay.core.protocol.messages import Cards
from overlay.errors import OverlayError
from overlay.model import parse_ip
from overlay.wire.identity.identity import Identity
from tests.agent.conftest import Sites, until


@contextlib.contextmanager
def full(state: StateDatabase) -> Iterator[None]:
    """Limit the size of this process's files to that of the WAL file (setrlimit(2))."""
    size = state.path.with_name(f"{state.path.name}-wal").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def uncaught() -> list[dict[str, Any]]:
    """Return the list to which the loop adds errors that nothing caught, from now on."""
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    return found


async def test_a_full_disk_delays_a_join(sites: Sites) -> None:
    """A host is admitted only once its admission is on disk; a later attempt succeeds."""
    vm1 = sites.first()
    token = vm1.admission.default_token()
    faults = uncaught()
    identity = Identity.generate(os.urandom)
    applying = JoinAttempt(identity, token, "vm2", parse_ip("127.0.0.2"), [vm1.seed])
    with full(vm1.state):
        with pytest.raises(OverlayError):
            await applying.run(2.0)
        assert vm1.state.fault
        assert vm1.admission.records().admitted == {}
    await sites.join(2, vm1, token, identity)

    assert faults == []


async def test_an_older_card_is_renewed_once_the_disk_has_room(sites: Sites) -> None:
    """With a disk that is rolled back and full, the card is renewed at a later report."""
    vm1 = sites.first()
    vm2 = await sites.join(2, vm1, vm1.admission.default_token())
    faults = uncaught()
    own = vm2.gossip.card
    newer = vm2.gossip.signer.issue_card(replace(own, epoch=own.epoch + 5))

    def tell() -> bool:
        vm1.gossip.node.send_to(own.node_id, Cards((newer,)))
        vm1.gossip.transport.flush()
        return vm2.gossip.card.epoch > newer.epoch

    with full(vm2.state):
        await until(lambda: tell() or bool(vm2.state.fault))
        assert vm2.gossip.card.epoch == own.epoch
    await until(tell)

    assert faults == []


async def test_a_closed_service_does_not_write_later(
    sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes that fail while closing are not retried: the state may be another membership's."""
    vm1 = sites.first()
    vm2 = await sites.join(2, vm1, vm1.admission.default_token())
    # Leave the WAL file of vm1 smaller, so that only vm2 reaches the limit.
    vm2.state.commit([Row.of("filler", "", "x" * 500_000)])
    loop = asyncio.get_running_loop()
    saves: list[asyncio.TimerHandle] = []
    call_later = loop.call_later

    def recorded(delay: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        timer = call_later(delay, callback, *args)
        if getattr(callback, "__qualname__", "") == "UnsavedRecords._save":
            saves.append(timer)
        return timer

    monkeypatch.setattr(loop, "call_later", recorded)
    with full(vm2.state):
        token = vm1.admission.create(label="new", expires_in_s=None, uses=None)
        await until(lambda: vm2.admission.invitation(token.token_id) is not None)
        sites.close(vm2)
        assert vm2.state.fault

    assert saves, "a write was scheduled"
    assert [each for each in saves if not each.cancelled() and each.when() > loop.time()] == []
