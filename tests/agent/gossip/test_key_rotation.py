"""When and by whom the cluster's key is made, among real members on loopback."""

from __future__ import annotations

import pytest
from overlay import limits
from overlay.agent.gossip.key_rotation import Keys
from overlay.agent.records.directory import Directory
from overlay.core.keys.rotation import Step
from overlay.errors import ConflictError
from tests.agent.conftest import Site, Sites, until

INTERVAL_S = 1000.0


def keys_of(site: Site, interval_s: float = INTERVAL_S) -> Keys:
    """Return a member's part in rotations, by its own clock."""
    member = site.member
    directory = Directory(member.node, member.node_id)
    return Keys(member, directory, site.admissions, site.journal, interval_s, lambda: site.now_s)


async def settled(all_keys: list[Keys], generation: int) -> None:
    """Let all members work until they use a generation."""

    def done() -> bool:
        for keys in all_keys:
            keys.work()
        steps = {keys.duty.step() for keys in all_keys}
        used = {keys.duty.rotation.ring.sealing.generation for keys in all_keys}
        return used == {generation} and steps <= {Step.REST, Step.SETTLED}

    await until(done)


async def test_the_first_live_holder_makes_the_next_key(sites: Sites) -> None:
    """When the interval is over; a second holder a minute later, who is none never."""
    vm1 = sites.first()
    token = vm1.admissions.default_token()
    vm2, vm3 = await sites.join(2, vm1, token), await sites.join(3, vm1, token)
    assert await vm1.custody.promote("vm2")
    all_keys = [keys_of(site) for site in (vm1, vm2, vm3)]
    await settled(all_keys, 0)
    first, second = sorted((vm1, vm2), key=lambda site: site.member.node_id)
    by_site = dict(zip((vm1, vm2, vm3), all_keys, strict=True))
    made_s = vm1.member.keyring.keys[0].made_s
    for site in (vm1, vm2, vm3):
        site.now_s = float(made_s)
    await until(lambda: bool(second.admissions.live_holders()))

    assert by_site[first].next_due_s() == made_s + INTERVAL_S
    assert by_site[second].next_due_s() == made_s + INTERVAL_S + limits.KEY_TURN_S
    assert by_site[vm3].next_due_s() is None
    assert keys_of(first, interval_s=0.0).next_due_s() is None
    for site in (vm1, vm2, vm3):
        site.now_s = made_s + INTERVAL_S
    await settled(all_keys, 1)
    made = [event["text"] for event in first.journal.since(0.0) if event["kind"] == "key"]
    assert "generation 1 was made here" in made


async def test_a_key_of_a_clock_that_was_ahead_is_replaced(sites: Sites) -> None:
    """A key from the far future is no reason to wait for that future."""
    vm1 = sites.first()
    keys = keys_of(vm1)
    vm1.now_s = vm1.member.keyring.keys[0].made_s - 10 * INTERVAL_S

    await settled([keys], 1)

    assert vm1.member.keyring.keys[-1].made_s == int(vm1.now_s)
    assert keys.next_due_s() == int(vm1.now_s + INTERVAL_S)


async def test_a_key_on_its_way_is_not_overtaken(sites: Sites) -> None:
    """Who asks again while a rotation is under way is told of that one; no holder, no key."""
    vm1 = sites.first()
    vm2 = await sites.join(2, vm1, vm1.admissions.default_token())
    one, two = keys_of(vm1), keys_of(vm2)
    await settled([one, two], 0)
    await until(lambda: bool(one.duty.states()))

    assert one.make() == one.make()
    with pytest.raises(ConflictError, match="does not hold"):
        two.make()
    assert one.waited_for() == ["vm2"]
    await settled([one, two], 1)
    assert one.waited_for() == []


async def test_a_start_goes_on_where_the_disk_is(sites: Sites) -> None:
    """A member that is started again holds and uses the keys that it held and used."""
    vm1 = sites.first()
    keys = keys_of(vm1)
    made = keys.make()
    keys.work()
    ring = keys.duty.rotation.ring
    assert ring.sealing == made
    assert len(ring.held) == 2

    again = sites.again(vm1, "127.0.0.1")

    assert again.member.keyring.ring == ring
    assert [key.secret for key in again.member.keyring.keys] == [
        key.secret for key in vm1.member.keyring.keys
    ]
