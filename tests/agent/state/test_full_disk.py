"""A disk that takes nothing more: what comes from peers meanwhile is put off, not stumbled over."""

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
    """Let no file of this process grow beyond what the state's log has (setrlimit(2))."""
    size = state.path.with_name(f"{state.path.name}-wal").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def uncaught() -> list[dict[str, Any]]:
    """Return where the loop notes, from now on, what nobody caught."""
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    return found


async def test_who_comes_in_is_put_off(sites: Sites) -> None:
    """Nobody is let in without its admission on disk; who asks again later gets in."""
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


async def test_a_card_that_peers_have_newer_is_renewed_once_there_is_room(sites: Sites) -> None:
    """A rolled-back disk that is full, too: peers say it again, and then it counts."""
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


async def test_a_member_that_has_ended_writes_nothing_later(
    sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the disk refused at the end is not tried again: it may have a new membership by then."""
    vm1 = sites.first()
    vm2 = await sites.join(2, vm1, vm1.admission.default_token())
    # So that what is too large for it is not for the other.
    vm2.state.commit([Row.of("filler", "", "x" * 500_000)])
    loop = asyncio.get_running_loop()
    timers: list[asyncio.TimerHandle] = []
    call_later = loop.call_later

    def noted(delay: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        timers.append(call_later(delay, callback, *args))
        return timers[-1]

    monkeypatch.setattr(loop, "call_later", noted)
    with full(vm2.state):
        token = vm1.admission.create(label="new", expires_in_s=None, uses=None)
        await until(lambda: vm2.admission.invitation(token.token_id) is not None)
        sites.close(vm2)
        assert vm2.state.fault

    waiting = [each for each in timers if not each.cancelled() and each.when() > loop.time()]
    assert [each for each in waiting if "GossipService._save" in repr(each)] == []
