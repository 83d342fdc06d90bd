"""The faults of a run, drawn from the seed in advance.

Owns: the kinds of fault, their descriptions, and the random choice.
Does not: carry out a fault (`run` does), or know the hosts' reaction.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final, TypeAlias

from overlay.sim.host.host import is_holder
from overlay.sim.scenario import Scenario
from overlay.sim.world import liar

_DOWN_S: Final = (0.3, 8.0)
_CUT_S: Final = (2.0, 15.0)
_STALL_S: Final = (0.5, 6.0)
_CLOG_S: Final = (0.5, 5.0)
_AWAY_S: Final = (20.0, 45.0)
_AT_ONCE_S: Final = 0.5
# The others must hold the records that a restored host lacks, as it recovers them from its peers.
# So it stays down for a while, and no cut is near.
_RESTORE_AGE_S: Final = (1.0, 10.0)
_RESTORE_DOWN_S: Final = 6.0
_RESTORE_QUIET_S: Final = 16.0
_LIES: Final = (liar.GATEWAY, liar.NAMES)  # the others are thousands of records, which take long


@dataclass(frozen=True, slots=True)
class Crash:
    """The agent is killed; `how` states what is lost with it."""

    at_s: float
    host: int
    down_s: float
    how: (
        str  # "killed": kernel and containers stay; "power": only the disk; "restored": an old disk
    )
    after_writes: int  # it dies in the middle of its next work, after this many durable steps

    def __str__(self) -> str:
        text = {
            "killed": "agent killed with -9",
            "power": "power lost: kernel and containers gone",
            "restored": "power lost, and its disk comes back from an older snapshot",
        }[self.how]
        return f"h{self.host}: {text}; back after {self.down_s:.1f} s"


@dataclass(frozen=True, slots=True)
class Partition:
    """Nothing passes from one side to the other, in one or both directions."""

    at_s: float
    side: tuple[int, ...]
    lasts_s: float
    one_way: bool

    def __str__(self) -> str:
        names = " ".join(f"h{host}" for host in self.side[:8])
        more = f" and {len(self.side) - 8} more" if len(self.side) > 8 else ""
        way = "nothing leaves" if self.one_way else "cut off:"
        return f"{way} {names}{more} for {self.lasts_s:.1f} s"


@dataclass(frozen=True, slots=True)
class Clog:
    """Datagrams on a path are held back, then arrive all at once."""

    at_s: float
    source: int
    target: int
    lasts_s: float

    def __str__(self) -> str:
        return f"the path h{self.source} -> h{self.target} clogs for {self.lasts_s:.1f} s"


@dataclass(frozen=True, slots=True)
class Stall:
    """The agent's process does not run: SIGSTOP, swapping, a busy machine."""

    at_s: float
    host: int
    lasts_s: float

    def __str__(self) -> str:
        return f"h{self.host}: the agent is suspended for {self.lasts_s:.1f} s"


@dataclass(frozen=True, slots=True)
class Move:
    """A host's underlay address changes, and its agent follows."""

    at_s: float
    host: int

    def __str__(self) -> str:
        return f"h{self.host}: its underlay address changes"


@dataclass(frozen=True, slots=True)
class Rotate:
    """An operator requests a new cluster key on a holder's host."""

    at_s: float
    host: int

    def __str__(self) -> str:
        return f"h{self.host}: a new cluster key is requested"


