"""Kill a real agent at a named point of a verb, and make sure that all hosts stay consistent.

`Pair` is the two hosts and what must be true of them; a `Verb` is the state before it, the request,
and how it is undone.
"""

from __future__ import annotations

import collections
import contextlib
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from overlay.agent.process.config import CONFIG_DEFAULT as CONFIG
from overlay.errors import OverlayError
from overlay.failpoint import EXIT_CODE, VARIABLE
from overlay.lab import host_process, lab
from overlay.lab.driver import (
    AgentDriver,
    ApiRefusedError,
    Json,
    connect,
    differences,
    end_all,
    endpoints,
    join_all,
    wait_until,
)

PLAN = "/run/crash-plan"
GATE = "overlayd-gate-"
FLAT = {VARIABLE: PLAN}
_QUIET_S = 0.5  # in which controllers that follow the records begin what is left
OBJECTS = ("policies", "routers", "services")  # that belong to no host
SETTINGS = ("encrypted", "default_deny", "isolate_ports", "shared_rate")  # of a network


def objects(driver: AgentDriver) -> set[tuple[str, ...]]:
    """Return the objects that a host knows, by kind and name, and what is set on networks."""
    found = {(kind, each["name"]) for kind in OBJECTS for each in driver.get(f"/v1/{kind}")[kind]}
    networks = {
        ("networks", each["name"], *(str(each[setting]) for setting in SETTINGS))
        for each in driver.get("/v1/networks")["networks"]
    }
    tokens = {("tokens", each["id"], each["state"]) for each in driver.get("/v1/tokens")["tokens"]}
    holders = {("holders", each["name"]) for each in driver.get("/v1/authority")["holders"]}
    return found | networks | tokens | holders


