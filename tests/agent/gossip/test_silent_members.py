"""A host reports members that do not answer, or itself as the cause."""

from __future__ import annotations

import shutil

from overlay.agent.gossip.silent_members import silent_member_faults
from overlay.agent.process.controller import Fault
from overlay.agent.records.directory import Directory
from overlay.core.protocol.messages import MemberState
from overlay.model import node_text
from tests.agent.conftest import Site, Sites, met, until


def faults(site: Site, *, underlay_works: bool = True) -> list[Fault]:
    """Return the lines about silent members."""
    directory = Directory(site.gossip.node, site.gossip.node_id)
    return list(silent_member_faults(site.gossip, directory, underlay_works=underlay_works))


async def test_one_silent_member_of_three_may_be_gone(sites: Sites) -> None:
    """It is named, with the command for the case that it is gone for good."""
    vm1 = sites.first()
    token = vm1.admission.default_token()
    vm2, vm3 = await sites.join(2, vm1, token), await sites.join(3, vm1, token)
    await until(lambda: met(vm2, vm3))
    assert faults(vm1) == []
    sites.close(vm3)
    state_of = vm1.gossip.node.membership.state_of
    await until(lambda: state_of(vm3.gossip.node_id) is MemberState.DEAD, 30.0)
    (fault,) = faults(vm1)

    assert fault.text == "vm3 is dead"
    assert "overlayd forget vm3" in fault.hint


async def test_a_former_identity_of_a_live_member_is_known_by_its_id(sites: Sites) -> None:
    """Its host has joined anew under its name: forgetting that name would mean the live one."""
    vm1 = sites.first()
    token = vm1.admission.default_token()
    vm2, former = await sites.join(2, vm1, token), await sites.join(3, vm1, token)
    await until(lambda: met(vm2, former))
    sites.close(former)
    state_of = vm1.gossip.node.membership.state_of
    await until(lambda: state_of(former.gossip.node_id) is MemberState.DEAD, 30.0)
    shutil.rmtree(former.state.directory)  # with its identity
    vm3 = await sites.join(3, vm1, token)
    await until(lambda: met(vm1, vm3))
    (fault,) = faults(vm1)
    shown = node_text(former.gossip.node_id)

    assert fault.text == f"vm3 ({shown}) is dead, and another member has its name"
    assert fault.hint.endswith(f"overlayd forget {shown}")


async def test_a_host_that_hears_few_blames_itself(sites: Sites) -> None:
    """One line with all names, and nobody is advised to forget healthy members."""
    vm1 = sites.first()
    token = vm1.admission.default_token()
    others = [await sites.join(number, vm1, token) for number in (2, 3)]
    for other in others:
        sites.close(other)
    await until(lambda: len(vm1.gossip.node.membership.alive()) == 0, 30.0)
    (fault,) = faults(vm1)

    assert "1 of 3 members" in fault.text
    assert "vm2, vm3 do not answer" in fault.text
    assert "forget" not in fault.hint
    assert fault.level == "error"
    assert faults(vm1, underlay_works=False) == []


async def test_of_two_members_neither_is_to_blame(sites: Sites) -> None:
    """Each sees the other one silent, as if that had stopped."""
    vm1 = sites.first()
    vm2 = await sites.join(2, vm1, vm1.admission.default_token())
    sites.close(vm2)
    await until(lambda: len(vm1.gossip.node.membership.alive()) == 0, 30.0)
    (fault,) = faults(vm1)

    assert fault.text.startswith("vm2 is ")
