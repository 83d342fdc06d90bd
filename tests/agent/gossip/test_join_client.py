"""Join attempts from several addresses, and the peer that they succeed by, on loopback."""

from __future__ import annotations

import os
import socket
import time

import pytest
from overlay import limits
from overlay.agent.gossip.join_client import JoinAttempt, run_attempts
from overlay.agent.gossip.join_request import JoinSeed
from overlay.errors import ConflictError, ForbiddenError, TimedOutError
from overlay.model import ip_text, parse_ip
from overlay.wire.codec.datagram import UdpEndpoint
from overlay.wire.handshake.cookies import CookieJar, receiver_key
from overlay.wire.identity.identity import Identity
from overlay.wire.identity.token import Token
from tests.agent.conftest import Sites, until


def attempt(
    token: Token, address: str, *seeds: JoinSeed, identity: Identity | None = None
) -> JoinAttempt:
    """Return an attempt of a new host."""
    own = Identity.generate(os.urandom) if identity is None else identity
    return JoinAttempt(own, token, "vm9", parse_ip(address), seeds)


def silent(sites: Sites) -> JoinSeed:
    """Return a peer that never answers."""
    return JoinSeed("silent", parse_ip("127.0.0.99"), sites.port)


async def test_the_named_peer_that_answers_is_joined_by(sites: Sites) -> None:
    """A silent peer named first is not the one; neither is a holder that nobody named."""
    vm1 = sites.first()
    token = vm1.admission.default_token()
    vm2 = await sites.join(2, vm1, token)

    async def via(*seeds: JoinSeed) -> JoinSeed:
        return (await attempt(token, "127.0.0.9", *seeds).run(5.0)).via

    assert await via(silent(sites), vm1.seed) == vm1.seed
    assert await via(silent(sites), vm2.seed) == vm2.seed
    assert await via(vm2.seed, vm1.seed) == vm1.seed, "the holder that admitted it"


async def test_the_attempt_that_is_answered_decides_the_address(sites: Sites) -> None:
    """An address from which no peer answers does not delay the other one."""
    vm1 = sites.first()
    token = vm1.admission.default_token()
    own = Identity.generate(os.urandom)
    dead = attempt(token, "127.0.0.8", silent(sites), identity=own)
    live = attempt(token, "127.0.0.9", vm1.seed, identity=own)
    result = await run_attempts([dead, live], [silent(sites), vm1.seed])

    assert ip_text(result.address) == "127.0.0.9"
    assert result.via == vm1.seed
    for address in ("127.0.0.8", "127.0.0.9"):  # both sockets are closed
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
            found.bind((address, sites.port))


