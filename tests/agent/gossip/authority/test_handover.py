"""How members come to hold the authority, and what they say when too few do."""

from __future__ import annotations

import asyncio
import os

import pytest
from overlay import limits
from overlay.agent.gossip.forget import ForgetService
from overlay.agent.records.directory import Directory
from overlay.core.keys.holder_choice import HolderChoice
from overlay.core.protocol.messages import MemberState
from overlay.errors import ConflictError, ForbiddenError
from overlay.model import NodeId
from overlay.wire.identity.authority import Authority
from overlay.wire.identity.authority_export import seal_authority
from tests.agent.conftest import Site, Sites, until

PASSPHRASE = "correct horse battery"


def fault_texts(site: Site) -> list[str]:
    """Return what a member says about the authority."""
    return [fault.text for fault in site.authority_sharing.faults()]


def advice(site: Site) -> str:
    """Return the hints of a member's faults."""
    return " ".join(fault.hint for fault in site.authority_sharing.faults())


async def shared(site: Site, *others: Site) -> None:
    """Let a holder do its part until the others hold the authority, too."""
    async with asyncio.timeout(15.0):
        while not all(site.holders.is_holder(other.gossip.node_id) for other in others):
            await site.authority_sharing.reconcile()
            await asyncio.sleep(0.05)


async def test_the_first_three_members_hold_the_authority(sites: Sites) -> None:
    """Without a command; the fourth member does not become a holder."""
    vm1 = sites.first()
    token = vm1.admission.default_token()
    vm2, vm3 = await sites.join(2, vm1, token), await sites.join(3, vm1, token)
    await shared(vm1, vm2, vm3)
    vm4 = await sites.join(4, vm2, token)
    await vm1.authority_sharing.reconcile()

    assert vm3.holders.count() == 3
    assert vm4.gossip.authority is None
    assert vm2.admission.create(label="a", expires_in_s=None, uses=None).token_id
    assert fault_texts(vm1) == fault_texts(vm4) == []


async def test_a_forgotten_holder_is_replaced(sites: Sites) -> None:
    """By the member that remains; the forgotten one is no holder any longer."""
    vm1 = sites.first()
    token = vm1.admission.default_token()
    vm2 = await sites.join(2, vm1, token)
    vm1.authority_sharing.choice = HolderChoice(vm1.gossip.node, 2)
    await shared(vm1, vm2)
    vm3 = await sites.join(3, vm1, token)
    sites.close(vm2)
    authority = vm1.gossip.authority
    assert authority is not None
    vm1.write(authority.sign_forgotten(vm2.gossip.node_id))
    await until(lambda: vm1.gossip.node.is_forgotten(vm2.gossip.node_id))
    await shared(vm1, vm3)

    assert vm3.holders.names() == ["vm1", "vm3"]


async def test_a_newcomer_counts_no_holder_that_has_left(sites: Sites) -> None:
    """It has never seen that member, and knows its departure by the card alone."""
    vm1 = sites.first()
    token = vm1.admission.default_token()
    vm2 = await sites.join(2, vm1, token)
    await shared(vm1, vm2)
    await until(lambda: vm1.holders.names() == ["vm1", "vm2"])
    await vm2.gossip.say_goodbye()
    sites.close(vm2)
    await until(lambda: vm1.holders.names() == ["vm1"])
    vm3 = await sites.join(3, vm1, token)

    assert vm3.holders.names() == ["vm1"]


async def test_a_single_holder_is_a_fault_after_a_while(sites: Sites) -> None:
    """Not while the second member is just becoming one, and not where 1 is configured."""
    vm1 = sites.first()
    await vm1.authority_sharing.reconcile()
    assert fault_texts(vm1) == []
    vm2 = await sites.join(2, vm1, vm1.admission.default_token())
    for site in (vm1, vm2):
        await until(lambda site=site: site.gossip.node.caught_up)  # type: ignore[misc]
        site.authority_sharing._note_single(
            site.gossip.transport.now() - limits.SINGLE_HOLDER_SHOWN_S
        )
        assert fault_texts(site) == [
            "only vm1 holds the cluster's authority: if it is lost, no host can be admitted again"
        ]
        assert "authority export FILE" in advice(site)
    vm2.authority_sharing.choice = HolderChoice(vm2.gossip.node, 1)
    vm2.authority_sharing._note_single(0.0)

    assert fault_texts(vm2) == []


