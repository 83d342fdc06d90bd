"""Docker's containers get their names while Docker answers no question about them."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest
from overlay.agent.endpoints.edit import EndpointEdit
from overlay.agent.plugins.docker import container_names
from overlay.agent.plugins.docker.container_names import ContainerSettings, DockerContainerNames
from overlay.errors import OverlayError
from overlay.model import PORT_SECURITY_OFF_LABEL, Endpoint, Mac, Vni, parse_ip

NETWORK, CONTAINER, ENDPOINT = "a" * 64, "b" * 64, "c" * 64
CREATED = {
    "Id": CONTAINER,
    "Name": "/web",
    "State": {"Pid": 0},
    "HostConfig": {"Dns": ["192.0.2.1", "127.0.0.1", "no address", "fe80::1", "2001:db8::1"]},
    "NetworkSettings": {"Networks": {"green": {"EndpointID": "", "Aliases": ["shop"]}}},
}


class FakeDocker:
    """Docker's API: paths that have an answer; for all others it does not answer in time."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {
            f"/networks/{NETWORK}": {
                "Name": "green",
                "Containers": {CONTAINER: {"Name": "web", "EndpointID": ENDPOINT}},
            },
            f'/containers/json?filters={{"id": ["{CONTAINER}"]}}': [],
        }

    def query(self, path: str, **_: Any) -> Any:
        """Answer, or raise OverlayError."""
        if unquote(path) not in self.answers:
            raise OverlayError("Docker does not answer")
        return self.answers[unquote(path)]


class FakeOffered:
    """One endpoint of Docker's, with the names and resolvers that it was given."""

    def __init__(self) -> None:
        self.endpoint = Endpoint(
            b"12345678", Vni(1), "docker-cccc", Mac(b"\2" * 6), (parse_ip("10.1.0.2"),)
        )
        self.network = SimpleNamespace(name="green", labels={})
        self.resolvers: list[str] = []
        self.events: list[str] = []
        self.rechecked: list[tuple[str, tuple[int, int] | None]] = []
        self.attachment = SimpleNamespace(
            runtime_endpoint=ENDPOINT,
            netns_identity=(0, 7),
            target="/var/run/docker/netns/1",
            vni=1,
        )

    def all(self) -> list[Any]:
        """Return the endpoint."""
        return [self.attachment]

    def find(self, runtime_endpoint: str) -> Any:
        """Return the endpoint, if it is meant."""
        return self.attachment if runtime_endpoint == ENDPOINT else None

    async def rename(self, _endpoint: str, edit: EndpointEdit) -> None:
        """Apply an edit."""
        self.endpoint = edit.applied(self.endpoint)

    async def recheck(self, container_id: str, identity: tuple[int, int] | None) -> None:
        """Keep what was checked again."""
        self.rechecked.append((container_id, identity))

    async def assign(self, _endpoint: str, _target: object) -> bool:
        """Assign nothing."""
        return True

    async def set_resolvers(self, _endpoint: str, resolvers: Sequence[str]) -> None:
        """Keep the resolvers."""
        self.resolvers = list(resolvers)


@pytest.fixture(autouse=True)
def docker(monkeypatch: pytest.MonkeyPatch) -> FakeDocker:
    """Return the Docker that is asked."""
    made = FakeDocker()
    monkeypatch.setattr(container_names, "query_docker", made.query)
    return made


@pytest.fixture
def offered() -> FakeOffered:
    """Return the endpoint."""
    return FakeOffered()


@pytest.fixture
def names(offered: FakeOffered) -> DockerContainerNames:
    """Return the component."""
    components: Any = SimpleNamespace(
        runtime_endpoints=offered,
        directory=SimpleNamespace(
            endpoint_of=lambda _: offered.endpoint, network_by_vni=lambda _: offered.network
        ),
        event_log=SimpleNamespace(record=lambda _kind, text, **_: offered.events.append(text)),
    )
    return DockerContainerNames(components)


async def test_a_name_is_known_before_the_container_runs(
    names: DockerContainerNames, offered: FakeOffered
) -> None:
    """It comes from the network: questions about a container that starts have no answer yet."""
    assert names.provisional() == {ENDPOINT}

    await names.created(CONTAINER)
    await names.connected(NETWORK, CONTAINER)

    assert offered.endpoint.name == "web"
    assert offered.endpoint.aliases == ()
    assert offered.resolvers == []


