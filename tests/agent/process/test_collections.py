"""When an agent collects garbage: not while it starts, and always once it serves."""

from __future__ import annotations

import subprocess
import sys

STARTED = """
import gc
from overlay.cli.main import main
from overlay.agent import main as agent

async def serve(config):
    print(gc.isenabled())
    agent._spare_collections()
    print(gc.isenabled())

agent._serve, agent._start_evpn = serve, lambda config: None
agent.confinement.drop_capabilities = lambda needed: None
main(["agent", "--config", "/dev/null"])
"""


def test_collections_begin_when_the_agent_serves() -> None:
    """Its start makes what stays; an agent that never collects would grow by every cycle."""
    done = subprocess.run(
        [sys.executable, "-c", STARTED], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["False", "True"], done.stderr
