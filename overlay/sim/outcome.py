"""The outcome of a run: figures, failures, and their presentation as text."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from overlay.sim.report.statistics import count_text, duration_text, table
from overlay.sim.scenario import Scenario
from overlay.sim.world.world import World

_STORY_LINES_MAX = 60


@dataclass(slots=True)
class Outcome:
    """The result of one run."""

    scenario: Scenario
    failures: list[str] = field(default_factory=list)
    error: BaseException | None = None
    story: list[tuple[float, str]] = field(default_factory=list)
    curve: list[tuple[float, float]] = field(default_factory=list)
    faults_s: list[float] = field(default_factory=list)
    calm_from_s: float = 0.0
    settled_after_s: float | None = None
    figures: list[tuple[str, str]] = field(default_factory=list)
    drops: Counter[str] = field(default_factory=Counter)
    trace: int = 0  # checksum of all datagrams: equal for equal runs

    def measure(self, world: World) -> None:
        """Collect the figures of a finished world."""
        wires, invariants = world.wires, world.invariants
        sent = sum(host.line.sent_count for host in world.hosts)
        sent_bytes = sum(host.line.sent_bytes for host in world.hosts)
        node_seconds = max(1e-9, len(world.hosts) * world.schedule.now)
        self.drops = sum((host.drops for host in world.hosts), wires.drops.copy())
        self.faults_s = [when for when, _ in self.story]
        self.trace = wires.trace
        self.figures = [
            ("simulated time", duration_text(world.schedule.now)),
            ("containers attached, detached", f"{invariants.attached:,}, {invariants.detached:,}"),
            ("attachments all live hosts confirmed", count_text(invariants.confirmed_count)),
            ("datagrams sent", count_text(sent)),
            ("sent per node", f"{8 * sent_bytes / node_seconds / 1000:.3g} kbit/s"),
            ("largest datagram", f"{wires.size_max} bytes"),
            ("kernel operations", count_text(sum(h.kernel.operation_count for h in world.hosts))),
            ("keys made", count_text(len(world.environment.keys.made_s) - 1)),
            (
                "unknown keys, as the protocol has it",
                count_text(world.environment.keys.excused_count),
            ),
            ("trace", f"{self.trace:08x}"),
            ("events", count_text(world.schedule.handled)),
        ]

    @property
    def held(self) -> bool:
        """Return whether all checks passed."""
        return not self.failures

    def table(self) -> str:
        """Return the final table."""
        settled = "never"
        if self.settled_after_s is not None:
            settled = f"{duration_text(self.settled_after_s)} after the storm"
        rows = [
            ("verdict", "everything held" if self.held else "FAILED"),
            ("all equal", settled),
            *self.figures,
            *((f"dropped: {reason}", count_text(n)) for reason, n in self.drops.most_common()),
        ]
        return f"{self.scenario.command()}\n\n{table(('', 'figure'), rows)}"

    def failed_text(self) -> str:
        """Return the story, the failures, and the command that repeats the run."""
        lines = [f"  {when:8.3f} s  {text}" for when, text in self.story[-_STORY_LINES_MAX:]]
        if len(self.story) > _STORY_LINES_MAX:
            lines.insert(0, f"  ... {len(self.story) - _STORY_LINES_MAX} earlier lines")
        return "\n".join(
            [
                "what happened:",
                *lines,
                "",
                *(f"FAILED: {text}" for text in self.failures),
                "",
                f"to repeat it: {self.scenario.command()}",
            ]
        )
