"""deploy/monitoring: alert rules, the Grafana board and the textfile script."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.metric_examples import exported_names

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/monitoring"
RULES = FOLDER / "alerts.yml"
SCRIPT = FOLDER / "overlayd-textfile"
# Metrics of Prometheus itself and of node_exporter, which the rules may use.
OTHERS = {"up", "node_textfile_mtime_seconds"}
DAY = 86_400

# Of each alert: the series of a fault, and those of a healthy host. Values are one a minute, in
# promtool's notation: `0+1x60` grows by one, `5x60` stays.
ALERTS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "OverlaydAgentDown": (
        {'overlayd_up{instance="vm1"}': "0x60"},
        {'overlayd_up{instance="vm1"}': "1x60", 'up{job="overlayd"}': "1x60"},
    ),
    "OverlaydTextfileStale": (
        {'node_textfile_mtime_seconds{file="/x/overlayd.prom"}': "60x60"},
        {'node_textfile_mtime_seconds{file="/x/overlayd.prom"}': "0+60x60"},
    ),
    "OverlaydAgentRestarts": (
        {"overlayd_start_time_seconds": "0+7x60"},
        {"overlayd_start_time_seconds": "7x60"},
    ),
    "OverlaydHealthError": (
        {'overlayd_health_issues{level="error"}': "2x60"},
        {'overlayd_health_issues{level="error"}': "0x60"},
    ),
    "OverlaydHealthWarning": (
        {'overlayd_health_issues{level="warn"}': "1x60"},
        {'overlayd_health_issues{level="warn"}': "0x60"},
    ),
    "OverlaydPathDown": (
        {'overlayd_path_up{peer="vm2"}': "0x60"},
        {'overlayd_path_up{peer="vm2"}': "1x60"},
    ),
    "OverlaydPathLossy": (
        {"overlayd_path_probes_total": "0+12x60", "overlayd_path_probes_lost_total": "0+1x60"},
        {"overlayd_path_probes_total": "0+12x60", "overlayd_path_probes_lost_total": "3x60"},
    ),
    "OverlaydPathSlow": (
        {'overlayd_peer_rtt_seconds{peer="vm2"}': "0.2x60"},
        {'overlayd_peer_rtt_seconds{peer="vm2"}': "0.001x60"},
    ),
    "OverlaydPartitioned": (
        {"overlayd_partitioned": "1x60"},
        {"overlayd_partitioned": "0x60"},
    ),
    "OverlaydMemberDead": (
        {'overlayd_members{state="dead"}': "1x60"},
        {'overlayd_members{state="dead"}': "0x60", 'overlayd_members{state="left"}': "1x60"},
    ),
    "OverlaydAuthorityLost": (
        {"overlayd_authority_holders": "0x60"},
        {"overlayd_authority_holders": "3x60"},
    ),
    "OverlaydAuthorityScarce": (
        {"overlayd_authority_holders": "1x90", 'overlayd_members{state="alive"}': "3x90"},
        {"overlayd_authority_holders": "1x90", 'overlayd_members{state="alive"}': "1x90"},
    ),
    "OverlaydCertificateExpires": (
        {"overlayd_certificate_expiry_timestamp_seconds": f"{10 * DAY}x90"},
        {"overlayd_certificate_expiry_timestamp_seconds": f"{60 * DAY}x90"},
    ),
    "OverlaydClusterKeyOld": (
        {"overlayd_cluster_key_created_timestamp_seconds": f"{-8 * DAY}x90"},
        {"overlayd_cluster_key_created_timestamp_seconds": "0x90"},
    ),
    "OverlaydAddressesLow": (
        {"overlayd_subnet_addresses_free": "5x60", "overlayd_subnet_addresses_used": "95x60"},
        {"overlayd_subnet_addresses_free": "50x60", "overlayd_subnet_addresses_used": "50x60"},
    ),
    "OverlaydRowsMissing": (
        {"overlayd_kernel_rows_desired": "7x60", "overlayd_kernel_rows_present": "6x60"},
        {"overlayd_kernel_rows_desired": "7x60", "overlayd_kernel_rows_present": "7x60"},
    ),
    "OverlaydDrift": (
        {"overlayd_drift_detected_total": "0+1x60"},
        {"overlayd_drift_detected_total": "2x60"},
    ),
    "OverlaydFilterOff": (
        {"overlayd_underlay_filter_active": "0x60"},
        {"overlayd_underlay_filter_active": "1x60"},
    ),
    "OverlaydAttachFailures": (
        {"overlayd_attach_failures_total": "0+1x60"},
        {"overlayd_attach_failures_total": "9x60"},
    ),
    "OverlaydAttachSlow": (
        {
            'overlayd_attach_duration_seconds_bucket{le="1"}': "0x60",
            'overlayd_attach_duration_seconds_bucket{le="2.5"}': "0+1x60",
            'overlayd_attach_duration_seconds_bucket{le="+Inf"}': "0+1x60",
        },
        {
            'overlayd_attach_duration_seconds_bucket{le="1"}': "0+1x60",
            'overlayd_attach_duration_seconds_bucket{le="2.5"}': "0+1x60",
            'overlayd_attach_duration_seconds_bucket{le="+Inf"}': "0+1x60",
        },
    ),
    "OverlaydAgentBusy": (
        {"overlayd_event_loop_lag_seconds": "0.7x60"},
        {"overlayd_event_loop_lag_seconds": "0.001x60"},
    ),
}


def promtool(*words: str) -> str:
    """Run promtool, which must succeed."""
    done = subprocess.run(
        ["promtool", *words], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def alert_test(name: str, series: dict[str, str], count: int) -> dict[str, Any]:
    """Return a test that this alert is firing `count` times with these series."""
    minutes = max(int(values.rpartition("x")[2]) for values in series.values())
    query = {
        "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}})',
        "eval_time": f"{minutes}m",
        "exp_samples": [{"labels": "{}", "value": count}] if count else [],
    }
    return {
        "interval": "1m",
        "input_series": [{"series": key, "values": value} for key, value in series.items()],
        "promql_expr_test": [query],
    }


def test_alerts_fire_on_faults_and_on_nothing_else(tmp_path: Path) -> None:
    """`promtool test rules`: each alert with the series of its fault, and of a healthy host."""
    tests = []
    for name, (fault, healthy) in ALERTS.items():
        tests += [alert_test(name, fault, 1), alert_test(name, healthy, 0)]
    path = tmp_path / "test.yml"  # JSON is YAML
    path.write_text(json.dumps({"rule_files": [str(RULES)], "tests": tests}))
    promtool("test", "rules", str(path))


def test_every_alert_is_tested_and_says_what_to_do() -> None:
    """The rules are those above; each has a summary and a description."""
    text = RULES.read_text()
    assert re.findall(r"- alert: (\w+)", text) == list(ALERTS)
    assert len(re.findall(r"^ +summary: \".*\.\"$", text, re.MULTILINE)) == len(ALERTS)
    assert len(re.findall(r"^ +description: \".*\.\"$", text, re.MULTILINE)) == len(ALERTS)


def metrics_in(expression: str) -> set[str]:
    """Return the metrics that an expression names."""
    without_labels = re.sub(r"\{[^}]*\}|\[[^]]*\]", "", expression)
    return set(re.findall(r"\b(?:overlayd|node|process)_\w+|\bup\b", without_labels))


def test_the_example_for_prometheus_is_valid(tmp_path: Path) -> None:
    """`promtool check config`, with the alerts beside it as its page says."""
    shutil.copy(ROOT / "examples/monitoring/prometheus.yml", tmp_path)
    shutil.copy(RULES, tmp_path / "overlayd-alerts.yml")
    told = promtool("check", "config", str(tmp_path / "prometheus.yml"))

    assert "SUCCESS: 1 rule files found" in told


def test_alerts_name_metrics_that_exist() -> None:
    """A metric that is renamed is renamed in the rules."""
    expressions = re.findall(r"^ +expr: (.*)$", RULES.read_text(), re.MULTILINE)
    named = set().union(*map(metrics_in, expressions))
    assert len(named) > len(ALERTS) / 2
    assert named - exported_names() <= OTHERS


# --- the board ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def board() -> dict[str, Any]:
    """Return the Grafana board."""
    found: dict[str, Any] = json.loads((FOLDER / "grafana.json").read_text())
    return found


def expressions_of(board: dict[str, Any]) -> Iterator[str]:
    """Yield the query of each target of each panel."""
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"]


def test_the_board_names_metrics_that_exist(board: dict[str, Any], tmp_path: Path) -> None:
    """Each expression is valid, and names only what an agent exports."""
    expressions = list(expressions_of(board))
    assert len(expressions) > 20
    named = set().union(*map(metrics_in, expressions))
    assert named - exported_names() <= {"up"}
    given = [each.replace("$__rate_interval", "5m") for each in expressions]
    rules = [{"record": f"x{number}", "expr": expr} for number, expr in enumerate(given)]
    path = tmp_path / "board.yml"
    path.write_text(json.dumps({"groups": [{"name": "board", "rules": rules}]}))
    promtool("check", "rules", str(path))


def test_the_board_has_no_overlapping_panels(board: dict[str, Any]) -> None:
    """Each panel has its own id, a title and its own place on the 24 columns."""
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["title"]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_board_can_be_imported_anywhere(board: dict[str, Any]) -> None:
    """It asks for the data source, has no id of one Grafana, and filters by instance."""
    assert board["id"] is None
    variables = {each["name"]: each for each in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    for panel in board["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
            assert panel["description"] or panel["type"] == "stat", panel["title"]
    assert all('instance=~"$instance"' in each for each in expressions_of(board))


# --- the textfile ---------------------------------------------------------------------------


def textfile(folder: Path, agent: str) -> subprocess.CompletedProcess[str]:
    """Run the script with a stand-in for the command `overlayd`."""
    command = folder.parent / "overlayd"
    command.write_text(f"#!/bin/sh\n{agent}\n")
    command.chmod(0o755)
    return subprocess.run(
        [str(SCRIPT), str(folder)],
        env={"PATH": "/usr/bin:/bin", "OVERLAYD": str(command)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder for the collector."""
    made = tmp_path / "textfile"
    made.mkdir()
    return made


