"""Network modes of bare containers are read from a request and compared with the stored ones."""

from __future__ import annotations

from typing import Any

import pytest
from overlay.agent.containers import modes
from overlay.agent.containers.modes import NetworkMode
from overlay.agent.state.documents import StoredContainer
from overlay.errors import ConflictError, NotFoundError, UsageError

CONTAINERS = {
    "web": StoredContainer("web"),
    "debug": StoredContainer("debug", shares="web"),
    "onhost": StoredContainer("onhost", host=True),
}


@pytest.mark.parametrize(
    ("words", "mode", "named"),
    [
        ([], NetworkMode(), False),
        (["blue", "red"], NetworkMode(), False),
        (["none"], NetworkMode(), True),
        (["host"], NetworkMode(host=True), True),
        (["container:web"], NetworkMode(shares="web"), True),
        (["container:debug"], NetworkMode(shares="web"), True),
        (["container:onhost"], NetworkMode(host=True), True),
    ],
)
def test_the_mode_is_read_from_the_networks(
    words: list[str], mode: NetworkMode, *, named: bool
) -> None:
    """A container that shares with a sharing container shares with the owner."""
    assert modes.requested_mode({"name": "x"}, words, CONTAINERS) == (mode, named)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"ip": "10.32.0.2"}, []),
        ({"ip": "10.32.0.2"}, ["none"]),
        ({"dns_servers": ["192.0.2.1"]}, ["host"]),
        ({"dns_search": ["a.example"]}, ["container:web"]),
        ({}, ["none", "blue"]),
        ({"name": "x"}, ["container:x"]),
    ],
)
def test_conflicting_options_are_refused(body: dict[str, Any], words: list[str]) -> None:
    """Options need an interface or a namespace; a mode excludes networks and itself."""
    with pytest.raises(UsageError):
        modes.requested_mode(body, words, CONTAINERS)


def test_an_unknown_owner_is_not_found() -> None:
    """Only a container made by overlayd can share its network."""
    with pytest.raises(NotFoundError, match="no container 'nobody'"):
        modes.requested_mode({}, ["container:nobody"], CONTAINERS)


def test_an_attach_refuses_modes() -> None:
    """A mode is not the name of a network."""
    modes.refuse_container_modes(["blue"])
    with pytest.raises(UsageError, match="'host' is not a network"):
        modes.refuse_container_modes(["blue", "host"])


def test_an_existing_container_keeps_its_mode() -> None:
    """Adding a container again with another mode, or with `none` while attached, conflicts."""
    modes.require_same(CONTAINERS["web"], NetworkMode(), named=False, attached=["blue"])
    modes.require_same(CONTAINERS["onhost"], NetworkMode(host=True), named=True, attached=[])
    with pytest.raises(ConflictError) as caught:
        modes.require_same(CONTAINERS["debug"], NetworkMode(), named=False, attached=[])
    assert caught.value.why == "its network is container:web, not own"
    with pytest.raises(ConflictError) as caught:
        modes.require_same(CONTAINERS["web"], NetworkMode(), named=True, attached=["blue"])
    assert caught.value.why == "it is on blue"


def test_sharing_containers_are_listed_by_owner() -> None:
    """Only the containers that share this one's namespace are returned."""
    assert modes.sharers("web", CONTAINERS.values()) == ["debug"]
    assert modes.sharers("debug", CONTAINERS.values()) == []
