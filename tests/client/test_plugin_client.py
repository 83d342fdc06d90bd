"""The plugins' client: the errors of the command line's client, without its imports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from overlay.client.plugin_client import PluginClient, _split
from overlay.errors import AgentNotRunningError, ConflictError, OverlayError

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent

ROOT = Path(__file__).parents[2]
# Each costs some milliseconds of each container's start.
SLOW = ("argparse", "dataclasses", "email", "http", "inspect", "ipaddress", "pathlib", "typing",
        "urllib")  # fmt: skip


def test_requests_and_errors_are_those_of_the_api(agent: FakeAgent) -> None:
    """A body is sent and an object returned; an error keeps its kind."""
    agent.answer("POST /v1/x", {"a": 1})
    agent.fail("GET /v1/y", "conflict", 409, what="taken")
    client = PluginClient(str(agent.run_dir))

    assert client.post("/v1/x", {"b": 2}) == {"a": 1}
    assert agent.asked[0].body == {"b": 2}
    with pytest.raises(ConflictError, match="taken"):
        client.get("/v1/y")


def test_an_absent_agent_is_reported_as_such(tmp_path: Path) -> None:
    """With the path of its socket; a path that is too long is named as well."""
    with pytest.raises(AgentNotRunningError, match="no agent runs"):
        PluginClient(str(tmp_path)).get("/v1/status")
    with pytest.raises(OverlayError, match="cannot reach the agent"):
        PluginClient(f"/{'x' * 200}").get("/v1/status")


@pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 200 OK\r\n\r\n", b"nonsense\r\n\r\n",
                                 b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{}"])  # fmt: skip
def test_an_incomplete_answer_is_no_answer(raw: bytes) -> None:
    """An agent that ends in the middle of it did not say yes."""
    with pytest.raises(ConnectionResetError):
        _split(raw)


def test_the_plugin_imports_nothing_slow() -> None:
    """It starts for each container, in an interpreter without site-packages."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import overlay.client.cni.command, json;"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-IS", "-c", code], capture_output=True, check=True)

    assert set(json.loads(done.stdout)) & set(SLOW) == set()