async def test_what_a_container_was_created_with_is_remembered(
    names: DockerContainerNames, docker: FakeDocker, offered: FakeOffered
) -> None:
    """Its aliases and usable resolvers are known when it is connected, at each start."""
    docker.answers[f"/containers/{CONTAINER}/json"] = CREATED
    await names.created(CONTAINER)
    del docker.answers[f"/containers/{CONTAINER}/json"]

    await names.connected(NETWORK, CONTAINER)

    assert (offered.endpoint.name, offered.endpoint.aliases) == ("web", ("shop",))
    assert offered.resolvers == ["192.0.2.1", "2001:db8::1"]
    names.removed(CONTAINER)
    offered.resolvers = []
    await names.connected(NETWORK, CONTAINER)
    assert offered.resolvers == []


async def test_a_container_with_another_network_is_checked(
    names: DockerContainerNames,
    docker: FakeDocker,
    offered: FakeOffered,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By its namespace, which is known since its start: its default route may be another."""
    networks = {"green": {"EndpointID": ENDPOINT}}
    docker.answers[f"/containers/{CONTAINER}/json"] = {
        **CREATED,
        "State": {"Pid": 7},
        "NetworkSettings": {"Networks": networks},
    }
    target = SimpleNamespace(identity=(4, 7), close=lambda: None)
    monkeypatch.setattr(container_names, "resolve_target", lambda _: target)

    await names.rerouted(CONTAINER)
    await names.assign(CONTAINER)
    await names.rerouted(CONTAINER)
    names.removed(CONTAINER)
    await names.rerouted(CONTAINER)

    assert offered.rechecked == [(CONTAINER, None), (CONTAINER, (4, 7)), (CONTAINER, None)]


@pytest.mark.parametrize("is_secured", [True, False])
async def test_a_link_local_address_is_reported_once(
    names: DockerContainerNames,
    docker: FakeDocker,
    offered: FakeOffered,
    monkeypatch: pytest.MonkeyPatch,
    is_secured: bool,
) -> None:
    """Docker tells a driver nothing of it, and port security drops what is sent from it."""
    given = {"EndpointID": ENDPOINT, "IPAMConfig": {"LinkLocalIPs": ["169.254.9.9"]}}
    docker.answers[f"/containers/{CONTAINER}/json"] = {
        **CREATED,
        "State": {"Pid": 7},
        "NetworkSettings": {"Networks": {"green": given}},
    }
    target = SimpleNamespace(identity=(4, 7), close=lambda: None)
    monkeypatch.setattr(container_names, "resolve_target", lambda _: target)
    if not is_secured:
        offered.network.labels[PORT_SECURITY_OFF_LABEL] = "on"

    for _ in range(2):
        await names.assign(CONTAINER)
        names.provisional()

    assert len(offered.events) == is_secured
    assert all("169.254.9.9 of --link-local-ip does not work" in each for each in offered.events)


async def test_other_containers_are_not_renamed(
    names: DockerContainerNames, docker: FakeDocker, offered: FakeOffered
) -> None:
    """Neither those of other networks nor one that is gone again."""
    for network in (None, {"Name": "green", "Containers": None}, other_network()):
        docker.answers[f"/networks/{NETWORK}"] = network
        await names.connected(NETWORK, CONTAINER)

    assert offered.endpoint.name == "docker-cccc"


def other_network() -> dict[str, Any]:
    """Return a network with an endpoint that is not overlayd's."""
    return {"Name": "x", "Containers": {CONTAINER: {"Name": "x", "EndpointID": "d" * 64}}}


@pytest.mark.parametrize("missing", [{"HostConfig": None}, {"HostConfig": {"Dns": None}}])
def test_settings_may_be_missing(missing: dict[str, Any]) -> None:
    """Docker leaves out what is empty."""
    empty: dict[str, Any] = {"NetworkSettings": {"Networks": {"green": None}}}

    assert ContainerSettings.of({**empty, **missing}) == ContainerSettings((), {"green": ()})
