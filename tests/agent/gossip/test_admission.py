"""Tokens, certificates and the authority among real members on loopback."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import os
import time
from pathlib import Path

import pytest
from overlay import limits
from overlay.agent.gossip import admission
from overlay.agent.gossip.join_client import JoinAttempt
from overlay.agent.state import membership_documents
from overlay.agent.state.database import StateDatabase
from overlay.core.events import AuthorityMessage
from overlay.core.protocol.messages import AuthorityHandover, CertificateRenewal
from overlay.core.protocol.records import CLUSTER_SCOPE, Admission, JoinToken, TokenRevocation
from overlay.errors import ConflictError, ForbiddenError, NotFoundError
from overlay.model import NodeId, parse_ip
from overlay.wire.admission.messages import JoinGrant, JoinRefusal, JoinRequest
from overlay.wire.identity.authority import Authority, TrustAnchor
from overlay.wire.identity.identity import Identity
from overlay.wire.identity.token import Token
from tests.agent.conftest import Site, Sites, met, until

DAY_S = 86_400


def is_renewed(site: Site, before: int) -> bool:
    """Return whether a member's certificate ends later than that."""
    return end_of(site) > before + DAY_S


def end_of(site: Site) -> int:
    """Return when a member's certificate ends."""
    certificate = site.gossip.card.certificate
    assert certificate is not None
    return certificate.not_after_s


async def test_a_host_joins_through_any_member_and_is_recorded(sites: Sites) -> None:
    """vm3 joins through vm2, which refers it to vm1; every member sees by which token."""
    vm1 = sites.first()
    token = vm1.admission.default_token()
    vm2 = await sites.join(2, vm1, token)
    vm3 = await sites.join(3, vm2, token)
    admitted = {vm2.gossip.node_id, vm3.gossip.node_id}

    def is_known(site: Site) -> bool:
        return site.admission.records().admitted.get(token.token_id) == admitted

    await until(lambda: all(is_known(site) for site in (vm1, vm2, vm3)))
    told = [event["text"] for event in vm1.event_log.since(0.0) if event["kind"] == "admit"]
    assert [text.split(" ")[1] for text in told] == ["vm2", "vm3"]
    assert token.token_id.hex()[:8] in told[0]
    assert vm1.admission.default_token() == token
    assert [site.holders.is_holder(vm1.gossip.node_id) for site in (vm1, vm2, vm3)] == [True] * 3
    with pytest.raises(ConflictError, match="does not hold") as caught:
        vm2.admission.create(label="", expires_in_s=None, uses=None)
    assert "vm1" in caught.value.hint


async def test_the_cluster_key_does_not_derive_from_the_token(sites: Sites) -> None:
    """No part of the token is in the cluster key."""
    vm1 = sites.first()
    token = vm1.admission.default_token()
    vm2 = await sites.join(2, vm1, token)
    (key,) = vm2.gossip.keyring.keys
    secret = key.secret

    assert [key] == vm1.gossip.keyring.keys
    assert secret not in (token.secret, token.join_key, token.ticket, token.verifier, token.anchor)