def test_the_textfile_is_what_the_agent_says(folder: Path) -> None:
    """It is readable by all, and the only file that is left."""
    done = textfile(folder, 'echo "overlayd_up 1"')
    assert (done.returncode, done.stderr) == (0, "")
    (written,) = folder.iterdir()
    assert (written.name, written.read_text()) == ("overlayd.prom", "overlayd_up 1\n")
    assert written.stat().st_mode & 0o777 == 0o644


def test_the_textfile_says_that_the_agent_is_down(folder: Path) -> None:
    """Old figures go, a half answer goes, and promtool accepts the rest."""
    textfile(folder, 'echo "overlayd_members 3"')
    done = textfile(folder, 'echo "overlayd_members"; echo "no agent runs" >&2; exit 3')
    assert (done.returncode, done.stderr) == (0, "no agent runs\n")
    (written,) = folder.iterdir()
    values = [line for line in written.read_text().splitlines() if not line.startswith("#")]
    assert values == ["overlayd_up 0"]
    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        input=written.read_text(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_textfile_is_replaced_by_a_rename(folder: Path) -> None:
    """A reader that has the old file open keeps all of it: the new one is another file."""
    textfile(folder, 'echo "overlayd_up 1"')
    with (folder / "overlayd.prom").open() as reader:
        before = (folder / "overlayd.prom").stat().st_ino
        textfile(folder, "exit 3")
        assert (folder / "overlayd.prom").stat().st_ino != before
        assert reader.read() == "overlayd_up 1\n"


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    """The script says which setting names the folder."""
    done = textfile(tmp_path / "none", "exit 0")
    assert done.returncode == 2
    assert "--collector.textfile.directory" in done.stderr
