"""When, and by which member, the cluster key is created, on real loopback members."""

from __future__ import annotations

import pytest
from overlay import limits
from overlay.agent.gossip.key_rotation import KeyRotation
from overlay.agent.records.directory import Directory
from overlay.core.keys.rotation import RotationStep
from overlay.errors import ConflictError
from tests.agent.conftest import Site, Sites, until

INTERVAL_S = 1000.0


def keys_of(site: Site, interval_s: float = INTERVAL_S) -> KeyRotation:
    """Return a member's part in rotations, by its own clock."""
    gossip = site.gossip
    directory = Directory(gossip.node, gossip.node_id)
    return KeyRotation(
        gossip, directory, site.holders, site.event_log, interval_s, lambda: site.now_s
    )


async def settled(all_keys: list[KeyRotation], generation: int) -> None:
    """Let all members work until they use a generation."""

    def done() -> bool:
        for key_rotation in all_keys:
            key_rotation.step()
        steps = {key_rotation.driver.step() for key_rotation in all_keys}
        used = {key_rotation.driver.rotation.ring.sealing.generation for key_rotation in all_keys}
        return used == {generation} and steps <= {RotationStep.REMOVING, RotationStep.SETTLED}

    await until(done)


async def test_the_first_live_holder_creates_the_next_key(sites: Sites) -> None:
    """It does so after the interval, a second holder a minute later, other members never."""
    vm1 = sites.first()
    token = vm1.admission.default_token()
    vm2, vm3 = await sites.join(2, vm1, token), await sites.join(3, vm1, token)
    assert await vm1.authority_sharing.promote("vm2")
    all_keys = [keys_of(site) for site in (vm1, vm2, vm3)]
    await settled(all_keys, 0)
    first, second = sorted((vm1, vm2), key=lambda site: site.gossip.node_id)
    by_site = dict(zip((vm1, vm2, vm3), all_keys, strict=True))
    made_s = vm1.gossip.keyring.keys[0].made_s
    for site in (vm1, vm2, vm3):
        site.now_s = float(made_s)
    await until(lambda: bool(second.holders.live()))

    assert by_site[first].next_due_s() == made_s + INTERVAL_S
    assert by_site[second].next_due_s() == made_s + INTERVAL_S + limits.KEY_TURN_S
    assert by_site[vm3].next_due_s() is None
    assert keys_of(first, interval_s=0.0).next_due_s() is None
    for site in (vm1, vm2, vm3):
        site.now_s = made_s + INTERVAL_S
    await settled(all_keys, 1)
    made = [event["text"] for event in first.event_log.since(0.0) if event["kind"] == "key"]
    assert "generation 1 was created here" in made


async def test_a_key_from_a_fast_clock_is_replaced(sites: Sites) -> None:
    """A key with a creation time in the far future is replaced at once."""
    vm1 = sites.first()
    key_rotation = keys_of(vm1)
    vm1.now_s = vm1.gossip.keyring.keys[0].made_s - 10 * INTERVAL_S

    await settled([key_rotation], 1)

    assert vm1.gossip.keyring.keys[-1].made_s == int(vm1.now_s)
    assert key_rotation.next_due_s() == int(vm1.now_s + INTERVAL_S)


async def test_a_rotation_under_way_is_not_overtaken(sites: Sites) -> None:
    """A second request during a rotation returns its key; only a holder creates one."""
    vm1 = sites.first()
    vm2 = await sites.join(2, vm1, vm1.admission.default_token())
    one, two = keys_of(vm1), keys_of(vm2)
    await settled([one, two], 0)
    await until(lambda: bool(one.driver.states()))

    assert one.make_key() == one.make_key()
    with pytest.raises(ConflictError, match="does not hold"):
        two.make_key()
    assert one.waited_for() == ["vm2"]
    await settled([one, two], 1)
    assert one.waited_for() == []


async def test_a_restart_keeps_the_keys(sites: Sites) -> None:
    """A restarted member holds and uses the same keys as before."""
    vm1 = sites.first()
    key_rotation = keys_of(vm1)
    made = key_rotation.make_key()
    key_rotation.step()
    ring = key_rotation.driver.rotation.ring
    assert ring.sealing == made
    assert len(ring.held) == 2

    again = sites.again(vm1, "127.0.0.1")

    assert again.gossip.keyring.ring == ring
    assert [key.secret for key in again.gossip.keyring.keys] == [
        key.secret for key in vm1.gossip.keyring.keys
    ]
