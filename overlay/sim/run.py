"""One run of a scenario: start-up, a storm, then calm; and its outcome.

Owns: starting the agents, carrying out faults, ending the storm, and collecting failures.
`invariants` checks what must always hold, `convergence` what must hold after the storm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from overlay import limits
from overlay.core.protocol.settings import ProtocolSettings
from overlay.sim.convergence import ConvergenceCheck
from overlay.sim.environment.network import Cut
from overlay.sim.environment.random_streams import RandomStreams
from overlay.sim.host.host import Host
from overlay.sim.host.kernel import KernelRefusedError
from overlay.sim.host.key_invariants import KeysBrokenError
from overlay.sim.outage import LASTS_S, Outage
from overlay.sim.outcome import Outcome
from overlay.sim.scenario import Scenario
from overlay.sim.world import faults, liar
from overlay.sim.world.churn import Churn
from overlay.sim.world.declarations import Declarations
from overlay.sim.world.faults import (
    Clog,
    Crash,
    Fault,
    Leave,
    Lie,
    Move,
    Newcomer,
    Partition,
    Rotate,
    Stall,
    Tamper,
)
from overlay.sim.world.invariants import InvariantError
from overlay.sim.world.kernel_faults import tamper
from overlay.sim.world.load import Load
from overlay.sim.world.refusals import RefusalError
from overlay.sim.world.world import World, address_of

_START_UP_S: Final = 3.0  # to create the networks and the first containers, in calm weather
_STEP_S: Final = 0.5  # between checks of the whole world
_CALM_MAX_S: Final = 120.0
# Once all hosts are equal they must stay so and change nothing, except for dropping unused keys.
_CALM_AFTER_S: Final = limits.KEY_REST_S + 4.0
_GROW_S: Final = 0.3
_DISTURBED_S: Final = 15.0
_NO_MEMORY_S: Final = 5.0


class Run:
    """Carries out one scenario."""

    def __init__(self, scenario: Scenario, settings: ProtocolSettings | None = None) -> None:
        streams = RandomStreams(scenario.seed)
        self.scenario = scenario
        self.world = World(scenario, streams, settings or ProtocolSettings())
        self.convergence = ConvergenceCheck(self.world)
        self.phase = "dawn"
        self._churn = Churn(self.world)
        self._faults = faults.draw(scenario, streams.stream("faults"))
        self._rng = streams.stream("load")
        self._load = Load(self.world, scenario, self._rng)
        self._declarations = Declarations(
            self.world, scenario.declarations / scenario.duration, streams.stream("declarations")
        )
        self._sabotage = streams.stream("sabotage")
        self._moves = 0

    # --- phases -------------------------------------------------------------------------

    def to_end(self, step: Callable[[], None] = lambda: None) -> Outcome:
        """Run the scenario to its end.

        Calls `step` after every half second of virtual time.
        """
        outcome = Outcome(self.scenario)
        try:
            self._run(outcome, step)
        except (InvariantError, KernelRefusedError, AssertionError) as error:
            outcome.failures.append(f"{type(error).__name__}: {error}")
            if not isinstance(error, InvariantError | KeysBrokenError | RefusalError):
                outcome.error = error
        outcome.story = self.world.story
        outcome.measure(self.world)
        return outcome

    def _run(self, outcome: Outcome, step: Callable[[], None]) -> None:
        self._begin()
        dawn = _START_UP_S + (_GROW_S * self.scenario.nodes if self.scenario.grow else 0.0)
        self._advance(dawn, outcome, step)
        self.phase = "storm"
        self.world.tell("the storm begins")
        self.world.wires.weather = self.scenario.storm()
        for fault in self._faults:
            self.world.schedule.after(fault.at_s, self._strike, fault)
            if isinstance(fault, Crash) and fault.how == "restored":
                host = self.world.hosts[fault.host]
                self.world.schedule.after(
                    max(0.0, fault.at_s - 5.0), lambda host: host.back_up(), host
                )
        self._load.begin_churn()
        self._declarations.begin()
        self._advance(self.scenario.duration, outcome, step)
        self._calm_down(outcome, step)

    def _advance(self, lasts_s: float, outcome: Outcome, step: Callable[[], None]) -> None:
        end = self.world.schedule.now + lasts_s
        while self.world.schedule.now < end:
            self.world.schedule.run_until(min(end, self.world.schedule.now + _STEP_S))
            self.world.invariants.check_bounds(self.world.wires.size_max)
            self.world.invariants.check_gateways(self.world.networks)
            outcome.curve.append((self.world.schedule.now, self.convergence.share_current()))
            step()

    def _calm_down(self, outcome: Outcome, step: Callable[[], None]) -> None:
        self.phase = "calm"
        self._load.end_churn()
        self._declarations.end()
        self.world.tell("calm")
        self.world.environment.keys.interval_s = 0.0  # the last key must remain the only one
        self.world.wires.calm()
        self.world.wires.weather = self.scenario.calm()
        for host in self.world.hosts:
            host.end_faults()
            self._repaired(host)
            self._churn.revive(host)
        outcome.calm_from_s = self.world.schedule.now
        while (wrong := self.convergence.faults()) is not None:
            if self.world.schedule.now > outcome.calm_from_s + _CALM_MAX_S:
                outcome.failures.append(f"after {_CALM_MAX_S:.0f} s of calm, still: {wrong}")
                return
            self._advance(_STEP_S, outcome, step)
        outcome.settled_after_s = self.world.schedule.now - outcome.calm_from_s
        self.world.tell("all is equal")
        self._advance(_CALM_AFTER_S, outcome, step)
        wrong = (
            self.convergence.faults()
            or self.convergence.old_keys()
            or self.convergence.second_pass()
        )
        if wrong is not None:
            outcome.failures.append(f"all hosts were equal, and then no longer: {wrong}")
        elif self.scenario.outage:
            self._outage(outcome, step)

    def _outage(self, outcome: Outcome, step: Callable[[], None]) -> None:
        """Kill a minority of the agents, and attach on every other host."""
        self.phase = "outage"
        outage = Outage(self.world, self._rng)
        wrong = outage.begin()
        self._advance(LASTS_S, outcome, step)
        wrong = wrong or outage.faults()
        if wrong is not None:
            outcome.failures.append(f"in the outage: {wrong}")

    def _begin(self) -> None:
        scenario = self.scenario
        if scenario.grow:
            self.world.sites[0].host.start()
            for site in self.world.sites[1:]:
                seeds = self._rng.sample(
                    self.world.hosts[: site.host.index], min(2, site.host.index)
                )
                site.host.disk.seeds = tuple(host.address for host in seeds)
                self.world.schedule.at(
                    _GROW_S * site.host.index, lambda host: host.start(), site.host
                )
        else:
            cards = {host.node_id: host.first_card() for host in self.world.hosts}
            for host in self.world.hosts:
                host.disk.base_cards = cards
                self.world.schedule.at(0.0, lambda host: host.start(), host)
        self.world.wires.weather = scenario.calm()
        self._load.begin()

    # --- faults -------------------------------------------------------------------------

    def _strike(self, fault: Fault) -> None:
        self.world.tell(str(fault))
        self._disturb(fault)
        match fault:
            case Crash():
                self._churn.crash(fault)
            case Partition():
                self._cut(fault)
            case Clog():
                source, target = self.world.hosts[fault.source], self.world.hosts[fault.target]
                until = self.world.schedule.now + fault.lasts_s
                self.world.wires.clog(source.address, target.address, until)
            case Stall():
                self.world.hosts[fault.host].stall(self.world.schedule.now + fault.lasts_s)
            case Move():
                host = self.world.hosts[fault.host]
                self._moves += 1
                if not host.gone and not host.leaving:
                    # Packets to the host are lost until all others know the new address.
                    asleep_s = host.asleep_until() - self.world.schedule.now
                    self.world.invariants.mark_disturbed(host, max(0.0, asleep_s) + _DISTURBED_S)
                    host.guarded(lambda _: host.move(address_of(50_000 + self._moves)))
                    self.world.sites[fault.host].reconciler.wake_all()
            case Rotate():
                host = self.world.hosts[fault.host]
                if host.keys is not None:
                    host.guarded(host.keys.make)
            case Leave():
                self._churn.leave(self.world.sites[fault.host])
            case Newcomer():
                self._churn.join(fault)
            case Tamper():
                self._tamper(fault)
            case Lie():
                host, networks = self.world.hosts[fault.host], self.world.networks
                network = networks[fault.host % len(networks)]
                host.guarded(lambda _: liar.lie(host, fault.kind, network))

    def _disturb(self, fault: Fault) -> None:
        """Note which hosts may miss what happens meanwhile."""
        disturbed: tuple[int, ...]
        match fault:
            case Crash():
                disturbed, lasts_s = (fault.host,), fault.down_s
            case Partition():
                disturbed, lasts_s = fault.side, fault.lasts_s
            case Clog():
                disturbed, lasts_s = (fault.source, fault.target), fault.lasts_s
            case Stall():
                disturbed, lasts_s = (fault.host,), fault.lasts_s
            case Move() | Leave():
                disturbed, lasts_s = (fault.host,), 0.0
            case _:
                return
        for index in disturbed:
            self.world.invariants.refusals.disturb(self.world.hosts[index], lasts_s)

    def _cut(self, fault: Partition) -> None:
        side = frozenset(self.world.hosts[index].address for index in fault.side)
        others = frozenset(host.address for host in self.world.hosts) - side
        cuts = [Cut(side, others)]
        if not fault.one_way:
            cuts.append(Cut(others, side))
        self.world.wires.cuts += cuts
        self.world.schedule.after(fault.lasts_s, self._heal, cuts)

    def _heal(self, cuts: list[Cut]) -> None:
        self.world.tell("a cut heals")
        for cut in cuts:
            if cut in self.world.wires.cuts:
                self.world.wires.cuts.remove(cut)

    def _tamper(self, fault: Tamper) -> None:
        host = self.world.hosts[fault.host]
        if tamper(host.kernel, fault.how, self._sabotage):
            self.world.invariants.mark_disturbed(host, _DISTURBED_S)
            self.world.schedule.after(_NO_MEMORY_S, self._repaired, host)
            # As the netlink monitor would: a hint that triggers a reconcile pass.
            self.world.sites[fault.host].reconciler.wake_all()

    def _repaired(self, host: Host) -> None:
        host.kernel.failing = False