class Pair:
    """Two hosts with agents that obey a crash plan."""

    def __init__(self, drivers: list[AgentDriver]) -> None:
        self.one, self.two = drivers
        self.both = drivers
        self.chosen = 0
        self.fault = ""
        self.known_complaints: set[str] = set()
        self.tolerated = ""  # a part of further ones
        self.may_stay_exposed = False  # a network without endpoints: it was exposed by hand
        self.all_owned = self.owned()

    def restart(self, driver: AgentDriver) -> None:
        """Start a crashed agent again, with no plan."""
        driver.run("rm", "-f", PLAN)
        driver.start(**FLAT)

    def left_over(self, driver: AgentDriver) -> dict[str, list[str]]:
        """Return overlayd's namespaces and their links in a host's kernel."""
        names = [line.split()[0] for line in driver.run("ip", "netns").splitlines()]
        found = {}
        for name in sorted(names):
            # A crash between creating the name and the namespace leaves a name without one.
            shown = driver.run("sh", "-c", f"ip -n {name} -o link 2>/dev/null || true")
            links = shown.splitlines()
            found[name] = sorted(re.split(r"[:@]\s*", line)[1] for line in links)
        return found

    def members(self) -> list[AgentDriver]:
        """Return the hosts that are in the first one's cluster."""
        return [each for each in self.both if self.cluster_of(each) == self.cluster_of(self.one)]

    def cluster_of(self, driver: AgentDriver) -> str | None:
        """Return the id of a host's cluster; None if it has none, or no agent runs there."""
        if not driver.pid():
            return None
        cluster = driver.get("/v1/status")["cluster"]
        return None if cluster is None else str(cluster["id"])

    def owned(self) -> int:
        """Return the number of addresses of network blue that some host owns."""
        shown = self.one.get("/v1/networks/blue")["grants"]
        return sum(int(each["addresses"]) for each in shown)

    def sound(self) -> bool:
        """Return whether all hosts agree, with each other and with their kernels."""
        self.fault = self._fault()
        return not self.fault

    def _fault(self) -> str:
        members = self.members()
        for each in self.both:
            if each in members or not each.pid():
                continue
            if any(name.startswith(("ov-", GATE)) for name in self.left_over(each)):
                return f"{each.host.name} is no member, and has {self.left_over(each)}"
        # A host that does not participate in a network does not hold its records.
        holders = [each for each in members if not each.get("/v1/endpoints")["elsewhere"]]
        seen = [endpoints(each) for each in holders]
        addresses = [address for _, address, _ in seen[0]]
        if any(other != seen[0] for other in seen) or len(set(addresses)) != len(addresses):
            return f"the hosts see {seen}"
        if self.owned() != self.all_owned:
            return f"{self.owned()} of {self.all_owned} addresses are anybody's"
        named = [objects(each) for each in members]
        if any(other != named[0] for other in named):
            return f"the hosts have the objects {named}"
        used = {each.get("/v1/keys")["generation"] for each in members}
        if len(used) > 1:
            return f"the hosts seal with generations {used}"
        ended = {each.host.name for each in self.both if not each.pid()}  # their sandboxes stay
        for network in self.one.get("/v1/networks")["networks"]:
            sandboxes = {each.host.name for each in members if self._has_sandbox(each, network)}
            if set(network["hosts"]) - ended != sandboxes:
                return f"{network['hosts']} have {network['name']}, and sandboxes {sandboxes}"
        for each in members:
            if differences(each):
                return f"{each.host.name}'s kernel differs: {differences(each)}"
            if not self._is_exact(each):
                return f"{each.host.name} has {self.left_over(each)} for {seen[0]}"
            names = {name for name, _, _ in seen[0]}
            ports = [one for one in each.get("/v1/published")["published"] if one["owner"]]
            if lost := [one for one in ports if one["name"] not in names | {"web"}]:
                return f"{each.host.name} publishes ports of what is not attached: {lost}"
            if complaints := self.complaints(each):
                return f"{each.host.name} complains: {complaints}"
        return ""

    def complaints(self, driver: AgentDriver) -> set[str]:
        """Return what a host's status complains of, and did not at first.

        While not both are members, it complains with reason.
        """
        if self.members() != self.both:
            return set()
        told = {each["text"] for each in driver.get("/v1/status")["health"]}
        told -= self.known_complaints
        return {text for text in told if not self.tolerated or self.tolerated not in text}

    def _is_exact(self, driver: AgentDriver) -> bool:
        """Return whether exactly the used endpoints have a sandbox, a port and a rate."""
        mine = [each for each in driver.get("/v1/endpoints")["endpoints"] if each["local"]]
        kernel = self.left_over(driver)
        sandboxes = {name: links for name, links in kernel.items() if name.startswith("ov-")}
        ports = {
            int(name[3:9], 16): sum(link.startswith("ve") for link in links)
            for name, links in sandboxes.items()
        }
        shapers = sum(link.startswith("sh") for links in sandboxes.values() for link in links)
        if shapers != sum(each["rate_out"] is not None for each in mine):
            return False
        gates = {name for name in kernel if name.startswith(GATE)}
        others = (links for name, links in kernel.items() if name not in {*sandboxes, *gates})
        inside = sum(link.startswith("eth") for links in others for link in links)
        status = driver.get("/v1/status")
        networks = status["networks"]
        if len(gates) != status["gate"]["active"]:
            return False
        if self._vlan_interfaces(driver) and not any(
            each["plugs"] or (each["parent"] and each["endpoints_local"]) for each in networks
        ):
            return False
        return ports == self._wanted_ports(driver, networks, mine) and inside == len(mine)

    def _has_sandbox(self, driver: AgentDriver, network: Json) -> bool:
        """Return whether a host has a network's sandbox in its kernel."""
        return any(name.startswith(f"ov-{network['vni']:06x}") for name in self.left_over(driver))

    def _vlan_interfaces(self, driver: AgentDriver) -> list[str]:
        """Return the VLAN interfaces in a host's own namespace."""
        return driver.run("ip", "-o", "link", "show", "type", "vlan").splitlines()

    def _wanted_ports(
        self, driver: AgentDriver, networks: list[Json], mine: list[Json]
    ) -> dict[int, int]:
        """Return how many ports each sandbox has, by VNI; routers and plugs need one without."""
        local = collections.Counter(int(each["vni"]) for each in mine)
        shown = driver.get("/v1/networks")["networks"]
        exposed = {each["vni"] for each in shown if each["exposed"]}
        return {
            each["vni"]: local[each["vni"]]
            for each in networks
            if each["sandbox"] != "none"
            and (
                local[each["vni"]]
                or each["routers"]
                or each["plugs"]
                or (self.may_stay_exposed and each["vni"] in exposed)
            )
        }


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb: the state before it, the request, and how it is undone."""

    name: str
    victim: Callable[[Pair], AgentDriver]
    prepare: Callable[[Pair], object]
    act: Callable[[Pair], object]
    undo: Callable[[Pair], object]
    is_followed: bool = False  # by controllers, which go on after the answer


def nothing(_pair: Pair) -> None:
    """There is nothing to prepare or to undo."""


def attach(driver: AgentDriver) -> Json:
    """Attach the host's namespace."""
    return driver.post("/v1/endpoints", target=f"netns:c{driver.number}", networks=["blue"])


def detach(driver: AgentDriver) -> Json:
    """Detach it."""
    return driver.post("/v1/detach", target=f"netns:c{driver.number}")


