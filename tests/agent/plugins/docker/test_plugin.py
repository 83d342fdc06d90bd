"""The plugin's socket, with and without a cluster, and the bodies of calls."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
from overlay import limits
from overlay.agent.plugins.docker import container_labels
from overlay.agent.plugins.docker import plugin as plugin_module
from overlay.agent.plugins.docker.plugin import DockerPlugin
from overlay.errors import ConflictError
from tests.agent.plugins.docker.engine import CALLS, Engine

# --- the socket -----------------------------------------------------------------------------


async def test_the_socket_is_roots_alone(unjoined: Engine) -> None:
    """Nobody but root may call the drivers."""
    assert stat.S_IMODE(unjoined.plugin.path.stat().st_mode) == 0o600


async def test_off_removes_the_socket(unjoined: Engine, tmp_path: Path) -> None:
    """An agent whose plugin is switched off leaves nothing that Docker would wait for."""
    off = DockerPlugin(unjoined.agent, "off", tmp_path / "plugins")

    await off.reconcile()

    assert not off.path.exists()


async def test_a_second_agent_takes_no_socket(unjoined: Engine, tmp_path: Path) -> None:
    """Docker has one plugin of a name: it stays with the agent that serves it."""
    second = DockerPlugin(unjoined.agent, "on", tmp_path / "plugins")

    with pytest.raises(ConflictError, match="another agent already serves Docker"):
        await second.reconcile()

    assert "Implements" in await unjoined.call("Plugin.Activate")


async def test_a_stop_keeps_the_sockets_name(unjoined: Engine) -> None:
    """Docker waits for an agent that restarts; without the file it would give up at once."""
    await unjoined.plugin.close()

    assert unjoined.plugin.path.is_socket()


async def test_auto_serves_where_docker_is(tmp_path: Path, unjoined: Engine) -> None:
    """Docker's directory shows that it is installed."""
    (tmp_path / "docker").mkdir()
    auto = DockerPlugin(unjoined.agent, "auto", tmp_path / "docker/plugins")

    await auto.reconcile()

    assert auto.path.is_socket()
    await auto.close()


async def test_a_socket_that_is_removed_is_made_again(unjoined: Engine) -> None:
    """Docker would not find the driver until the agent starts anew."""
    unjoined.plugin.path.unlink()

    await unjoined.plugin.reconcile()

    assert stat.S_IMODE(unjoined.plugin.path.stat().st_mode) == 0o600
    assert "Implements" in await unjoined.call("Plugin.Activate")


async def test_activation_needs_no_cluster(unjoined: Engine) -> None:
    """Docker learns at any time what the plugin is."""
    assert await unjoined.call("Plugin.Activate") == {"Implements": ["NetworkDriver", "IpamDriver"]}
    assert (await unjoined.call("NetworkDriver.GetCapabilities"))["Scope"] == "local"


@pytest.mark.parametrize("name", CALLS)
async def test_without_a_cluster_calls_say_what_to_do(unjoined: Engine, name: str) -> None:
    """Each call fails at once, under the key that Docker reads."""
    answer = await unjoined.call(name)

    assert answer["Err"] == answer["Error"]
    assert "this host is not in a cluster" in answer["Err"]
    assert "sudo overlayd join" in answer["Err"]


async def test_events_are_followed_for_the_present_membership(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a leave and a join, and after a defect, what follows Docker's events is replaced."""
    monkeypatch.setattr(plugin_module, "DOCKER_SOCKET", tmp_path)  # exists, and answers nothing
    plugin = engine.plugin
    await plugin.reconcile()
    before = plugin._syncing
    assert before is not None
    again = SimpleNamespace(**vars(engine.agent.components))
    engine.agent.components, engine.agent.require_components = again, lambda: again
    await engine.call("IpamDriver.RequestPool")  # makes the drivers of the new membership

    await plugin.reconcile()

    assert before.cancelled()
    assert plugin._syncing is not None
    plugin._syncing.cancel()
    await asyncio.wait([plugin._syncing])
    await plugin.reconcile()
    assert not plugin._syncing.done()


async def test_labels_that_cannot_be_are_a_fault(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`status` shows it, until it is attached or has ended."""
    monkeypatch.setattr(plugin_module, "DOCKER_SOCKET", tmp_path)
    await engine.plugin.reconcile()
    assert list(engine.plugin.faults()) == []
    labeled = engine.plugin._require_drivers().labeled
    monkeypatch.setattr(
        container_labels, "find_container", lambda *_: SimpleNamespace(pid=7, name="web")
    )
    monkeypatch.setattr(container_labels, "own_labels", lambda _, labels: labels)

    labeled.started("d" * 64, {"overlayd.network": ""})
    await labeled.attempt()

    (fault,) = engine.plugin.faults()
    assert "web: label overlayd.network needs one network" in fault.text
    assert "Make the container anew" in fault.hint


# --- bodies ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"\xff\xfe", b'{"NetworkID": 7}', b"null"])
async def test_bodies_that_are_malformed_are_refused(
    engine: Engine, name: str, body: bytes
) -> None:
    """No body raises a defect; what is no request is answered with its problem."""
    status, answer = await engine.post(name, body)

    assert "defect" not in answer.get("Err", "")
    if status != 200:
        assert status == 400
        assert answer["Err"].startswith(f"overlayd: the body of {name} is invalid")


async def test_a_call_repeated_without_content_says_so(engine: Engine) -> None:
    """Docker does so where the agent was restarted during the call."""
    status, answer = await engine.post("NetworkDriver.Join", b"")

    assert status == 400
    assert "the agent was restarted meanwhile" in answer["Err"]
    assert "Run the command again" in answer["Err"]


async def test_a_body_that_is_too_large_is_refused(engine: Engine) -> None:
    """A body has a bound."""
    body = json.dumps({"PoolID": "x" * limits.DOCKER_BODY_SIZE_MAX}).encode()

    status, answer = await engine.post("IpamDriver.ReleasePool", body)

    assert status == 413
    assert "larger than" in answer["Err"]


async def test_unknown_methods_do_not_exist(engine: Engine) -> None:
    """Docker recognizes a missing method by the status."""
    status, answer = await engine.post("NetworkDriver.AllocateNetwork", b"{}")

    assert status == 404
    assert "no method" in answer["Err"]


@pytest.mark.parametrize(
    "fields",
    [
        {"PoolID": "overlayd-0000000000000000"},
        {"PoolID": "POOL"},
        {"PoolID": "overlayd-0000000000000000", "Address": "10.77.0.2"},
    ],
)
async def test_unknown_pools_are_errors(engine: Engine, fields: dict[str, str]) -> None:
    """A pool of another life has no addresses, and releasing it is no error."""
    _, answer = await engine.post("IpamDriver.RequestAddress", json.dumps(fields).encode())

    assert "Error" in answer
    if fields["PoolID"] != "POOL":
        assert await engine.call("IpamDriver.ReleaseAddress", **fields) == {}
        assert await engine.call("IpamDriver.ReleasePool", **fields) == {}
