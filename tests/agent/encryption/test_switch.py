"""Real members on loopback switch a network, with kernels that do what they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay import limits
from overlay.agent.encryption.switch import EncryptionSwitch
from overlay.agent.encryption.switch_service import SwitchService
from overlay.agent.gossip.context import NodeContext
from overlay.agent.records.directory import Directory
from overlay.core.dataplane.network_drivers import (
    BRIDGE,
    encryption_goal,
    is_encrypted,
    labels_of,
)
from overlay.core.encryption.switch_phase import Progress, SwitchPhase, is_switching
from overlay.core.encryption.switch_records import ORPHANS
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.records import CLUSTER_SCOPE, Participation, key_of
from overlay.errors import ConflictError
from overlay.model import Network, NodeId, Subnet, Vni, parse_ip
from tests.agent.conftest import Site, Sites, until

SUBNET = Subnet(parse_ip("10.1.0.0"), 24, parse_ip("10.1.0.1"))
VNI = Vni(9)


class Member:
    """A member that switches networks; its kernel is in a phase, or lacks something."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.directory = Directory(site.gossip.node, site.gossip.node_id)
        self.phases: list[SwitchPhase] = []
        self.missing = ""
        context = NodeContext(site.gossip, self.directory, cast("Any", None), site.event_log)
        encryption = SimpleNamespace(
            policy=SimpleNamespace(required=False),
            has_left=False,
            interval_s=30.0,
            fault=None,
            port=7949,
            enter=self._nothing,
            leave=self._nothing,
            unanswered=self._nothing,
            capable=SimpleNamespace(require_all=self._nothing),
        )
        self.encryption = encryption
        reconciler = SimpleNamespace(runtime=lambda _vni: object(), apply=self._apply)
        self.switch = EncryptionSwitch(
            context,
            cast("Any", encryption),
            cast("Any", reconciler),
            cast("Any", SimpleNamespace(resize_network=self._nothing)),
        )
        self.service = SwitchService(self.directory, cast("Any", encryption), self.switch)

    @property
    def network(self) -> Network:
        """Return the network as this member knows it."""
        found = self.directory.network_by_vni(VNI)
        assert found is not None
        return found

    async def _nothing(self, *_arguments: object) -> list[NodeId]:
        return []

    async def _apply(self, network: Network) -> str:
        if not self.missing:
            self.phases.append(self.directory.view.encryption_phase(network))
        return self.missing


async def pair(sites: Sites) -> tuple[Member, Member]:
    """Return two members, the first of which has created a network in clear."""
    one = sites.first()
    two = await sites.join(2, one, one.admission.default_token())
    one.write(Network(VNI, "blue", (SUBNET,), one.gossip.node_id))
    members = Member(one), Member(two)
    for member in members:
        await member.switch.reconcile()
    await until(lambda: members[1].directory.network_by_vni(VNI) is not None)
    await until(lambda: all(not each.switch.incapable(each.network) for each in members))
    return members


async def work(condition: Callable[[], bool], *members: Member) -> None:
    """Let members take their steps until a condition holds."""
    async with asyncio.timeout(15):
        while not condition():
            for member in members:
                await member.switch.reconcile()
            await asyncio.sleep(0.01)


async def settle(*members: Member, encrypted: bool) -> None:
    """Let members take their steps until the network is as it should be everywhere."""

    def is_settled() -> bool:
        found = [member.network for member in members]
        return all(is_encrypted(each) is encrypted and not is_switching(each) for each in found)

    await work(is_settled, *members)


async def test_a_request_of_any_member_is_carried_out(sites: Sites) -> None:
    """All phases in order on each, there and back; requests and progress do not stay."""
    one, two = await pair(sites)
    two.switch.ask(two.network, encrypted=True)
    await settle(one, two, encrypted=True)
    upwards = list(SwitchPhase)[1:]
    assert one.phases == two.phases == upwards
    one.switch.ask(one.network, encrypted=False)
    await settle(one, two, encrypted=False)
    assert two.phases == [*upwards, *reversed(list(SwitchPhase)[:-1])]
    goal = encryption_goal(one.network)
    assert goal is not None
    assert not goal.encrypted


async def test_a_step_that_fails_here_holds_the_others(sites: Sites) -> None:
    """Each says why: this host by its reason, the other by this host's name."""
    one, two = await pair(sites)
    two.missing = "the disk is on fire"
    two.switch.ask(two.network, encrypted=True)
    reason = ["vm2: the disk is on fire"]
    await work(lambda: two.switch.waits(two.network) == reason and bool(one.phases), one, two)
    await work(lambda: bool(one.switch.waits(one.network)), one, two)
    assert one.switch.waits(one.network)[0].startswith("vm2: ")
    assert one.phases == [SwitchPhase.READY]
    two.missing = ""
    await settle(one, two, encrypted=True)