@dataclass(frozen=True, slots=True)
class Leave:
    """A host leaves the cluster permanently."""

    at_s: float
    host: int

    def __str__(self) -> str:
        return f"h{self.host}: leaves the cluster"


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A new host joins through an existing one."""

    at_s: float
    host: int
    seed_host: int

    def __str__(self) -> str:
        return f"h{self.host}: a new host joins through h{self.seed_host}"


@dataclass(frozen=True, slots=True)
class Tamper:
    """Another program changes a sandbox, or the kernel refuses."""

    at_s: float
    host: int
    how: str  # "delete", "add", "delete link", "no memory"

    def __str__(self) -> str:
        return f"h{self.host}: kernel state tampered with ({self.how})"


@dataclass(frozen=True, slots=True)
class Lie:
    """A host writes records that no honest agent writes: see `liar`."""

    at_s: float
    host: int
    kind: str

    def __str__(self) -> str:
        return f"h{self.host}: is under another's control and writes false {self.kind}"


Fault: TypeAlias = (
    Crash | Partition | Clog | Stall | Move | Rotate | Leave | Newcomer | Tamper | Lie
)
_Absence: TypeAlias = Crash | Partition | Stall


def draw(scenario: Scenario, rng: random.Random) -> list[Fault]:
    """Return the faults of the scenario's storm, in order of time."""
    hosts, end = scenario.nodes, scenario.duration
    faults: list[Fault] = []
    cuts = [_partition(scenario, rng) for _ in range(scenario.partitions if hosts > 1 else 0)]
    faults += cuts
    absences = [_absence(scenario, rng) for _ in range(scenario.absences if hosts > 1 else 0)]
    faults += absences
    outages = [(fault.at_s, _lasts_s(fault)) for fault in (*cuts, *absences)]
    for _ in range(scenario.crashes):
        faults.append(_crash(scenario, rng, outages))
    for _ in range(scenario.clogs if hosts > 1 else 0):
        source, target = rng.sample(range(hosts), 2)
        faults.append(Clog(rng.uniform(0, end), source, target, rng.uniform(*_CLOG_S)))
    for _ in range(scenario.stalls):
        host = rng.randrange(hosts)
        faults.append(Stall(rng.uniform(0, end), host, rng.uniform(*_STALL_S)))
    leavers = rng.sample(range(hosts), min(scenario.leaves, hosts - 1))
    # One host keeps its address: if all moved at once, they could not find each other.
    stayers = [host for host in range(hosts) if host not in leavers]
    for host in rng.sample(stayers, min(scenario.moves, len(stayers) - 1)):
        faults.append(Move(rng.uniform(0, end), host))
    for _ in range(scenario.tampers):
        how = rng.choice(["delete", "add", "delete link", "no memory"])
        faults.append(Tamper(rng.uniform(0, end), rng.randrange(hosts), how))
    for index in range(scenario.newcomers):
        faults.append(Newcomer(rng.uniform(0, end), hosts + index, rng.randrange(hosts)))
    for host in leavers:
        faults.append(Leave(rng.uniform(end / 2, end), host))
    for _ in range(scenario.rotations):
        faults += _rotations(scenario, rng, cuts)
    for _ in range(scenario.lies):
        faults.append(Lie(rng.uniform(0, end), rng.randrange(hosts), rng.choice(_LIES)))
    return sorted(faults, key=lambda fault: fault.at_s)


def _partition(scenario: Scenario, rng: random.Random) -> Partition:
    hosts = scenario.nodes
    share = rng.choice([0.5, rng.random(), 1 / hosts])
    count = max(1, min(hosts - 1, round(share * hosts)))
    side = tuple(sorted(rng.sample(range(hosts), count)))
    lasts_s = min(rng.uniform(*_CUT_S), 0.7 * scenario.duration)
    at_s = rng.uniform(0, max(0.0, scenario.duration - lasts_s))
    return Partition(at_s, side, lasts_s, one_way=rng.random() < 0.35)


def _absence(scenario: Scenario, rng: random.Random) -> _Absence:
    """Return a fault that removes a host for longer than a rotation."""
    host = rng.randrange(scenario.nodes)
    lasts_s = min(rng.uniform(*_AWAY_S), 0.8 * scenario.duration)
    at_s = rng.uniform(0, scenario.duration - lasts_s)
    match rng.choice(["asleep", "off", "cut off"]):
        case "asleep":
            return Stall(at_s, host, lasts_s)
        case "off":
            return Crash(at_s, host, lasts_s, rng.choice(["killed", "power"]), after_writes=0)
        case _:
            return Partition(at_s, (host,), lasts_s, one_way=False)


def _lasts_s(fault: _Absence) -> float:
    return fault.down_s if isinstance(fault, Crash) else fault.lasts_s


def _rotations(scenario: Scenario, rng: random.Random, cuts: list[Partition]) -> list[Rotate]:
    """Return which holders create the next key, and when.

    Sometimes two do so at once, or one on each side of a cut.
    """
    holders = [host for host in range(scenario.nodes) if is_holder(host, scenario.holders)]
    at_s = rng.uniform(0, scenario.duration)
    makers = rng.sample(holders, min(len(holders), rng.choice([1, 1, 2])))
    if cuts and rng.random() < 0.5:
        cut = rng.choice(cuts)
        at_s = cut.at_s + rng.random() * cut.lasts_s
        near = [host for host in holders if host in cut.side]
        far = [host for host in holders if host not in cut.side]
        makers = [rng.choice(side) for side in (near, far) if side]
    end = scenario.duration
    return [Rotate(min(end, at_s + rng.uniform(0, _AT_ONCE_S)), host) for host in makers]


def _crash(scenario: Scenario, rng: random.Random, outages: list[tuple[float, float]]) -> Crash:
    at_s = rng.uniform(0, scenario.duration)
    host = rng.randrange(scenario.nodes)
    down_s = rng.uniform(*_DOWN_S)
    how = rng.choices(["killed", "power", "restored"], [6, 3, 2])[0]
    if how == "restored":
        down_s = max(down_s, _RESTORE_DOWN_S)
        quiet = (at_s - _RESTORE_AGE_S[1], at_s + down_s + _RESTORE_QUIET_S)
        near = any(since < quiet[1] and since + lasts_s > quiet[0] for since, lasts_s in outages)
        if near or scenario.nodes < 2:
            how = "power"
    return Crash(at_s, host, down_s, how, after_writes=rng.choice([0, 0, 1, 2, 3]))


def story(faults: list[Fault]) -> str:
    """Return the faults as readable lines, in order of time."""
    return "\n".join(f"  {fault.at_s:7.2f} s  {fault}" for fault in faults)
