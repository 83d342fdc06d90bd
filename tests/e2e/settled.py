"""The checks that hold on every host of a settled random walk, including packet flow.

Owns: the comparison of hosts with the model, and the snapshot of a host's kernel.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
import time
from collections.abc import Callable

from overlay.lab.driver import AgentDriver, Json, differences
from tests.e2e.walk import Walk, names_on
from tests.e2e.walk_hosts import SETTLE_S
from tests.e2e.world import ASK, SERVE

PAIRS_MAX, DENIED_MAX, PORTS_MAX = 6, 2, 3
PATIENCE_S = 75.0  # ARP may have the MAC of an address's previous owner
_FAULTY = re.compile("malformed|unknown-(?!generation|sender)")
SNAPSHOT = r"""
ip -o link | sed 's/^[0-9]*: //; s/link-netnsid.*//'
ls /run/netns /etc/netns 2>/dev/null
nft list ruleset
for f in -4 -6; do
    ip $f route show table all; ip $f rule; ip $f -o neighbour show nud permanent
done | grep -v -e fe80: -e ff00:
grep -rs . /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf /proc/sys/net/ipv6/conf |
    grep -v stable_secret
ls -d /var/lib/overlayd /run/overlayd 2>/dev/null
true
"""


def snapshot(driver: AgentDriver) -> list[str]:
    """Return all that an overlayd may have changed on a host, as lines."""
    return driver.run("sh", "-c", SNAPSHOT).splitlines()


def check(walk: Walk) -> None:
    """Wait until every host is as the model has it; then packets must flow."""
    until = time.monotonic() + SETTLE_S
    while found := faults(walk):
        assert time.monotonic() < until, "\n".join(found)
    walk.hosts.shaken = False
    found = [*_unreached(walk), *_unanswered(walk)]
    assert not found, "\n".join(found)


def faults(walk: Walk) -> list[str]:
    """Return the differences from the model, as text."""
    taken = [
        (name, ip)
        for held in walk.containers.values()
        for name, seat in held.seats.items()
        for ip in seat["ips"]
    ]
    found = [f"given twice: {each}" for each in set(taken) if taken.count(each) > 1]
    for driver in walk.hosts.drivers:
        said = [*_cluster(driver), *_networks(walk, driver), *_endpoints(walk, driver),
                *_names(walk, driver), *_log(driver)]  # fmt: skip
        said += [f"verify: {each}" for each in differences(driver)]
        found += [f"vm{driver.number}: {each}" for each in said]
    return found


def _cluster(driver: AgentDriver) -> list[str]:
    status = driver.get("/v1/status")
    counts = {state: n for state, n in status["cluster"]["members"].items() if state != "left"}
    found = [] if counts == {"alive": 3, "suspect": 0, "dead": 0} else [f"members: {counts}"]
    found += [f"drops: {each}" for each in status["drops"].items() if _FAULTY.match(each[0])]
    return found + [f"health: {each['text']}" for each in status["health"]]


def _log(driver: AgentDriver) -> list[str]:
    counted = driver.run("sh", "-c", "grep -c Traceback /run/overlayd/agent.log || true").strip()
    return [] if counted == "0" else [f"{counted} tracebacks in its log"]


def _networks(walk: Walk, driver: AgentDriver) -> list[str]:
    if names_on(driver) != set(walk.networks):
        return [f"networks: {names_on(driver)}, not {set(walk.networks)}"]
    found = []
    for shown in driver.get("/v1/networks")["networks"]:
        known = walk.networks[shown["name"]]
        wanted = (known.vni, known.subnets, walk.is_exposed(driver.number, shown["name"]))
        has = (shown["vni"], [each["subnet"] for each in shown["subnets"]], shown["exposed"])
        if has != wanted:
            found.append(f"{shown['name']}: {has}, not {wanted}; {shown['exposed_why']}")
    return found


def _endpoints(walk: Walk, driver: AgentDriver) -> list[str]:
    answer = driver.get("/v1/endpoints")
    has: dict[tuple[str, str], Json] = {}
    for shown in answer["endpoints"]:
        has[shown["network"], shown["name"]] = shown
    found = [] if len(has) == len(answer["endpoints"]) else ["a name is there twice"]
    wanted = {
        (network, name): (held.host, seat)
        for name, held in walk.containers.items()
        for network, seat in held.seats.items()
        if network not in answer["elsewhere"] or held.host == driver.number
    }
    if has.keys() != wanted.keys():
        return [*found, f"endpoints: {sorted(has)}, not {sorted(wanted)}"]
    for key, (host, seat) in wanted.items():
        shown = has[key]
        said = [shown[field] for field in ("ips", "mac", "node", "aliases")]
        meant = [seat["ips"], seat["mac"], f"vm{host}", seat.get("aliases", [])]
        if said != meant or not seat.get("labels", {}).items() <= shown["labels"].items():
            found.append(f"{key}: {said}, not {meant}; labels {shown['labels']}")
        if host == driver.number and shown["ifname"] != seat["ifname"]:
            found.append(f"{key}: interface {shown['ifname']}, not {seat['ifname']}")
    return found


def _names(walk: Walk, driver: AgentDriver) -> list[str]:
    answer = driver.get("/v1/dns")
    has = {(each["network"], each["name"]): each["ips"] for each in answer["names"]}
    wanted = {(network, name): [ip] for (_, network, name), ip in walk.given.items()}
    for name, held in walk.containers.items():
        for network, seat in held.seats.items():
            for word in (name, *seat.get("aliases", [])):
                wanted[network, word] = seat["ips"]
    wanted = {key: ips for key, ips in wanted.items() if key[0] not in answer["elsewhere"]}
    return [] if has == wanted else [f"names: {has}, not {wanted}"]


# --- packets ---------------------------------------------------------------------------------


def _soon(asked: Callable[[], bool]) -> bool:
    until = time.monotonic() + PATIENCE_S
    while not asked():
        if time.monotonic() > until:
            return False
    return True


def _inside(driver: AgentDriver, name: str, command: str) -> str:
    return driver.run("sh", "-c", f"ip netns exec {name} {command} 2>&1 || true")


def _unreached(walk: Walk) -> list[str]:
    """Return which containers don't reach each other, of some that share a subnet."""
    seats = [
        (name, network, ip)
        for name, held in walk.containers.items()
        for network, seat in held.seats.items()
        for ip in seat["ips"]
    ]
    pairs = [
        (source, target, network, ip)
        for (source, network, own), (target, other, ip) in itertools.permutations(seats, 2)
        if source != target and network == other and _same_subnet(walk, network, own, ip)
    ]
    found: list[str] = []
    denied = [pair for pair in pairs if walk.denies(pair[2], pair[0], pair[1])]
    allowed = [pair for pair in pairs if pair not in denied]
    for pair in walk.rng.sample(allowed, min(PAIRS_MAX, len(allowed))):
        found += _not_reached(walk, *pair)
    for source, target, network, ip in walk.rng.sample(denied, min(DENIED_MAX, len(denied))):
        driver = walk.hosts.driver(walk.containers[source].host)
        if "1 received" in _inside(driver, source, _ping(walk, source, network, ip)):
            found.append(f"{source} reaches {target} at {ip} on {network}, and must not")
        walk.denied_pings.start(driver, source, target, _endless_ping(walk, source, network, ip))
    return found


