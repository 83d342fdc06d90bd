"""The simulated world: hosts, their network, a storm, then calm; and what came of it.

Owns: building the hosts, carrying out faults and load, the end of the storm, and the verdict.
What must hold is checked by `ledger` (always) and `verdict` (after the storm).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from overlay import limits
from overlay.core.records import CLUSTER_SCOPE, Participation
from overlay.core.settings import Settings
from overlay.model import Ip, Network, NodeId, Subnet, Vni, parse_ip
from overlay.sim import faults
from overlay.sim.chance import Chance
from overlay.sim.codec import SharingCodec
from overlay.sim.comings import Comings
from overlay.sim.datapath import Datapath
from overlay.sim.faults import (
    Clog,
    Crash,
    Fault,
    Leave,
    Move,
    Newcomer,
    Partition,
    Rotate,
    Stall,
    Tamper,
)
from overlay.sim.host import Host
from overlay.sim.kernel import Refused
from overlay.sim.keywatch import KeysBrokenError, KeyWatch
from overlay.sim.ledger import Book, BrokenError
from overlay.sim.network import Cut
from overlay.sim.network import Network as Wires
from overlay.sim.outcome import Outcome
from overlay.sim.sabotage import tamper
from overlay.sim.scenario import Scenario
from overlay.sim.schedule import Schedule
from overlay.sim.surroundings import Surroundings
from overlay.sim.verdict import Verdict
from overlay.sim.work import Wish, Work

_DAWN_S: Final = 3.0  # to make the networks and the first containers, in calm weather
_STEP_S: Final = 0.5  # between two looks at the whole
_CALM_MAX_S: Final = 120.0
# After all is equal it must stay so, with nothing to do, but that keys go that nobody uses.
_CALM_AFTER_S: Final = limits.KEY_REST_S + 4.0
_ENDPOINTS_MAX: Final = 12  # per host and network
_GROW_S: Final = 0.3
_UPSET_S: Final = 15.0
_NO_MEMORY_S: Final = 5.0


@dataclass(slots=True)
class Site:
    """A host with the parts of its agent."""

    host: Host
    datapath: Datapath
    work: Work
    networks: list[Network] = field(default_factory=list)


class World:
    """One run of one scenario."""

    def __init__(self, scenario: Scenario, settings: Settings | None = None) -> None:
        self.scenario = scenario
        self.chance = Chance(scenario.seed)
        self.schedule = Schedule()
        self.wires = Wires(self.schedule, self.chance.stream("network"))
        self.story: list[tuple[float, str]] = []
        self.around = Surroundings(
            self.schedule,
            self.wires,
            SharingCodec(),
            settings or Settings(),
            self.chance.stream("hosts"),
            self.tell,
            KeyWatch(
                self.chance.stream("keys"), self._host_of, self._is_cut, scenario.key_interval
            ),
        )
        self.around.keys.tell = self.tell
        self.hosts: list[Host] = []
        self._by_id: dict[NodeId, Host] = {}
        self.book = Book(self.hosts)
        self.sites: list[Site] = []
        self.faults = faults.draw(scenario, self.chance.stream("faults"))
        self.phase = "dawn"
        self._load = self.chance.stream("load")
        self._sabotage = self.chance.stream("sabotage")
        self._names = 0
        self._moves = 0
        self.networks: list[Network] = []
        for index in range(scenario.nodes):
            self.add_host(index)
        self.verdict = Verdict(self)
        self.comings = Comings(self)

    def tell(self, text: str) -> None:
        """Add a line to the story."""
        self.story.append((self.schedule.now, text))

    def _host_of(self, node_id: NodeId) -> Host:
        return self._by_id[node_id]

    def _is_cut(self, one: Host, other: Host) -> bool:
        return self.wires.is_cut(one.address, other.address)

    # --- building -----------------------------------------------------------------------

    def add_host(self, index: int) -> Site:
        """Make a host, whose agent does not run yet."""
        host = Host(index, address_of(index), self.around)
        datapath = Datapath(host)
        site = Site(host, datapath, Work(host, datapath, self.book))
        self.hosts.append(host)
        self._by_id[host.node_id] = host
        self.sites.append(site)
        return site

    def _begin(self) -> None:
        scenario = self.scenario
        if scenario.grow:
            self.sites[0].host.start()
            for site in self.sites[1:]:
                seeds = self._load.sample(self.hosts[: site.host.index], min(2, site.host.index))
                site.host.disk.seeds = tuple(host.address for host in seeds)
                self.schedule.at(_GROW_S * site.host.index, lambda host: host.start(), site.host)
        else:
            cards = {host.node_id: host.first_card() for host in self.hosts}
            for host in self.hosts:
                host.disk.base_cards = cards
                self.schedule.at(0.0, lambda host: host.start(), host)
        self.wires.weather = scenario.calm()
        self.schedule.at(0.5, self._make_networks)

    def _make_networks(self, _: Any) -> None:
        up = [site for site in self.sites if site.host.node is not None]
        for number in range(self.scenario.networks):
            creator = up[number % len(up)]
            base = parse_ip(f"10.{32 + number}.0.0")
            gateway = parse_ip(f"10.{32 + number}.0.1")
            second = parse_ip(f"10.{132 + number}.0.0")
            subnets = [Subnet(base, 16, gateway)]
            if number % 3 == 1:
                subnets.append(Subnet(second, 24, parse_ip(f"10.{132 + number}.0.1")))
            network = Network(
                Vni(2**23 + 16 * number), f"net{number}", tuple(subnets), creator.host.node_id
            )
            self.networks.append(network)
            part = Participation(network.vni, forwards=False)
            creator.host.publish(creator.host.commit(CLUSTER_SCOPE, [network, part]))
            creator.host.flush()
            count = min(self.scenario.hosts_per_network, len(self.sites))
            for site in self._load.sample(self.sites, count):
                site.networks.append(network)
                for _index in range(self.scenario.endpoints):
                    self.schedule.after(self._load.uniform(0.2, 1.5), self._attach, (site, network))

    # --- load ---------------------------------------------------------------------------

    def _attach(self, where: tuple[Site, Network]) -> None:
        site, network = where
        if site.host.node is None or site.host.gone:
            return
        self._names += 1
        wish = Wish(
            network,
            self._load.randrange(len(network.subnets)),
            f"c{self._names}",
            self._load.randbytes(8),
        )
        site.host.guarded(site.work.attach, wish)

    def _churn(self, _: Any = None) -> None:
        if self.phase != "storm":
            return
        self.schedule.after(self._load.expovariate(self.scenario.churn), self._churn)
        up = [
            site
            for site in self.sites
            if site.host.node is not None and site.networks and not site.host.leaving
        ]
        if not up:
            return
        site = self._load.choice(up)
        network = self._load.choice(site.networks)
        running = [
            container
            for container in site.host.kernel.containers.values()
            if container.endpoint.vni == network.vni
        ]
        many = len(running) / _ENDPOINTS_MAX
        if running and self._load.random() < max(0.4, many):
            site.host.guarded(site.work.detach, self._load.choice(running))
        else:
            self._attach((site, network))

    # --- faults -------------------------------------------------------------------------

    def _strike(self, fault: Fault) -> None:
        self.tell(str(fault))
        match fault:
            case Crash():
                self.comings.crash(fault)
            case Partition():
                self._cut(fault)
            case Clog():
                source, target = self.hosts[fault.source], self.hosts[fault.target]
                until = self.schedule.now + fault.lasts_s
                self.wires.clog(source.address, target.address, until)
            case Stall():
                self.hosts[fault.host].stall(self.schedule.now + fault.lasts_s)
            case Move():
                host = self.hosts[fault.host]
                self._moves += 1
                if not host.gone and not host.leaving:
                    # Until all know the new address, packets to it go astray.
                    asleep_s = host.asleep_until() - self.schedule.now
                    self.book.upset(host, max(0.0, asleep_s) + _UPSET_S)
                    host.guarded(lambda _: host.move(address_of(50_000 + self._moves)))
                    self.sites[fault.host].datapath.wake_all()
            case Rotate():
                host = self.hosts[fault.host]
                if host.keys is not None:
                    host.guarded(host.keys.make)
            case Leave():
                self.comings.leave(self.sites[fault.host])
            case Newcomer():
                self.comings.join(fault)
            case Tamper():
                self._tamper(fault)

    def _cut(self, fault: Partition) -> None:
        side = frozenset(self.hosts[index].address for index in fault.side)
        others = frozenset(host.address for host in self.hosts) - side
        cuts = [Cut(side, others)]
        if not fault.one_way:
            cuts.append(Cut(others, side))
        self.wires.cuts += cuts
        self.schedule.after(fault.lasts_s, self._heal, cuts)

    def _heal(self, cuts: list[Cut]) -> None:
        self.tell("a cut heals")
        for cut in cuts:
            if cut in self.wires.cuts:
                self.wires.cuts.remove(cut)

    def _tamper(self, fault: Tamper) -> None:
        host = self.hosts[fault.host]
        if tamper(host.kernel, fault.how, self._sabotage):
            self.book.upset(host, _UPSET_S)
            self.schedule.after(_NO_MEMORY_S, self._repaired, host)
            # As the netlink monitor would: a hint, and the agent looks.
            self.sites[fault.host].datapath.wake_all()

    def _repaired(self, host: Host) -> None:
        host.kernel.failing = False

    # --- the run ------------------------------------------------------------------------

    def run(self, step: Callable[[], None] = lambda: None) -> Outcome:
        """Run the scenario to its end; `step` is called now and then."""
        outcome = Outcome(self.scenario)
        try:
            self._run(outcome, step)
        except (BrokenError, Refused, AssertionError) as error:
            outcome.failures.append(f"{type(error).__name__}: {error}")
            if not isinstance(error, BrokenError | KeysBrokenError):
                outcome.error = error
        outcome.story = self.story
        outcome.measure(self)
        return outcome

    def _run(self, outcome: Outcome, step: Callable[[], None]) -> None:
        self._begin()
        dawn = _DAWN_S + (_GROW_S * self.scenario.nodes if self.scenario.grow else 0.0)
        self._advance(dawn, outcome, step)
        self.phase = "storm"
        self.tell("the storm begins")
        self.wires.weather = self.scenario.storm()
        for fault in self.faults:
            self.schedule.after(fault.at_s, self._strike, fault)
            if isinstance(fault, Crash) and fault.how == "restored":
                host = self.hosts[fault.host]
                self.schedule.after(max(0.0, fault.at_s - 5.0), lambda host: host.back_up(), host)
        if self.scenario.churn:
            self._churn()
        self._advance(self.scenario.duration, outcome, step)
        self._calm_down(outcome, step)

    def _advance(self, lasts_s: float, outcome: Outcome, step: Callable[[], None]) -> None:
        end = self.schedule.now + lasts_s
        while self.schedule.now < end:
            self.schedule.run_until(min(end, self.schedule.now + _STEP_S))
            self.book.check_bounds(self.wires.size_max)
            outcome.curve.append((self.schedule.now, self.verdict.share_current()))
            step()

    def _calm_down(self, outcome: Outcome, step: Callable[[], None]) -> None:
        self.phase = "calm"
        self.tell("calm")
        self.around.keys.interval_s = 0.0  # the last key made is to be the only one
        self.wires.calm()
        self.wires.weather = self.scenario.calm()
        for host in self.hosts:
            host.end_faults()
            self._repaired(host)
            self.comings.revive(host)
        outcome.calm_from_s = self.schedule.now
        while (wrong := self.verdict.wrong()) is not None:
            if self.schedule.now > outcome.calm_from_s + _CALM_MAX_S:
                outcome.failures.append(f"{_CALM_MAX_S:.0f} s of calm, and still: {wrong}")
                return
            self._advance(_STEP_S, outcome, step)
        outcome.settled_after_s = self.schedule.now - outcome.calm_from_s
        self.tell("all is equal")
        self._advance(_CALM_AFTER_S, outcome, step)
        wrong = self.verdict.wrong() or self.verdict.old_keys() or self.verdict.second_pass()
        if wrong is not None:
            outcome.failures.append(f"it was all equal, and then not any more: {wrong}")


def address_of(number: int) -> Ip:
    """Return the underlay address with that number."""
    return Ip((0x0A800000 + 11 + number).to_bytes(4, "big"))
