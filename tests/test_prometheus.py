from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from overlay import prometheus

API = (Path(__file__).parents[1] / "docs/API.md").read_text(encoding="utf-8")
SAMPLE = re.compile(r'[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? -?[0-9.e+-]+')


def documented_status() -> dict[str, Any]:
    """Return the status document in docs/API.md."""
    raw = API.split("### GET /v1/status", 1)[1].split("```json\n", 1)[1].split("```", 1)[0]
    found: dict[str, Any] = json.loads(raw)
    return found


def test_prometheus_can_read_every_line() -> None:
    """Each family has its help and type before its samples, and comes once."""
    shown = prometheus.text(documented_status())
    names = re.findall(r"# TYPE (\S+) (?:counter|gauge)", shown)
    assert len(names) == len(set(names)) > 12
    for line in shown.splitlines():
        assert line.startswith(("# HELP ", "# TYPE ")) or SAMPLE.fullmatch(line), line
    for name in names:
        assert f"# HELP {name} " in shown
        assert re.search(rf"^{name}[ {{]", shown, re.MULTILINE), name


def test_values_are_those_of_the_status() -> None:
    """Counts, labels and units are those of the status."""
    status = documented_status()
    status["drops"] = {"replayed": 7}
    status["gossip"]["lag_max_ms"] = 12.5
    shown = prometheus.text(status).splitlines()
    assert 'overlayd_datagrams_dropped_total{reason="replayed"} 7' in shown
    assert "overlayd_event_loop_lag_seconds 0.0125" in shown
    network = status["networks"][0]
    assert f'overlayd_passes_total{{network="{network["name"]}"}} {network["passes"]}' in shown


def test_a_host_without_a_cluster_has_metrics_too() -> None:
    """Without a cluster, only the agent's own figures are shown."""
    status = documented_status() | {"node": None, "cluster": None, "networks": [], "drops": {}}
    shown = prometheus.text(status)
    assert "overlayd_uptime_seconds" in shown
    assert "members" not in shown


def test_an_older_agent_has_metrics_too() -> None:
    """After an upgrade the command line reads the status of an agent that still runs."""
    status = documented_status()
    del status["paths"], status["cluster"]["authority_holders"], status["recovery"]
    shown = prometheus.text(status)
    assert "overlayd_members" in shown
    assert "overlayd_path_up" not in shown


def test_labels_are_escaped() -> None:
    """No external text breaks a line or a label."""
    status = documented_status() | {"drops": {'a"b\\c\nd': 1}}
    assert '{reason="a\\"b\\\\c\\nd"} 1' in prometheus.text(status)