async def test_a_host_joins_through_a_flood_by_a_cookie(
    sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strangers who know the cluster's id use up unproven handshakes; a member still gets in."""
    monkeypatch.setattr(limits, "HANDSHAKES_UNPROVEN_PER_S", 0.0)  # as if used up all the time
    vm1 = sites.first()
    token = vm1.admission.default_token()
    sessions, now = vm1.gossip.transport.sessions, vm1.gossip.transport.now
    place = UdpEndpoint(vm1.seed.address, vm1.seed.port)
    junk = CookieJar().protect(place, receiver_key(token.cluster_id), bytes(300), now())
    while not sessions.admit(junk, UdpEndpoint(parse_ip("192.0.2.1"), 9), now())[1]:
        pass

    applicant = attempt(token, "127.0.0.9", vm1.seed)
    result = await applicant.run(5.0)
    assert result.via == vm1.seed
    assert applicant._jar.has_cookie(place, now())


async def test_a_refusal_ends_all_attempts(sites: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is not hidden by the silence of another peer."""
    monkeypatch.setattr(limits, "JOIN_TIMEOUT_S", 3600.0)
    vm1 = sites.first()
    token = vm1.admission.create(label="", expires_in_s=None, uses=None)
    vm1.admission.revoke(token.token_id.hex())
    attempts = [
        attempt(token, "127.0.0.8", silent(sites)),
        attempt(token, "127.0.0.9", vm1.seed),
    ]

    with pytest.raises(ForbiddenError, match="revoked"):
        await run_attempts(attempts, [silent(sites), vm1.seed])
    own = Identity.generate(os.urandom)
    valid = vm1.admission.default_token()
    attempts = [
        attempt(valid, "127.0.0.8", silent(sites)),
        JoinAttempt(own, valid, "vm1", parse_ip("127.0.0.9"), [vm1.seed]),
    ]
    with pytest.raises(ConflictError, match="is named vm1"):
        await run_attempts(attempts, [silent(sites), vm1.seed])


async def test_attempts_that_all_fail_report_the_most_telling(
    sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer without a holder is told before silence; silence names every peer."""
    monkeypatch.setattr(limits, "JOIN_TIMEOUT_S", 1.0)
    vm1 = sites.first()
    token = vm1.admission.default_token()
    vm2 = await sites.join(2, vm1, token)
    await until(lambda: vm2.admission.invitation(token.token_id) is not None)
    sites.close(vm1)
    seeds = [silent(sites), vm2.seed]

    attempts = [
        attempt(token, "127.0.0.8", seeds[0]),
        attempt(token, "127.0.0.9", seeds[1]),
    ]
    with pytest.raises(ConflictError, match="vm2 answered"):
        await run_attempts(attempts, seeds)
    other = JoinSeed("other", parse_ip("127.0.0.98"), sites.port)
    attempts = [
        attempt(token, "127.0.0.8", seeds[0]),
        attempt(token, "127.0.0.9", other),
    ]
    with pytest.raises(TimedOutError, match=r"127\.0\.0\.99.*127\.0\.0\.98"):
        await run_attempts(attempts, [seeds[0], other])


async def test_a_name_that_a_living_node_has_is_refused(sites: Sites) -> None:
    """The token is not used up; the holder's event names the node that has it."""
    vm1 = sites.first()
    token = vm1.admission.create(label="", expires_in_s=None, uses=1)
    await sites.join(2, vm1, vm1.admission.default_token())

    for taken in ("vm1", "VM2"):
        own = Identity.generate(os.urandom)
        asking = JoinAttempt(own, token, taken, parse_ip("127.0.0.9"), [vm1.seed])
        with pytest.raises(ConflictError, match=f"is named {taken}") as caught:
            await asking.run(5.0)
        assert f"--name {taken}-2" in caught.value.hint
    assert vm1.admission.records().admitted.get(token.token_id, set()) == set()
    told = [event["text"] for event in vm1.event_log.since(0.0) if event["kind"] == "admit"]
    assert "refused VM2" in told[-1]
    assert "127.0.0.2" in told[-1]
    await attempt(token, "127.0.0.9", vm1.seed).run(5.0)


async def test_a_host_without_its_state_gets_its_name_again(sites: Sites) -> None:
    """A living node at the applicant's own address was the applicant."""
    vm1 = sites.first()
    token = vm1.admission.default_token()
    vm2 = await sites.join(2, vm1, token)
    sites.close(vm2)
    own = Identity.generate(os.urandom)

    again = JoinAttempt(own, token, "vm2", parse_ip("127.0.0.2"), [vm1.seed])
    assert (await again.run(5.0)).via == vm1.seed


@pytest.mark.parametrize("days", [-2, -400])
async def test_a_clock_behind_is_told_and_uses_up_no_token(
    sites: Sites, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    """The handshake ends at once; with the clock set right, the same token admits the host."""
    vm1 = sites.first()
    token = vm1.admission.create(label="", expires_in_s=None, uses=1)
    with monkeypatch.context() as patched:
        now_s = time.time() + days * 86_400
        patched.setattr(time, "time", lambda: now_s)
        asking = attempt(token, "127.0.0.9", vm1.seed)

    with pytest.raises(ConflictError, match=rf"clock is at least {-days} days behind"):
        await asking.run(3600.0)
    assert vm1.admission.records().admitted.get(token.token_id, set()) == set()
    assert (await attempt(token, "127.0.0.9", vm1.seed).run(5.0)).via == vm1.seed


async def test_a_clock_behind_is_told_also_by_an_old_holder(sites: Sites) -> None:
    """A holder certified before the applicant's time grants, and its grant tells the time."""
    vm1 = sites.first()
    vm1.now_s += 5 * 86_400
    token = vm1.admission.default_token()

    with pytest.raises(ConflictError, match="clock is at least 5 days behind"):
        await attempt(token, "127.0.0.9", vm1.seed).run(5.0)


async def test_a_member_is_known_by_its_address_until_it_leaves(sites: Sites) -> None:
    """An address of no member, and that of one that has left, are those of strangers."""
    vm1 = sites.first()
    vm2 = await sites.join(2, vm1, vm1.admission.default_token())
    at_vm2 = {(vm2.seed.address, vm2.seed.port)}

    assert await vm1.gossip.wait_member(at_vm2, 0.0)
    assert not await vm1.gossip.wait_member({(silent(sites).address, sites.port)}, 0.05)
    await vm2.gossip.say_goodbye()
    await until(lambda: vm1.gossip.node.store.cards[vm2.gossip.node_id].left)
    assert not await vm1.gossip.wait_member(at_vm2, 0.05)