def _ping(walk: Walk, source: str, network: str, ip: str) -> str:
    return f"{_endless_ping(walk, source, network, ip)} -c1 -W1"


def _endless_ping(walk: Walk, source: str, network: str, ip: str) -> str:
    return f"ping -n -I {walk.containers[source].seats[network]['ifname']} {ip}"


def _not_reached(walk: Walk, source: str, target: str, network: str, ip: str) -> list[str]:
    held = walk.containers[source]
    driver, found = walk.hosts.driver(held.host), []
    ping = _ping(walk, source, network, ip)
    if not _soon(lambda: "1 received" in _inside(driver, source, ping)):
        found.append(f"{source} does not reach {target} at {ip} on {network}")
    in_vlan = any("vlan" in seat for seat in held.seats.values())  # without a gateway
    if held.is_bare and not in_vlan:  # others have no resolv.conf of their own
        word = f"{target}.{network}.overlay"
        said = _inside(driver, source, f"getent ahosts {word}")
        if ip not in said:
            found.append(f"{source} hears of {word}: {said!r}, not {ip}")
    return found


def _same_subnet(walk: Walk, network: str, *ips: str) -> bool:
    ranges = map(ipaddress.ip_network, walk.networks[network].subnets)
    addresses = [ipaddress.ip_address(ip) for ip in ips]
    return any(all(address in each for address in addresses) for each in ranges)


def _unanswered(walk: Walk) -> list[str]:
    """Return the published ports that do not answer, out of some that have a target."""
    leading = [
        (*place, name)
        for place, (name, network) in sorted(walk.published.items())
        if walk.is_exposed(place[0], network)
        and name in walk.containers
        and "." in walk.containers[name].seats.get(network, {"ips": [""]})["ips"][0]
        and "vlan" not in walk.containers[name].seats[network]
    ]
    found: list[str] = []
    for place in walk.rng.sample(leading, min(PORTS_MAX, len(leading))):
        found += _not_answered(walk, *place)
    return found


def _not_answered(walk: Walk, number: int, port: int, name: str) -> list[str]:
    driver, asker = walk.hosts.driver(walk.containers[name].host), walk.hosts.driver(number % 3 + 1)
    serve = f"timeout 60 ip netns exec {name} python3 -c '{SERVE}' 0.0.0.0 80 tcp"
    driver.run("sh", "-c", f"{serve} >/dev/null 2>&1 & echo $! >/run/server")
    ask = f"python3 -c '{ASK}' {walk.hosts.driver(number).address} {port} tcp 2>/dev/null || true"
    answers = _soon(lambda: asker.run("sh", "-c", ask) != "")
    driver.run("sh", "-c", "kill $(cat /run/server) || true")
    shown = walk.hosts.driver(number).get("/v1/published")["published"]
    return [] if answers else [f"vm{number}'s port {port}, to {name}, does not answer: {shown}"]