@contextlib.contextmanager
def crash_pair(setting: str = "") -> Iterator[Pair]:
    """Join two hosts with network blue, each with a namespace to attach.

    `setting` is a line for their configuration files.
    """
    assert not host_process.running(), "a lab is up on this machine: overlayd lab down"
    drivers: list[AgentDriver] = []
    try:
        drivers = connect(lab.make(2))
        for each in drivers if setting else []:
            each.run("sh", "-c", f"mkdir -p {CONFIG.parent}; echo '{setting}' >> {CONFIG}")
        join_all(drivers, **FLAT)
        drivers[0].post("/v1/networks", name="blue", subnets=[{"subnet": "10.32.0.0/16"}])
        for each in drivers:
            each.run("ip", "netns", "add", f"c{each.number}")
        attach(drivers[0])
        pair = Pair(drivers)
        pair.known_complaints = set().union(*(pair.complaints(each) for each in drivers))
        yield pair
    finally:
        end_all(drivers)


def points(pair: Pair, verb: Verb) -> list[str]:
    """Return the points that the verb passes, in order."""
    verb.prepare(pair)
    victim = verb.victim(pair)
    plan(victim, "trace")
    verb.act(pair)
    if verb.is_followed:
        carry_out(pair, victim)
    seen = passed(victim)
    verb.undo(pair)
    require_sound(pair, f"after an uninterrupted {verb.name}")
    return seen


def carry_out(pair: Pair, victim: AgentDriver) -> None:
    """Wait until what an answer has promised is done, or the victim has ended: its kernel follows.

    Raises TimedOutError.
    """
    sound_since = math.inf

    def is_done() -> bool:
        nonlocal sound_since
        if victim.pid() == 0:
            return True
        with contextlib.suppress(OSError, OverlayError):  # it dies while it is asked
            sound_since = min(sound_since, time.monotonic()) if pair.sound() else math.inf
        return time.monotonic() - sound_since > _QUIET_S

    wait_until(is_done, "what was asked for is done")


def crash(pair: Pair, verb: Verb, point: str, meanwhile: Callable[[Pair], None] = nothing) -> bool:
    """Crash at a point, start again, check; False if the verb did not pass it this time.

    `meanwhile` is done to the dead agent's host.
    """
    verb.prepare(pair)
    victim = verb.victim(pair)
    plan(victim, point)
    with contextlib.suppress(OSError, OverlayError):
        verb.act(pair)
        if verb.is_followed:
            carry_out(pair, victim)
    crashed = passed(victim) != []
    if crashed:
        assert victim.wait() == EXIT_CODE
        meanwhile(pair)
        pair.restart(victim)
    require_all_well(pair, verb, f"a crash of {verb.name} at {point}")
    return crashed


def plan(victim: AgentDriver, line: str) -> None:
    """Write what the agent shall do at which point."""
    victim.run("sh", "-c", f"rm -f {PLAN}.passed; echo '{line}' > {PLAN}")


def passed(victim: AgentDriver) -> list[str]:
    """End the plan; return the points of it that were passed."""
    return victim.run("sh", "-c", f"rm -f {PLAN}; cat {PLAN}.passed 2>/dev/null || true").split()


def require_all_well(pair: Pair, verb: Verb, fault: str) -> None:
    """Check the hosts after a fault during a verb, and after it was done again and undone."""
    require_sound(pair, f"after {fault}")
    wait_until(lambda: succeeds(verb, pair), f"{verb.name} succeeds after {fault}")
    verb.undo(pair)
    require_sound(pair, f"after {fault}, done again and undone")


def require_sound(pair: Pair, when: str) -> None:
    """Wait until all hosts agree, with each other and with their kernels."""
    try:
        wait_until(pair.sound, f"all well {when}")
    except OverlayError as error:
        raise AssertionError(f"{error}: {pair.fault}") from error


def crash_at_kinds(pair: Pair, verb: Verb) -> None:
    """Crash at the first, a middle and the last pass of each kind of point; print the numbers."""
    require_most(verb.name, {at: crash(pair, verb, at) for at in of_each_kind(points(pair, verb))})


def of_each_kind(seen: list[str]) -> list[str]:
    """Return the first, a middle and the last pass of each kind of point."""
    return [
        f"{name}:{number}"
        for name in dict.fromkeys(seen)
        for number in sorted({1, (seen.count(name) + 1) // 2, seen.count(name)})
    ]


def require_most(told: str, met: dict[str, bool]) -> None:
    """Print at how many points the fault came; raises AssertionError if kinds were not met.

    What follows the records may pass fewer points than before, so the last ones are not sure.
    """
    missed = [point for point, is_met in met.items() if not is_met]
    print(f"{told}: {len(met) - len(missed)} of {len(met)} points; not: {missed}")  # noqa: T201
    kinds = {point.partition(":")[0] for point in met}
    met_kinds = {point.partition(":")[0] for point, is_met in met.items() if is_met}
    assert len(met_kinds) >= len(kinds) * 3 // 4


def succeeds(verb: Verb, pair: Pair) -> bool:
    """Ask for the verb; hosts that have just started may need a moment to find each other."""
    try:
        verb.act(pair)
    except ApiRefusedError:
        return False
    return True