async def test_a_token_admits_so_many_hosts_a_minute(
    sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Further ones wait; those admitted before may ask again; the administrator is told once."""
    monkeypatch.setattr(limits, "ADMISSIONS_PER_MINUTE_MAX", 3)
    vm1 = sites.first()
    now = vm1.gossip.transport.now()
    monkeypatch.setattr(vm1.gossip.transport, "now", lambda: now)
    tokens = [vm1.admission.default_token()]
    tokens.append(vm1.admission.create(label="other", expires_in_s=None, uses=None))
    first, other = (vm1.admission.invitation(token.token_id) for token in tokens)
    assert first is not None
    assert other is not None

    def admits(token: JoinToken, number: int) -> bool:
        key = number.to_bytes(32, "big")
        request = JoinRequest(key, key, f"vm{number}", parse_ip(f"127.0.1.{number}"), 7948)
        return isinstance(vm1.admission.admit(token, request), JoinGrant)

    assert [admits(first, number) for number in range(10, 15)] == [True] * 3 + [False] * 2
    assert admits(first, 12)
    assert admits(other, 14)
    told = [
        event["text"] for event in vm1.event_log.since(0.0) if "within a minute" in event["text"]
    ]
    assert len(told) == 1
    assert f"overlayd token revoke {first.token_id.hex()[:8]}" in told[0]
    now += 61.0
    assert admits(first, 13)


async def test_forged_tokens_are_checked_once(
    sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member may write very many: of them some count, and each signature costs its check once."""
    vm1 = sites.first()
    true = vm1.admission.default_token()
    vm2 = await sites.join(2, vm1, true)
    record = vm1.admission.invitation(true.token_id)
    assert record is not None
    checks = 0
    is_signed = admission._is_signed

    def counted(anchor: TrustAnchor, value: JoinToken | TokenRevocation) -> bool:
        nonlocal checks
        checks += 1
        return is_signed(anchor, value)

    monkeypatch.setattr(admission, "_is_signed", counted)
    ids = [number.to_bytes(8, "big") for number in range(limits.TOKEN_COUNT_MAX + 50)]
    vm2.write(*(dataclasses.replace(record, token_id=each) for each in ids))
    for _ in range(5):
        vm2.admission.records_changed()
        assert list(vm2.admission.records().invitations) == [true.token_id]

    assert checks <= limits.TOKEN_COUNT_MAX + 1


async def test_uses_are_counted_over_all_holders(sites: Sites) -> None:
    """With one use and two holders, only one of them admits a host."""
    vm1 = sites.first()
    vm2 = await sites.join(2, vm1, vm1.admission.default_token())
    assert await vm1.authority_sharing.promote("vm2")
    assert not await vm1.authority_sharing.promote("vm2")
    token = vm1.admission.create(label="", expires_in_s=None, uses=1)
    await until(lambda: vm2.admission.invitation(token.token_id) is not None)
    vm3 = await sites.join(3, vm2, token)
    await until(lambda: vm3.gossip.node_id in vm1.admission.records().admitted[token.token_id])

    for through in (vm1, vm2):
        with pytest.raises(ForbiddenError, match="used up"):
            await sites.join(4, through, token)


async def test_a_repeated_join_counts_once(sites: Sites) -> None:
    """An interrupted join continues under the same identity without another use."""
    vm1 = sites.first()
    token = vm1.admission.create(label="", expires_in_s=None, uses=1)
    identity = Identity.generate(os.urandom)
    application = JoinAttempt(identity, token, "vm2", parse_ip("127.0.0.2"), [vm1.seed])
    await application.run(5.0)
    vm2 = await sites.join(2, vm1, token, identity)

    assert vm1.admission.records().admitted[token.token_id] == {vm2.gossip.node_id}


async def test_tokens_end_by_the_clock_and_by_revocation(sites: Sites) -> None:
    """An expired token and a revoked one are refused, with different errors."""
    vm1 = sites.first()
    short = vm1.admission.create(label="short", expires_in_s=60, uses=None)
    other = vm1.admission.create(label="other", expires_in_s=None, uses=None)
    invitation = vm1.admission.invitation(short.token_id)
    assert invitation is not None
    assert vm1.admission.refusal(invitation, None) is None
    vm1.now_s += 61
    assert vm1.admission.refusal(invitation, None) is JoinRefusal.EXPIRED
    assert vm1.admission.revoke(other.token_id.hex()[:6]).token_id == other.token_id

    with pytest.raises(ForbiddenError, match="revoked"):
        await sites.join(2, vm1, other)
    with pytest.raises(ForbiddenError, match="expired"):
        await sites.join(2, vm1, short)
    with pytest.raises(NotFoundError):
        vm1.admission.revoke("")


async def test_a_revoked_default_token_is_replaced(sites: Sites) -> None:
    """`token show` never prints a token that admits no host."""
    vm1 = sites.first()
    token = vm1.admission.default_token()
    vm1.admission.revoke(token.token_id.hex())

    assert vm1.admission.default_token().token_id != token.token_id


async def test_ended_tokens_are_deleted_after_a_month(sites: Sites) -> None:
    """Records of valid tokens are kept."""
    vm1 = sites.first()
    kept = vm1.admission.default_token()
    expired = vm1.admission.create(label="", expires_in_s=60, uses=None)
    revoked = vm1.admission.create(label="", expires_in_s=None, uses=None)
    vm1.admission.revoke(revoked.token_id.hex())
    vm1.now_s += 29 * DAY_S
    vm1.admission.create(label="", expires_in_s=None, uses=None)
    assert set(vm1.admission.records().invitations) > {expired.token_id, revoked.token_id}
    vm1.now_s += 3 * DAY_S
    last = vm1.admission.create(label="", expires_in_s=None, uses=None)

    found = set(vm1.admission.records().invitations)
    assert not found & {expired.token_id, revoked.token_id}
    assert found >= {kept.token_id, last.token_id}
    assert vm1.admission.records().revoked == set()


async def test_a_member_cannot_forge_admission_records(sites: Sites) -> None:
    """A record without the authority's signature is ignored."""
    vm1 = sites.first()
    token = vm1.admission.create(label="", expires_in_s=None, uses=1)
    vm2 = await sites.join(2, vm1, vm1.admission.default_token())
    forger = Authority.generate(os.urandom)
    forged = Token(vm1.gossip.anchor.public, b"forged--", b"s" * 16, sites.port, 4789)
    vm2.write(
        forger.sign_token(
            JoinToken(forged.token_id, forged.join_key, forged.verifier, "", 0, 0, 0, b"")
        ),
        forger.sign_revocation(token.token_id),
        forger.sign_holder(vm2.gossip.node_id),
        Admission(token.token_id, NodeId(b"n" * 16)),
    )
    version = vm2.gossip.node.store.version(vm2.gossip.node_id, CLUSTER_SCOPE)
    await until(lambda: vm1.gossip.node.store.version(vm2.gossip.node_id, CLUSTER_SCOPE) == version)
    book = vm1.admission.records()

    assert forged.token_id not in book.invitations
    assert book.revoked == set()
    assert vm1.holders.others() == set()
    assert token.token_id not in book.admitted
    vm3 = await sites.join(3, vm2, token)
    assert vm1.admission.records().admitted[token.token_id] == {vm3.gossip.node_id}


async def test_tokens_of_a_forgotten_holder_are_void(sites: Sites) -> None:
    """Its tokens no longer admit hosts, and it is no longer a holder."""
    vm1 = sites.first()
    vm2 = await sites.join(2, vm1, vm1.admission.default_token())
    await vm1.authority_sharing.promote("vm2")
    token = vm2.admission.create(label="", expires_in_s=None, uses=None)
    await until(lambda: vm1.admission.invitation(token.token_id) is not None)
    sites.close(vm2)
    authority = vm1.gossip.authority
    assert authority is not None
    vm1.write(authority.sign_forgotten(vm2.gossip.node_id))

    await until(lambda: vm1.gossip.node.is_forgotten(vm2.gossip.node_id))
    assert vm1.admission.invitation(token.token_id) is None
    assert not vm1.holders.is_holder(vm2.gossip.node_id)


async def test_certificates_are_renewed_before_their_end(sites: Sites) -> None:
    """A holder renews its own and those of members, and not too early."""
    vm1 = sites.first()
    vm2 = await sites.join(2, vm1, vm1.admission.default_token())
    assert not vm1.certificate.renew_if_due()
    assert not vm2.certificate.renew_if_due()
    authority = vm1.gossip.authority
    assert authority is not None
    for site in (vm1, vm2):
        card = site.gossip.card
        long_ago = time.time() - limits.CERTIFICATE_VALID_S + limits.CERTIFICATE_RENEWED_S - 60
        old = authority.sign_certificate(
            card.sign_key, card.seal_key, card.name, card.address, long_ago
        )
        assert site.gossip.use_certificate(old)
        before = end_of(site)
        site.certificate.renew_if_due()
        await until(functools.partial(is_renewed, site, before))

    assert membership_documents.CERTIFICATE.find(vm2.state) == vm2.gossip.card.certificate
    assert not vm2.certificate.renew_if_due()


async def test_a_member_ignores_unrequested_certificates(sites: Sites) -> None:
    """A replayed old certificate of its own does not change its card."""
    vm1 = sites.first()
    vm2 = await sites.join(2, vm1, vm1.admission.default_token())
    card, authority = vm2.gossip.card, vm1.gossip.authority
    assert authority is not None
    for days in (-30, 0, 30):
        certificate = authority.sign_certificate(
            card.sign_key, card.seal_key, card.name, card.address, time.time() + days * DAY_S
        )
        vm2.certificate.handle_message(
            AuthorityMessage(vm1.gossip.node_id, CertificateRenewal(certificate))
        )
    await asyncio.sleep(0)

    assert vm2.gossip.card == card


async def test_a_member_ignores_forged_certificates_and_keys(
    sites: Sites,
) -> None:
    """The sender does not matter."""
    vm1 = sites.first()
    vm2 = await sites.join(2, vm1, vm1.admission.default_token())
    forger = Authority.generate(os.urandom)
    card = vm2.gossip.card
    forged = forger.sign_certificate(
        card.sign_key, card.seal_key, card.name, card.address, time.time()
    )
    assert not vm2.gossip.use_certificate(forged)
    vm2.authority_sharing.handle_message(
        AuthorityMessage(vm1.gossip.node_id, AuthorityHandover(forger.to_bytes()))
    )
    await asyncio.sleep(0)

    assert vm2.gossip.authority is None
    assert vm2.gossip.card == card
    assert "key" not in repr(AuthorityHandover(forger.to_bytes()))


async def test_a_member_that_moves_needs_no_authority(sites: Sites) -> None:
    """Without a live holder, a host starts at another underlay address and is recognized."""
    vm1 = sites.first()
    token = vm1.admission.default_token()
    vm2 = await sites.join(2, vm1, token)
    vm3 = await sites.join(3, vm2, token)
    await until(lambda: met(vm2, vm3))
    sites.close(vm1)
    moved = sites.again(vm3, "127.0.0.9")
    moved.gossip.transport.send_join_hello(vm2.seed.address, vm2.seed.port)

    def known() -> bool:
        card = vm2.gossip.node.store.card(moved.gossip.node_id)
        return card is not None and card.address == parse_ip("127.0.0.9")

    await until(known)
    certificate = moved.gossip.card.certificate
    assert certificate is not None
    assert certificate.address == parse_ip("127.0.0.3")


async def test_the_last_holder_cannot_leave_without_force(sites: Sites) -> None:
    """The only member may leave; otherwise it must hand the authority on, or use --force."""
    vm1 = sites.first()
    vm1.holders.require_another()
    vm2 = await sites.join(2, vm1, vm1.admission.default_token())
    with pytest.raises(ConflictError, match="the only one") as caught:
        vm1.holders.require_another()
    assert "promote" in caught.value.hint
    vm2.holders.require_another()
    await vm1.authority_sharing.promote("vm2")

    vm1.holders.require_another()


def test_a_failed_join_leaves_no_authority_behind(tmp_path: Path) -> None:
    """A host that failed to create a cluster and then joins one has no authority there."""
    state = StateDatabase(tmp_path)
    authority = Authority.generate(os.urandom)
    certificate = authority.sign_certificate(b"s" * 32, b"x" * 32, "vm1", parse_ip("127.0.0.1"), 0)
    key = authority.make_key(0, b"k" * 32, 0)
    state.commit(membership_documents.rows(key, authority=authority))
    state.commit(membership_documents.rows(key, certificate=certificate))
    assert (
        membership_documents.AUTHORITY.find(state),
        membership_documents.CERTIFICATE.find(state),
    ) == (
        None,
        certificate,
    )
    state.commit(membership_documents.rows(key, authority=authority))

    assert membership_documents.CERTIFICATE.find(state) is None
    state.close()
