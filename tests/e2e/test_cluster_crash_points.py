"""A real agent, killed while the members of its cluster and what they are trusted with change.

The authority is given, taken and imported, tokens are created and revoked, a dead host is
forgotten, a cluster is created beside another one, and WireGuard's keys are replaced: at the first,
a middle and the last pass of each kind of crash point. Then `reset`, killed on either side of the
socket. In `make chaos` only.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import pytest
from overlay.failpoint import EXIT_CODE
from overlay.lab import host_process
from overlay.lab.driver import AgentDriver, ApiRefusedError, Json, wait_until
from tests.e2e.crash_points import (
    FLAT,
    Pair,
    Verb,
    attach,
    crash_at_kinds,
    crash_pair,
    nothing,
    of_each_kind,
    passed,
    plan,
    require_most,
)

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.timeout(1200)]
PASSPHRASE = "six random words on paper"
# What a host has beside what it had before overlayd: the namespace c2 is the test's own.
TRACES = """
ls -d /var/lib/overlayd/* /run/overlayd /etc/netns/* 2>/dev/null
ip netns; ip -o link | cut -d: -f2; ip rule; ip route; ip -6 route; nft list ruleset
sysctl -a 2>/dev/null | grep -E 'forward|rp_filter|proxy|localnet' | grep -E 'all|default|eth1|ip_f'
true
"""


def others(pair: Pair) -> list[Json]:
    """Return the members that the first host knows beside itself, and has not seen leave."""
    shown = pair.one.get("/v1/members")["members"]
    return [each for each in shown if not each["self"] and each["state"] != "left"]


def join(pair: Pair) -> None:
    """Make the second host a member, as soon as its former name is free again."""
    wait_until(lambda: has_joined(pair), "the second host joins")
    wait_until(lambda: is_alone(pair), "what it was before is forgotten")


def is_alone(pair: Pair) -> bool:
    """Forget dead members; return whether the second host is the only other one."""
    for each in others(pair):
        if each["state"] == "dead":
            pair.one.post("/v1/forget", node=each["id"], powered_off=True)
    return [each["state"] for each in others(pair)] == ["alive"]


def has_joined(pair: Pair) -> bool:
    """Make the second host a member; return whether it is one."""
    if pair.cluster_of(pair.two) is None:
        token = pair.one.get("/v1/token")["token"]
        with contextlib.suppress(ApiRefusedError):
            pair.two.post("/v1/join", peers=[pair.one.address], token=token)
    return pair.cluster_of(pair.two) is not None


def leave(pair: Pair) -> None:
    """Make the second host leave its cluster, whatever that loses."""
    if pair.cluster_of(pair.two) is not None:
        pair.two.post("/v1/leave", force=True)


def anew(pair: Pair) -> None:
    """Make the second host a member that does not hold the authority."""
    if len(pair.one.get("/v1/authority")["holders"]) > 1:
        leave(pair)
    join(pair)


def promote(pair: Pair) -> object:
    """Give the second host the authority; it can then admit hosts."""
    (other,) = (each for each in others(pair) if each["state"] == "alive")
    pair.one.post("/v1/promote", node=other["id"])
    return pair.two.get("/v1/token")


def restore(pair: Pair) -> object:
    """Give it the authority by an exported copy."""
    sealed = pair.one.post("/v1/authority/export", passphrase=PASSPHRASE)["sealed"]
    pair.two.post("/v1/authority/import", sealed=sealed, passphrase=PASSPHRASE)
    return pair.two.get("/v1/token")


def make_token(pair: Pair) -> object:
    """Create a token that ends."""
    return pair.one.post("/v1/tokens", expires_s=3600, label="rack")


def revoke(pair: Pair) -> None:
    """Revoke all such tokens."""
    for each in pair.one.get("/v1/tokens")["tokens"]:
        if each["label"] == "rack" and each["state"] == "valid":
            pair.one.call("DELETE", f"/v1/tokens/{each['id']}")


def elsewhere(pair: Pair) -> None:
    """Create a cluster on the second host, leave it, and join the first host's."""
    if pair.cluster_of(pair.two) != pair.cluster_of(pair.one):
        if pair.cluster_of(pair.two) is None:
            pair.two.post("/v1/join")
        leave(pair)
        join(pair)


def die(pair: Pair) -> None:
    """End the second host's agent, and wait until the first one takes it for dead."""
    join(pair)
    attach(pair.two)
    pair.two.end()
    wait_until(lambda: {each["state"] for each in others(pair)} == {"dead"}, "seen dead")


def forget(pair: Pair) -> None:
    """Forget it."""
    for each in others(pair):
        pair.one.post("/v1/forget", node=each["id"], powered_off=True)


def revive(pair: Pair) -> None:
    """Reset the second host, and have it join anew."""
    reset(pair.two)
    pair.two.start(**FLAT)
    join(pair)


def encrypt(pair: Pair) -> None:
    """Encrypt the network, if it is not encrypted."""
    attach(pair.two)
    pair.one.post("/v1/encryption/switch", network="blue", encrypted=True)


def rotate(pair: Pair) -> object:
    """Replace WireGuard's keys."""
    return pair.two.post("/v1/encryption/rotate")


def _one(pair: Pair) -> AgentDriver:
    return pair.one


def _two(pair: Pair) -> AgentDriver:
    return pair.two


VERBS = (
    Verb("promote, giving", _one, anew, promote, nothing),
    Verb("promote, taking", _two, anew, promote, nothing),
    Verb("authority import", _two, anew, restore, nothing),
    Verb("token create", _one, nothing, make_token, revoke),
    Verb("token revoke", _one, make_token, revoke, nothing),
    Verb("create, leave and join", _two, leave, elsewhere, nothing),
    Verb("forget", _one, die, forget, revive),
    Verb("encryption rotate", _two, encrypt, rotate, nothing),
)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Two joined hosts with network blue, which don't share the authority by themselves."""
    with crash_pair("authority_holders = 1") as made:
        yield made


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_crashes_of_each_kind(pair: Pair, verb: Verb) -> None:
    """After a kill at each kind of point, all hosts have the same members, tokens and keys."""
    crash_at_kinds(pair, verb)


# --- reset ------------------------------------------------------------------------------


def furnish(pair: Pair) -> None:
    """Give the second host something of everything that a reset removes."""
    if not pair.two.pid():
        pair.two.start(**FLAT)
    join(pair)
    attach(pair.two)
    pair.two.post("/v1/containers", name="bare", networks=["blue"], restart="always")
    pair.two.post("/v1/expose", network="blue")
    pair.two.post("/v1/published", name="bare", network="blue", ports=["8080:80"])


def reset(driver: AgentDriver, **environment: str) -> int:
    """Reset a host by its command; return the exit code."""
    words = [f"{key}={value}" for key, value in environment.items()]
    code = host_process.run(driver.host, "env", *words, "overlayd", "reset", "--yes").returncode
    driver.wait()
    return code


def test_a_reset_outlives_its_agent(pair: Pair) -> None:
    """If the agent is killed at any point of it, the command removes the rest by itself."""
    furnish(pair)
    plan(pair.two, "trace")
    assert reset(pair.two) == 0
    seen = passed(pair.two)
    clean = pair.two.run("sh", "-c", TRACES)
    met = {}
    for point in of_each_kind(seen):
        furnish(pair)
        plan(pair.two, point)
        assert reset(pair.two) == 0, point
        met[point] = passed(pair.two) != []
        assert pair.two.run("sh", "-c", TRACES) == clean, point
    require_most("reset, by its agent", met)


def test_a_killed_reset_is_finished_by_another(pair: Pair) -> None:
    """Killed at any point without an agent; every other time an agent is started in between."""
    furnish(pair)
    pair.two.end()
    plan(pair.two, "trace")
    assert reset(pair.two, **FLAT) == 0
    seen = passed(pair.two)
    clean = pair.two.run("sh", "-c", TRACES)
    met = {}
    for point, has_agent in zip(of_each_kind(seen), itertools.cycle([False, True])):
        furnish(pair)
        pair.two.end()
        plan(pair.two, point)
        code = reset(pair.two, **FLAT)
        met[point] = passed(pair.two) != []
        assert code == (EXIT_CODE if met[point] else 0), point
        if has_agent:
            pair.two.start(**FLAT)
        assert reset(pair.two) == 0, point
        assert pair.two.run("sh", "-c", TRACES) == clean, point
    require_most("reset, by the command", met)
    furnish(pair)
