"""docs/API.md against the command line, which must show every example, and the agent's routes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from overlay.errors import ERROR_BY_CODE

if TYPE_CHECKING:
    from tests.cli.conftest import FakeAgent, Run

TEXT = (Path(__file__).parents[2] / "docs" / "API.md").read_text(encoding="utf-8")
SECTION = re.compile(r"^### ((?:GET|POST|DELETE) \S+)\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
EXAMPLE = re.compile(r"^```json\n(.*?)^```", re.MULTILINE | re.DOTALL)
ANSWERS: dict[str, dict[str, Any]] = {
    line: json.loads(EXAMPLE.findall(text)[0])
    for line, text in SECTION.findall(TEXT)
    if line != "GET /metrics"  # the one answer that is not JSON
}

# Every request of the API, the verb that makes it, and what it prints of the example.
VERBS = [
    ("POST /v1/expose", "expose blue", "10.32.255.254"),
    ("POST /v1/unexpose", "unexpose blue", ""),
    ("GET /v1/published", "publish ls", "*:8080/tcp"),
    ("POST /v1/published", "publish web 8080:80", ""),
    ("POST /v1/unpublish", "unpublish web", ""),
    ("GET /v1/status", "status", "vm3 is suspect"),
    ("POST /v1/join", "join", "joined cluster 7f3a9c21 via 192.168.56.11: 2 nodes"),
    ("POST /v1/leave", "leave", ""),
    ("GET /v1/token", "token show", "ovt1.EXAMPLE\n"),
    ("GET /v1/tokens", "token ls", "rack7"),
    ("POST /v1/tokens", "token create", "ovt1.EXAMPLE\n"),
    ("DELETE /v1/tokens/{id}", "token revoke 5d1c", ""),
    ("POST /v1/promote", "promote vm2", ""),
    ("GET /v1/keys", "key status", "distributing: waiting for vm3, 2s"),
    ("POST /v1/keys/rotate", "key rotate", ""),
    ("GET /v1/members", "members", "suspect"),
    ("POST /v1/forget", "forget vm1", ""),
    ("GET /v1/networks", "network ls", "10.32.0.0/16"),
    ("POST /v1/networks", "network create blue", "blue  vni 9000001"),
    ("GET /v1/networks/{name}", "network inspect blue", "256 owned by vm2"),
    ("DELETE /v1/networks/{name}", "network rm blue", ""),
    ("GET /v1/ipam", "ipam", "10.32.1.0-10.32.255.255"),
    ("GET /v1/dns", "dns ls", "www"),
    ("GET /v1/dns/{name}", "dns lookup c1", "10.32.0.2\n"),
    ("POST /v1/dns", "dns add database 192.168.7.20 --network blue", ""),
    ("DELETE /v1/dns/{name}", "dns rm c1 --network blue", ""),
    ("GET /v1/endpoints", "endpoint ls --wide", "docker:web"),
    ("POST /v1/endpoints", "attach web --network blue", "10.32.0.2\n"),
    ("POST /v1/detach", "detach web", ""),
    ("GET /v1/containers", "container ls", "blue=10.32.0.3"),
    ("POST /v1/containers", "container add c1 --network blue", "10.32.0.3\n"),
    ("DELETE /v1/containers/{name}", "container rm c1", ""),
    ("GET /v1/verify", "verify --repair", "blue: bridge fdb replace"),
    ("GET /v1/events", "events", "docker:web is 10.32.0.2"),
]


@pytest.mark.parametrize(("line", "words", "shown"), VERBS)
def test_the_command_line_shows_each_example(
    overlayd: Run, agent: FakeAgent, line: str, words: str, shown: str
) -> None:
    """What is documented is what the verbs read."""
    name = "blue" if "networks" in line else "c1"
    path = line.replace("{name}", name).replace("{id}", "5d1c")
    agent.answer(path, ANSWERS[line])
    outcome = overlayd(*words.split())

    assert outcome.code == 0
    assert shown in outcome.out
    as_json = overlayd(*words.split(), "--json")
    assert json.loads(as_json.out)["schema"] == ANSWERS[line]["schema"]


def test_all_that_the_agent_serves_is_documented(tmp_path: Path) -> None:
    """Paths and schemas in the document are just those that are registered."""
    from overlay.agent import routes  # noqa: PLC0415  the agent's imports are dear
    from overlay.agent.server import Server  # noqa: PLC0415  as above

    served: dict[str, str] = {}

    class Recorder(Server):
        def route(self, method: str, path: str, name: str, *_: Any, **__: Any) -> None:
            served[f"{method} {path}"] = f"overlayd.{name}/v1"

    routes.register(Recorder(tmp_path, "overlayd"), cast("Any", None))

    assert served.pop("GET /metrics")
    assert {line: answer["schema"] for line, answer in ANSWERS.items()} == served
    assert "### GET /metrics\n" in TEXT
    assert {line for line, _, _ in VERBS} | {"POST /v1/reset"} == set(served)


def test_the_table_of_errors_is_that_of_the_code() -> None:
    """Codes, HTTP statuses and exit codes are documented as they are."""
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d+) \| (\d+) \|", TEXT, re.MULTILINE)

    assert {code: (int(status), int(leaving)) for code, status, leaving in rows} == {
        code: (kind.http_status, kind.exit_code) for code, kind in ERROR_BY_CODE.items()
    }
