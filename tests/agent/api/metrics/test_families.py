"""The metrics of an agent."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

from overlay import prometheus
from overlay.agent.api.metrics.facts import PeerFacts
from overlay.agent.api.metrics.families import DROP_REASONS, families
from overlay.core.paths.view import PathState
from tests.metric_examples import (
    PROCESS,
    SAMPLE,
    documented_status,
    example_text,
    exported_names,
    member_facts,
    path,
)

ROOT = Path(__file__).parents[4]
WITHOUT_CLUSTER: dict[str, Any] = {"node": None, "cluster": None, "networks": [], "drops": {}}


def test_promtool_accepts_the_metrics() -> None:
    """`promtool check metrics` finds neither an error nor a name against the conventions."""
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=example_text(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_help_texts_are_sentences() -> None:
    """Each begins with a capital letter or a number, and ends with a period."""
    texts = re.findall(r"^# HELP \S+ (.*)$", example_text(), re.MULTILINE)
    assert len(texts) > 40
    found = [text.replace("docs/PROTOCOL.md", "x") for text in texts]
    assert [text for text in found if not re.fullmatch(r"[A-Z0-9][^.]*\w[^.]*\.", text)] == []


def test_no_series_comes_twice() -> None:
    """Names and labels together are unique, or Prometheus refuses the whole page."""
    series = [(name, labels) for name, labels, _ in SAMPLE.findall(example_text())]
    assert len(series) == len(set(series))


def test_every_drop_reason_is_counted_from_the_start() -> None:
    """The protocol's reasons have a counter before the first drop."""
    text = (ROOT / "docs/PROTOCOL.md").read_text()
    table = text.split("| drop reason | meaning |\n", 1)[1].split("\n\n", 1)[0]
    cells = [line.split("|")[1] for line in table.splitlines()[1:]]
    documented = {reason for cell in cells for reason in re.findall(r"`([a-z0-9-]+)`", cell)}
    assert documented | {"outbox-full", "handshake-queue-full"} == set(DROP_REASONS)
    alone = prometheus.text(families(documented_status() | WITHOUT_CLUSTER, PROCESS, None))
    assert 'overlayd_datagrams_dropped_total{reason="replayed"} 0' in alone


def test_values_are_those_of_the_status() -> None:
    """Counts, labels and units are those of the status."""
    status = documented_status()
    status["drops"] = {"replayed": 7}
    status["gossip"]["lag_max_ms"] = 12.5
    shown = prometheus.text(families(status, PROCESS, member_facts())).splitlines()
    assert 'overlayd_datagrams_dropped_total{reason="replayed"} 7' in shown
    assert "overlayd_event_loop_lag_seconds 0.0125" in shown
    assert 'overlayd_reconcile_passes_total{network="blue"} 4' in shown
    assert "overlayd_start_time_seconds 1700000000.25" in shown
    assert 'overlayd_tunnel_transmit_packets_total{network="blue"} 20' in shown
    assert 'overlayd_path_probes_lost_total{peer="vm1"} 2' in shown


def test_no_label_makes_a_sum_wrong() -> None:
    """Each label's values are parts of a whole; a total beside its part has its own name."""
    labels = set(re.findall(r'[{,]([a-z]+)="', example_text()))
    parts = {"level", "reason", "state", "le", "network", "subnet", "peer", "service", "policy"}
    assert labels == parts | {"version", "python", "node", "id", "cluster"}
    states = re.findall(r'(\w+)\{state="', example_text())
    assert set(states) == {"overlayd_members"}
    assert {"overlayd_endpoints", "overlayd_cluster_endpoints"} <= exported_names()


def test_a_host_without_a_cluster_has_metrics_too() -> None:
    """Without a cluster, only the agent's own figures are shown."""
    shown = prometheus.text(families(documented_status() | WITHOUT_CLUSTER, PROCESS, None))
    assert "overlayd_up 1" in shown
    assert "overlayd_joined 0" in shown
    assert "overlayd_attach_duration_seconds_count 0" in shown
    assert "overlayd_members" not in shown


def test_a_path_that_was_not_probed_yet_is_not_down() -> None:
    """A start does not look like a fault; one lost direction does."""
    unknown = path(sending=PathState.UNKNOWN, receiving=PathState.UNKNOWN)
    one_way = path(receiving=PathState.LOST)
    facts = member_facts(
        peers=[PeerFacts("n-1", "vm1", None, unknown), PeerFacts("n-2", "vm2", None, one_way)]
    )
    shown = prometheus.text(families(documented_status(), PROCESS, facts)).splitlines()
    assert [line for line in shown if line.startswith("overlayd_path") and "_up{" in line] == [
        'overlayd_path_up{peer="vm2"} 0',
        'overlayd_path_transmit_up{peer="vm2"} 1',
        'overlayd_path_receive_up{peer="vm2"} 0',
    ]


def test_a_path_is_not_up_before_both_directions_were_probed() -> None:
    """Of a path of which one direction is known, that one is shown."""
    half = PeerFacts("n-1", "vm1", None, path(receiving=PathState.UNKNOWN))
    shown = prometheus.text(families(documented_status(), PROCESS, member_facts(peers=[half])))

    assert "overlayd_path_up{" not in shown
    assert 'overlayd_path_transmit_up{peer="vm1"} 1' in shown


def test_peers_of_one_name_are_told_apart() -> None:
    """Two series with the same labels would make Prometheus refuse the page."""
    same = [PeerFacts(f"n-{number}", "vm1", 0.001, None) for number in (1, 2)]
    shown = prometheus.text(families(documented_status(), PROCESS, member_facts(peers=same)))
    assert re.findall(r'overlayd_peer_rtt_seconds\{peer="(.*)"\}', shown) == [
        "vm1 (n-1)",
        "vm1 (n-2)",
    ]