async def alone(sites: Sites) -> tuple[Site, NodeId, ForgetService]:
    """Return a member whose only holder is dead, that holder, and what forgets it."""
    vm1 = sites.first()
    vm2 = await sites.join(2, vm1, vm1.admission.default_token())
    holder = vm1.gossip.node_id
    await until(lambda: vm2.holders.is_holder(holder))
    sites.close(vm1)
    await until(lambda: vm2.gossip.node.membership.state_of(holder) is MemberState.DEAD, 30.0)
    directory = Directory(vm2.gossip.node, vm2.gossip.node_id)
    return vm2, holder, ForgetService(vm2.gossip, directory, vm2.holders, vm2.event_log)


async def test_a_cluster_without_its_last_holder(sites: Sites) -> None:
    """While it is dead, once it is forgotten, and after an import: each is told as it is."""
    vm2, holder, forget = await alone(sites)
    (down,) = fault_texts(vm2)
    assert "no host that holds the cluster's authority answers: vm1 (dead)" in down
    with pytest.raises(ConflictError, match="does not hold") as caught:
        vm2.admission.create(label="", expires_in_s=None, uses=None)
    assert "vm1 (dead)" in caught.value.why
    assert "promote" not in caught.value.hint
    with pytest.raises(ConflictError, match="vm1 is the only host") as refused:
        forget.forget("vm1", powered_off=True)
    assert "forget --force vm1" in refused.value.hint
    assert not vm2.gossip.node.is_forgotten(holder)

    forget.forget("vm1", powered_off=True, force=True)
    await until(lambda: vm2.gossip.node.is_forgotten(holder))
    (fault,) = list(vm2.authority_sharing.faults())
    assert fault.level == "error"
    assert "no host holds the cluster's authority any longer" in fault.text
    assert "authority import FILE" in fault.hint
    with pytest.raises(ConflictError, match="does not hold") as caught:
        vm2.admission.create(label="", expires_in_s=None, uses=None)
    assert caught.value.why == "no member holds it any longer"
    assert "vm1" not in caught.value.hint


async def test_an_export_brings_the_authority_back(sites: Sites) -> None:
    """On any member: it admits hosts again, and shares the authority with them."""
    vm1 = sites.first()
    vm2 = await sites.join(2, vm1, vm1.admission.default_token())
    with pytest.raises(ConflictError, match="does not hold"):
        await vm2.authority_backup.export(PASSPHRASE)
    sealed = await vm1.authority_backup.export(PASSPHRASE)
    sites.close(vm1)
    with pytest.raises(ForbiddenError, match="passphrase is wrong"):
        await vm2.authority_backup.restore(sealed, "another one")
    assert vm2.gossip.authority is None
    await until(lambda: vm2.gossip.node.may_write(vm2.gossip.transport.now()))

    assert await vm2.authority_backup.restore(sealed, PASSPHRASE)
    assert not await vm2.authority_backup.restore(sealed, PASSPHRASE)
    vm3 = await sites.join(3, vm2, vm2.admission.default_token())
    await shared(vm2, vm3)
    again = sites.again(vm2, "127.0.0.2")
    assert again.gossip.authority is not None


async def test_another_clusters_export_changes_nothing(sites: Sites) -> None:
    """Its key would sign for nobody here."""
    vm1 = sites.first()
    foreign = seal_authority(Authority.generate(os.urandom), PASSPHRASE, os.urandom)
    before = vm1.gossip.authority
    with pytest.raises(ConflictError, match="another cluster"):
        await vm1.authority_backup.restore(foreign, PASSPHRASE)

    assert vm1.gossip.authority is before


async def test_a_holder_whose_companions_are_down_does_not_leave(sites: Sites) -> None:
    """The other holder is dead, and may be gone for good."""
    vm1 = sites.first()
    vm2 = await sites.join(2, vm1, vm1.admission.default_token())
    await shared(vm1, vm2)
    vm1.holders.require_another()
    sites.close(vm2)
    state_of = vm1.gossip.node.membership.state_of
    await until(lambda: state_of(vm2.gossip.node_id) is MemberState.DEAD, 30.0)
    with pytest.raises(ConflictError, match="the only one") as caught:
        vm1.holders.require_another()

    assert "vm2 (dead)" in caught.value.why
