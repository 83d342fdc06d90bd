"""The simulator itself: repeatable, able to detect errors, and its output."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from overlay.core.log.store import Acceptance, Store
from overlay.core.protocol.records import Segment
from overlay.errors import UsageError
from overlay.sim.main import main
from overlay.sim.report import experiments
from overlay.sim.run import Run
from overlay.sim.scenario import Scenario, drawn
from overlay.sim.soak import soak

CALM = Scenario(
    nodes=4, seed=3, loss=0.0, partitions=0, crashes=0, clogs=0, stalls=0, moves=0, leaves=0,
    newcomers=0, tampers=0, churn=2.0, networks=1, duration=5.0,
)  # fmt: skip
TRACE = "from overlay.sim.scenario import drawn; from overlay.sim.run import Run; "


def test_a_run_is_a_function_of_its_seed() -> None:
    """Two runs of one scenario send the same datagrams in the same order."""
    first, second = Run(drawn(5)).to_end(), Run(drawn(5)).to_end()

    assert first.trace == second.trace
    assert first.figures == second.figures


def test_a_run_does_not_depend_on_the_hash_seed() -> None:
    """No set's order matters: two processes agree on every datagram."""
    traces = set()
    for hash_seed in ("1", "2"):
        done = subprocess.run(  # our own interpreter and program
            [sys.executable, "-c", TRACE + "print(Run(drawn(12)).to_end().trace)"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        )
        traces.add(done.stdout.strip())

    assert len(traces) == 1


def test_the_command_of_a_scenario_runs_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    """The printed command gives the same run, event for event."""
    scenario = drawn(9)
    outcome = Run(scenario).to_end()
    words = scenario.command().split()[2:]

    assert main(words) == 0
    assert f"{outcome.trace:08x}" in capsys.readouterr().out


def test_a_wrong_kernel_is_detected() -> None:
    """A row that differs from the expected state is named, with its host."""
    run = Run(CALM)
    outcome, world = run.to_end(), run.world
    assert outcome.held
    host = world.hosts[0]
    sandbox = host.kernel.sandboxes[world.networks[0].vni]
    sandbox.rows.pop(next(key for key in sorted(sandbox.rows) if key[0] == "fdb"))

    wrong = run.convergence.faults()
    assert wrong is not None
    assert "h0, net0: 1 operations from the expected state: bridge fdb replace" in wrong


def test_a_wrong_store_is_detected() -> None:
    """A member whose card is missing is named."""
    run = Run(CALM)
    run.to_end()
    world = run.world
    node = world.hosts[1].node
    assert node is not None
    del node.store.cards[world.hosts[0].node_id]

    wrong = run.convergence.faults()
    assert wrong is not None
    assert "h1 does not know h0" in wrong


def test_a_broken_merge_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a store that forgets deletions, the run fails."""
    accept = Store.accept

    def forgetful(self: Store, segment: Segment) -> tuple[Acceptance, list[Segment]]:
        log = self.log(segment.origin, segment.scope)
        kept = {} if log is None or self.self_id == segment.origin else dict(log.live)
        result = accept(self, segment)
        if log is not None:
            log.live.update(kept)
        return result

    monkeypatch.setattr(Store, "accept", forgetful)
    outcome = Run(CALM).to_end()

    assert not outcome.held
    text = outcome.failed_text()
    assert "repeat it: overlayd sim --nodes 4 --seed 3" in text


def test_it_prints_a_table_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run prints a table to stdout, and draws its curve on request."""
    picture = tmp_path / "curve.svg"
    code = main([*CALM.command().split()[2:], "--svg", str(picture)])

    assert code == 0
    assert "everything held" in capsys.readouterr().out
    assert ET.fromstring(picture.read_text()).tag.endswith("svg")  # noqa: S314 - our own


@pytest.mark.parametrize("words", [["--loss", "2"], ["--duration", "soon"], ["--nodes", "-1"]])
def test_wrong_usage_is_refused(words: list[str]) -> None:
    """Invalid options are usage errors, before anything runs."""
    with pytest.raises(UsageError, match=words[0]):
        main(words)


def test_a_cluster_has_at_least_one_node() -> None:
    """A cluster without nodes is refused."""
    with pytest.raises(UsageError, match="at least 1"):
        main(["--nodes", "0"])


def test_soak_counts_and_names_failed_seeds() -> None:
    """A soak runs all its seeds and ends with a summary."""
    told: list[str] = []

    assert soak([6, 7], told.append) == 0
    assert told[-1] == "2 seeds, 0 failed"


def test_measurements_on_a_few_nodes() -> None:
    """The experiments run, with plausible results for a small cluster."""
    spread = experiments.dissemination(5, 10)
    assert len(spread) == 10
    assert max(spread) < 5
    assert experiments.idle(5, 3, 5.0).bit_per_s < 16_000
    assert max(experiments.detection(6, 1)) < 30
    assert experiments.wrong_deaths(10, 60.0, lambda _now: None).healthy == 0
    rotated = experiments.rotation(6)
    assert rotated.unknown == 0
    assert rotated.used_s < rotated.alone_s < 60
    assert experiments.healing(6, 20.0, 2.0, lambda _now: None).records_s < 60
