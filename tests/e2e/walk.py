"""Random verbs on random lab hosts, and a small model of the state after them.

Owns: the choice of verbs, and the effect of each on the model. Does not: compare hosts with the
model (`settled`).
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from overlay.lab.driver import AgentDriver, ApiRefusedError, Json, wait_until
from overlay.lab.host_process import HostProcess
from overlay.lab.host_process import run as run_on
from tests.e2e.denied_pings import DeniedPings
from tests.e2e.walk_hosts import EXCUSED, SETTLE_S, WalkHosts

NETWORKS_MAX, CONTAINERS_MAX, POLICIES_MAX = 5, 9, 6


@dataclass
class Network:
    """A network that exists."""

    creator: int  # 0: its creator has left
    vni: int
    subnets: list[str]
    internal: bool
    driver: str
    exposed: dict[int, bool] = field(default_factory=dict)  # by hand, by host

    def hosts(self) -> list[int]:
        """Return where containers can be attached to it."""
        return [1, 2, 3] if self.driver == "overlay" else [self.creator] if self.creator else []


@dataclass
class Container:
    """A container and its attachments."""

    host: int
    is_bare: bool  # created by the agent, with resolv.conf and hosts
    seats: dict[str, Json] = field(default_factory=dict)  # by network: the request and its result


class Walk:
    """One walk; `step` makes a move."""

    def __init__(
        self,
        drivers: list[AgentDriver],
        switch: HostProcess,
        rng: random.Random,
        tell: Callable[[str], None],  # the steps so far, printed on failure
    ) -> None:
        self.hosts = WalkHosts(drivers, tell)
        self._tell = tell
        self.rng = rng
        self.networks: dict[str, Network] = {}
        self.containers: dict[str, Container] = {}
        self.given: dict[tuple[int, str, str], str] = {}  # host, network, name: address
        self.published: dict[tuple[int, int], tuple[str, str]] = {}  # host, port: name, network
        self.denied: dict[str, tuple[str, str, str]] = {}  # policy: network, source, target
        self.denied_pings = DeniedPings()
        self.holders = {1}  # of the cluster's authority
        self._switch = switch
        self._number = 0
        self._usual: list[tuple[int, Callable[[], None]]] = [
            (14, self._attach), (7, self._detach), (5, self._remove_container), (4, self._again),
            (5, self._publish), (3, self._unpublish), (4, self._give), (3, self._take_back),
        ]  # fmt: skip
        self._more: list[tuple[int, Callable[[], None]]] = [
            (9, self._create), (4, self._remove_network), (5, self._expose),
            (6, self._deny), (2, self._allow),
        ]  # fmt: skip
        self._rare: list[tuple[int, Callable[[], None]]] = [
            (2, self._invite), (1, self._rotate), (3, self._restart), (2, self._leave),
            (1, self._repair), (2, self._cut), (5, self._end_meanwhile),
        ]  # fmt: skip

    # --- actions --------------------------------------------------------------------------

    def step(self) -> None:
        """Make one move."""
        self._move([*self._usual, *self._more, *self._rare])

    def _move(self, moves: list[tuple[int, Callable[[], None]]]) -> None:
        self.rng.choices([move for _, move in moves], [weight for weight, _ in moves])[0]()

    def _name(self, start: str) -> str:
        self._number += 1
        return f"{start}{self._number}"

    def _any_host(self) -> int:
        return self.rng.randint(1, len(self.hosts.drivers))

    def _some(self, things: Iterable[Any]) -> Any:
        found = sorted(things)
        return self.rng.choice(found) if found else None

    # --- networks -----------------------------------------------------------------------

    def _create(self) -> None:
        if len(self.networks) >= NETWORKS_MAX:
            return
        number, name, rng = self._any_host(), self._name("n"), self.rng
        body: Json = {
            "name": name,
            "subnets": [self._subnet(k) for k in rng.choice(("", "4", "4", "46", "44", "6"))],
            "driver": rng.choice(("overlay",) * 5 + ("bridge",)),
            "internal": rng.random() < 0.2,
            "isolate_subnets": rng.random() < 0.2,
            "port_security": rng.random() < 0.8,
            "labels": {f"k{n}": "é" * n for n in range(rng.choice((0, 1, 5)))},
        }  # fmt: skip
        if body["driver"] == "overlay" and rng.random() < 0.3:
            body["vni"] = 1000 + 10 * self._number
        made = self.hosts.ask(number, "POST", "/v1/networks", **body)
        shown = [subnet["subnet"] for subnet in made["subnets"]]
        self.networks[name] = Network(number, made["vni"], shown, body["internal"], body["driver"])
        for driver in self.hosts.drivers:
            wait_until(lambda driver=driver: name in names_on(driver), name, SETTLE_S)  # type: ignore[misc]

    def _subnet(self, kind: str) -> Json:
        self._number += 1
        if kind == "6":
            return {"subnet": f"fd00:{self._number:x}::/64"}
        base = f"10.{64 + self._number // 250}.{self._number % 250}"
        found: Json = {"subnet": f"{base}.0/24"}
        option = self.rng.choice(("", "", "gateway", "range", "auxiliary", "block"))
        if option == "gateway":
            found["gateway"] = f"{base}.254"
        elif option == "range":
            found["ip_range"] = f"{base}.128/26"
        elif option == "auxiliary":
            found["auxiliary"] = {"router": f"{base}.2"}
        elif option == "block":
            found["block_length"] = 27
        return found

    def _remove_network(self) -> None:
        name = self._some(self.networks)
        if name is None:
            return
        number, path = self._any_host(), f"/v1/networks/{name}"
        if any(name in container.seats for container in self.containers.values()):
            self.hosts.must_refuse(number, "DELETE", path)
            return
        self.remove_network(number, name)

    def remove_network(self, number: int, name: str) -> None:
        """Remove a network that nothing is attached to."""
        self.hosts.ask(number, "DELETE", f"/v1/networks/{name}")
        del self.networks[name]
        for key in [key for key in self.given if key[1] == name]:
            del self.given[key]
        for place in [place for place, (_, on) in self.published.items() if on == name]:
            del self.published[place]
        for policy in [policy for policy, (on, _, _) in self.denied.items() if on == name]:
            del self.denied[policy]

    def _deny(self) -> None:
        """Deny one container of a network another one there, from any host."""
        network = self._some(self.networks)
        there = sorted(name for name, held in self.containers.items() if network in held.seats)
        if len(there) < 2 or len(self.denied) >= POLICIES_MAX:
            return
        source, target = self.rng.sample(there, 2)
        name = self._name("p")
        body = {"network": network, "from": [f"name={source}"], "to": [f"name={target}"]}
        self.hosts.ask(self._any_host(), "POST", "/v1/policies", name=name, action="deny", **body)
        self.denied[name] = (network, source, target)

    def _allow(self) -> None:
        name = self._some(self.denied)
        if name is not None:
            self.denied_pings.end(*self.denied[name][1:])
            self.hosts.ask(self._any_host(), "DELETE", f"/v1/policies/{name}")
            del self.denied[name]

    def denies(self, network: str, source: str, target: str) -> bool:
        """Return whether a container must not reach another, by a policy, isolation or VLANs."""
        one, other = (self.containers[name].seats[network] for name in (source, target))
        apart = one.get("vlan") != other.get("vlan")
        isolated = one.get("isolated") and other.get("isolated")
        return bool(apart or isolated or (network, source, target) in self.denied.values())

    def _expose(self) -> None:
        name = self._some(name for name, network in self.networks.items() if network.hosts())
        if name is None:
            return
        network = self.networks[name]
        number = self.rng.choice(network.hosts())
        if network.internal:
            self.hosts.must_refuse(number, "POST", "/v1/expose", network=name)
            return
        exposed = self.rng.random() < 0.6
        self.hosts.ask(number, "POST", "/v1/expose" if exposed else "/v1/unexpose", network=name)
        network.exposed[number] = exposed

    def is_exposed(self, number: int, name: str) -> bool:
        """Return whether a network is exposed on a host."""
        network = self.networks[name]
        populated = any(c.host == number and name in c.seats for c in self.containers.values())
        return network.exposed.get(number, populated and not network.internal)

    # --- containers ---------------------------------------------------------------------

    def _attach(self) -> None:
        """Create or choose a container, and attach it to networks that it is not on."""
        name = self._some(self.containers) if self.rng.random() < 0.3 else None
        if name is None:
            if len(self.containers) >= CONTAINERS_MAX:
                return
            name, host = self._name("c"), self._any_host()
            is_bare = self.rng.random() < 0.7
            if is_bare:
                self.hosts.ask(host, "POST", "/v1/containers", name=name)
            else:
                self._tell(f"vm{host} ip netns add {name}")
                self.hosts.driver(host).run("ip", "netns", "add", name)
            self.containers[name] = Container(host, is_bare)
        held = self.containers[name]
        chosen = [each for each in sorted(self.networks) if self.rng.random() < 0.5][:2]
        for network in chosen:
            if network not in held.seats and held.host in self.networks[network].hosts():
                self._seat(name, network)

    def _seat(self, name: str, network: str) -> None:
        rng, held = self.rng, self.containers[name]
        wish: Json = {"target": f"netns:{name}", "networks": [network]}
        match rng.choice(("", "", "aliases", "labels", "rates", "mac", "ifname", "open")):
            case "aliases":
                wish["aliases"] = [f"{name}-a{n}" for n in range(rng.choice((1, 8)))]
            case "labels":
                wish["labels"] = {f"l{n}": "v" * n for n in range(rng.choice((1, 13)))}
            case "rates":
                wish |= {"rate_in": 10_000_000, "rate_out": rng.choice((0, 64_000_000))}
            case "mac":
                self._number += 1
                wish["mac"] = f"02:aa:00:00:{self._number // 256:02x}:{self._number % 256:02x}"
            case "ifname":
                wish["ifname"] = self._name("net")
            case "open":
                wish["port_security"] = False
        if rng.random() < 0.3 and "port_security" not in wish:
            wish |= rng.choice(({"isolated": True}, {"vlan": "10"}, {"vlan": "20"}))
        if rng.random() < 0.2:
            wish["gateway_priority"] = rng.randint(-5, 5)
        made = self.hosts.ask(held.host, "POST", "/v1/endpoints", **wish)["endpoints"][0]
        held.seats[network] = wish | {key: made[key] for key in ("ips", "mac", "ifname")}

    def _seated(self) -> str | None:
        found: str | None = self._some(n for n, held in self.containers.items() if held.seats)
        return found

    def _again(self) -> None:
        """Attach an attached container, with another rate."""
        name = self._seated()
        if name is None:
            return
        held = self.containers[name]
        network = self._some(held.seats)
        rate = self.rng.choice((0, 64_000, 32_000_000_000))
        made = self.hosts.ask(
            held.host, "POST", "/v1/endpoints",
            target=f"netns:{name}", networks=[network], rate_in=rate,
        )["endpoints"][0]  # fmt: skip
        assert (made["ips"], made["created"]) == (held.seats[network]["ips"], False)

    def _detach(self) -> None:
        name = self._seated()
        if name is None:
            return
        held = self.containers[name]
        chosen = [each for each in sorted(held.seats) if self.rng.random() < 0.6]
        self.denied_pings.end(name)
        answer = self.hosts.ask(
            held.host, "POST", "/v1/detach", target=f"netns:{name}", networks=chosen
        )
        gone = {each["network"] for each in answer["detached"]}
        assert self.hosts.repeated or gone == set(chosen or held.seats), answer
        held.seats = {
            each: seat for each, seat in held.seats.items() if each not in chosen and chosen
        }

    def _remove_container(self) -> None:
        name = self._some(self.containers)
        if name is not None:
            self.drop(name)

    def drop(self, name: str) -> None:
        """Remove a container, in the way of its kind."""
        held = self.containers[name]
        self.denied_pings.end(name)
        if held.is_bare:
            self.hosts.ask(held.host, "DELETE", f"/v1/containers/{name}")
        else:
            if self.rng.random() < 0.5:  # or it simply exits
                self.hosts.ask(held.host, "POST", "/v1/detach", target=f"netns:{name}")
            self._tell(f"vm{held.host} ip netns del {name}")
            self.hosts.driver(held.host).run("ip", "netns", "del", name)
        del self.containers[name]

    # --- names and ports ----------------------------------------------------------------

    def _publish(self) -> None:
        name = self._seated()
        if name is None:
            return
        held = self.containers[name]
        # A VLAN has no gateway, so none for the answers to the world.
        plain = [network for network, seat in held.seats.items() if "vlan" not in seat]
        network = self._some(n for n in plain if self.is_exposed(held.host, n))
        if network is None:
            return
        port = 8000 + self.rng.randrange(200)
        if (held.host, port) in self.published:
            return
        self.hosts.ask(
            held.host, "POST", "/v1/published",
            name=name, network=network, ports=[f"{port}:80"],
        )  # fmt: skip
        self.published[held.host, port] = (name, network)

    def _unpublish(self) -> None:
        place = self._some(self.published)
        if place is not None:
            number, port = place
            name, _ = self.published[place]
            self.hosts.ask(number, "POST", "/v1/unpublish", name=name, ports=[f"{port}:80"])
            del self.published[place]

    def _give(self) -> None:
        name = self._seated()
        if name is None:
            return
        number, network = self.containers[name].host, self._some(self.containers[name].seats)
        key = (number, network, f"given{self.rng.randrange(4)}-{number}")
        ip = f"192.0.2.{self.rng.randint(1, 250)}"
        self.hosts.ask(number, "POST", "/v1/dns", network=network, name=key[2], ips=[ip])
        self.given[key] = ip

    def _take_back(self) -> None:
        key = self._some(self.given)
        if key is not None:
            number, network, name = key
            self.hosts.ask(number, "DELETE", f"/v1/dns/{name}?network={network}")
            del self.given[key]

    # --- the cluster --------------------------------------------------------------------

    def _invite(self) -> None:
        number = self._some(self.holders)
        made = self.hosts.ask(number, "POST", "/v1/tokens", uses=1, expires_s=600, label="a walk")
        self.hosts.ask(number, "DELETE", f"/v1/tokens/{made['id']}")

    def _rotate(self) -> None:
        self.hosts.ask(self._some(self.holders), "POST", "/v1/keys/rotate")

    def _repair(self) -> None:
        number = self._any_host()
        self._tell(f"vm{number} verify --repair")
        self.hosts.driver(number).get("/v1/verify?repair=1")

    def _restart(self) -> None:
        number = self._any_host()
        how = self.rng.choice((signal.SIGTERM, signal.SIGKILL))
        self._tell(f"vm{number} {how.name} and start")
        self.hosts.driver(number).end(how)
        self.hosts.driver(number).start()
        self.hosts.shaken = True

    def _leave(self) -> None:
        """Leave and join again, as another node; containers stay, attached to nothing."""
        others = {number: self.holders - {number} for number in (1, 2, 3)}
        number = self._some(each for each, holders in others.items() if holders)
        if number is None:
            return
        holder = self._some(others[number])
        self.denied_pings.end(*(name for name, held in self.containers.items()
                                if held.host == number))  # fmt: skip
        self.hosts.ask(number, "POST", "/v1/leave")
        for held in self.containers.values():
            held.seats = {} if held.host == number else held.seats
        for network in self.networks.values():
            network.exposed.pop(number, None)
            network.creator = 0 if network.creator == number else network.creator
        self.given = {key: ip for key, ip in self.given.items() if key[0] != number}
        self.published = {at: what for at, what in self.published.items() if at[0] != number}
        self.holders.discard(number)
        token = self.hosts.driver(holder).get("/v1/token")["token"]
        self.hosts.shaken = True
        self.hosts.ask(
            number, "POST", "/v1/join", peers=[self.hosts.driver(holder).address], token=token
        )
        self.promote(holder, number)

    def promote(self, holder: int, number: int) -> None:
        """Make a host another holder of the authority."""
        self.hosts.ask(holder, "POST", "/v1/promote", node=f"vm{number}")
        self.holders.add(number)

    def _cut(self) -> None:
        """Take a host's link away for a while: verbs may be refused, but never half done."""
        number = self._any_host()
        port = f"to-vm{number}"
        self._tell(f"vm{number} is cut off")
        run_on(self._switch, "ip", "link", "set", port, "down")
        self.hosts.is_cut = self.hosts.shaken = True
        try:
            until = time.monotonic() + 3 * self.rng.random()
            while True:
                try:
                    self._move(self._usual)
                except ApiRefusedError as error:
                    if error.status not in EXCUSED:
                        raise
                    self._tell(f"refused: {error}")
                if time.monotonic() > until:
                    break
        finally:
            run_on(self._switch, "ip", "link", "set", port, "up")
            self.hosts.is_cut = False
            self._tell(f"vm{number} is back")

    def _end_meanwhile(self) -> None:
        """Kill an agent during a verb."""
        self.hosts.delay_s = 0.08 * self.rng.random()
        try:
            self._move([*self._usual, *self._more])
        finally:
            self.hosts.delay_s = None


def names_on(driver: AgentDriver) -> set[str]:
    """Return the networks that a host knows."""
    return {str(network["name"]) for network in driver.get("/v1/networks")["networks"]}