async def test_a_host_that_requires_encryption_stays(sites: Sites) -> None:
    """It does not follow a switch to clear, so no other host goes further than it."""
    one, two = await pair(sites)
    one.switch.ask(one.network, encrypted=True)
    await settle(one, two, encrypted=True)
    two.encryption.policy.required = True
    before = len(one.phases), len(two.phases)
    one.switch.ask(one.network, encrypted=False)
    refused = ["vm2: it has not taken it up"]
    await work(lambda: one.switch.waits(one.network) == refused, one)
    await work(lambda: bool(two.switch._missing), one, two)
    assert (len(one.phases), len(two.phases)) == before
    assert one.switch.waits(one.network) == refused
    with pytest.raises(ConflictError, match="stays encrypted"):
        await two.service.switch("blue", encrypted=False)


async def test_a_network_without_creator_is_switched(sites: Sites) -> None:
    """By any member, there and back and there; each keeps what no definition says.

    A dead creator must be forgotten first, and a member of before upgraded.
    """
    one, two = await pair(sites)
    third = await sites.join(3, one.site, one.site.admission.default_token())
    vni = Vni(20)
    third.write(Network(vni, "red", (SUBNET,), third.gossip.node_id))

    def red(member: Member) -> Network:
        found = member.directory.network_by_vni(vni)
        assert found is not None
        return found

    def is_orphan() -> bool:
        return all(each.directory.view.switches.is_orphan(red(each)) for each in (one, two))

    await until(lambda: all(each.directory.network_by_vni(vni) for each in (one, two)))
    sites.close(third)
    gone = third.gossip.node_id
    await until(lambda: one.directory.node_state(gone) is not MemberState.ALIVE)
    with pytest.raises(ConflictError, match="cannot be switched now") as caught:
        await one.service.switch("red", encrypted=True)
    assert "overlayd forget vm3" in caught.value.hint
    authority = one.site.gossip.authority
    assert authority is not None
    one.site.write(authority.sign_forgotten(gone))
    await until(is_orphan)

    async def switch(by: Member, *, encrypted: bool) -> None:
        done = asyncio.create_task(by.service.switch("red", encrypted=encrypted))
        await work(done.done, one, two)
        assert await done
        assert [is_encrypted(red(each)) for each in (one, two)] == [encrypted] * 2
        assert not await by.service.switch("red", encrypted=encrypted)

    for by, encrypted in ((two, True), (one, False), (one, True)):
        await switch(by, encrypted=encrypted)
    assert one.phases == two.phases
    assert one.phases[-1] is SwitchPhase.ENCRYPTED
    definition = one.directory.definition(vni, gone)
    assert definition is not None
    assert not is_encrypted(definition)

    one.switch.log._ended_at[vni] = -1e9
    await one.switch.reconcile()
    assert is_encrypted(red(one))
    two.site.gossip.publish(
        two.site.gossip.commit(CLUSTER_SCOPE, [Participation(vni, forwards=True)],
                               [key_of(ORPHANS)])
    )  # fmt: skip
    hostile = Progress(vni, limits.ENCRYPTION_SERIAL_MAX, SwitchPhase.ENCRYPTED, is_done=True)
    one.switch.log.publish(hostile)
    with pytest.raises(ConflictError, match="can no longer be switched"):
        one.switch.ask(red(one), encrypted=False)
    await until(lambda: any("vm2 may send" in each.text for each in one.switch.faults()))
    with pytest.raises(ConflictError, match="the version of overlayd on vm2 cannot"):
        await one.service.switch("red", encrypted=False)


async def test_what_cannot_be_switched_is_refused(sites: Sites) -> None:
    """A network without tunnels, one with too many labels, and a member of before."""
    one, two = await pair(sites)
    assert not await one.service.switch("blue", encrypted=False)
    bridge = Network(
        Vni(12), "local", (SUBNET,), one.site.gossip.node_id, labels=labels_of(BRIDGE, "")
    )
    one.site.write(bridge)
    with pytest.raises(ConflictError, match="local cannot be encrypted"):
        await one.service.switch("local", encrypted=True)
    labels = tuple((f"label{n:02}", "x") for n in range(limits.LABEL_COUNT_MAX - 1))
    full = Network(Vni(13), "full", (SUBNET,), one.site.gossip.node_id, labels=labels)
    one.site.write(full)
    with pytest.raises(ConflictError, match="full cannot be switched: it has too many labels"):
        await one.service.switch("full", encrypted=True)
    one.switch.ask(full, encrypted=True)
    assert one.directory.network("full") == full
    own = two.switch.log.records(two.site.gossip.node_id)
    deletes = [key_of(each) for each in own]
    two.site.gossip.publish(two.site.gossip.commit(CLUSTER_SCOPE, deletes=deletes))
    await until(lambda: bool(one.switch.incapable(one.network)))
    with pytest.raises(ConflictError, match="the version of overlayd on vm2 cannot"):
        await one.service.switch("blue", encrypted=True)


async def test_a_goal_that_nobody_can_follow_is_none(sites: Sites) -> None:
    """A creator that lies may write it: no member can say how far it is, and none waits."""
    one, two = await pair(sites)
    serial = limits.ENCRYPTION_SERIAL_MAX + 1
    labels = (("overlayd.encryption", f"on-{serial}"),)
    one.site.write(replace(one.network, labels=labels))
    await until(lambda: bool(two.network.labels))

    assert encryption_goal(two.network) is None
    for member in (one, two):
        await member.switch.reconcile()
    assert not is_switching(two.network)
