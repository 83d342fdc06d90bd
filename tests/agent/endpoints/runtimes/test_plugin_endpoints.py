"""Endpoints that runtimes' plugins ask for: their keys, names and ports."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay.agent.endpoints.runtimes import plugin_endpoints
from overlay.agent.endpoints.runtimes.plugin_endpoints import (
    PluginAttach,
    PluginEndpoints,
    PluginKey,
)
from overlay.agent.endpoints.spec import AttachSpec, EndpointOptions
from overlay.agent.runtimes.targets import Target
from overlay.core.dataplane.published_port import PortHolder, PortRequest
from overlay.errors import ConflictError, NotFoundError, OverlayError
from overlay.model import Ip

ID = "0123456789abcdef" * 4
KEY = PluginKey("cni", "blue", ID, "eth0")
FIRST, CHOSEN = Ip(bytes((10, 32, 0, 2))), Ip(bytes((10, 32, 5, 5)))
PORTS = (PortRequest("tcp", Ip(b""), range(8080, 8081), 80),)


class Attached(dict[bytes, Any]):
    """Attachments whose locks are always free."""

    def alone_with(self, _identity: tuple[int, int]) -> Any:
        """Return a lock that is free."""
        return contextlib.nullcontext()


class Host:
    """A host on which an attach always works; ports do, unless there is a refusal."""

    def __init__(self) -> None:
        self.attached = Attached()
        self.names: list[str] = []
        self.refusal: OverlayError | None = None
        self.published: list[Any] = []
        self.events: list[str] = []
        self.rolled_back = 0
        self.taken: tuple[Ip, ...] = ()
        self.dropped = 0
        blue = SimpleNamespace(name="blue", vni=7)
        directory = SimpleNamespace(
            network=lambda _name: blue,
            network_by_vni=lambda _vni: blue,
            all_endpoints=lambda _vni: [(b"", SimpleNamespace(name=each)) for each in self.names],
            endpoint_of=lambda attachment: attachment.endpoint,
        )
        log = SimpleNamespace(record=lambda _kind, text, **_more: self.events.append(text))
        context = SimpleNamespace(
            attachments=self.attached, node=SimpleNamespace(directory=directory, event_log=log)
        )
        attacher = SimpleNamespace(context=context, roll_back=self._roll_back)
        service = SimpleNamespace(attach_target=self._attach)
        detacher = SimpleNamespace(remove=self._remove)
        ports = SimpleNamespace(
            publish_for=self._publish, drop_ended=self._drop_ended, places_of=self._places_of
        )
        parts = (service, attacher, detacher, ports)
        self.plugins = PluginEndpoints(*(cast("Any", part) for part in parts))

    async def _attach(self, target: Target, spec: AttachSpec) -> list[Any]:
        if set(spec.options.ips) & set(self.taken):
            raise ConflictError("the address is taken")
        number = bytes([len(self.attached) + 1])
        ips = spec.options.ips or (FIRST,)
        endpoint = SimpleNamespace(name=spec.options.name, endpoint_id=number, ips=ips)
        self.attached[number] = SimpleNamespace(
            endpoint_id=number.hex(), vni=7, target=target.text, ifname="eth0",
            netns_identity=target.identity, plugin_key=target.plugin_key,
            container_id=target.container_id, endpoint=endpoint,
        )  # fmt: skip
        network = SimpleNamespace(name="blue")
        return [SimpleNamespace(created=True, endpoint=endpoint, network=network)]

    async def _remove(self, attachment: Any) -> list[Any]:
        del self.attached[bytes.fromhex(attachment.endpoint_id)]
        return [(SimpleNamespace(name="blue"), attachment.endpoint)]

    async def _roll_back(self, results: list[Any], _error: BaseException) -> None:
        self.rolled_back += len(results)

    async def _publish(self, *asked: object) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.published.append(asked)

    def _places_of(self, owners: set[str]) -> set[tuple[str, Ip, int]]:
        return {
            (port.protocol, port.host_ip, port.host_ports.start)
            for owner, _, _, ports, _ in self.published
            for port in ports
            if owner in owners
        }

    async def _drop_ended(self) -> None:
        self.dropped += 1

    async def attach(self, key: PluginKey = KEY, name: str = "web", netns: str = "1") -> str:
        """Attach a container in the namespace with that number; return its name."""
        wanted = PluginAttach(key, netns, "blue", name, EndpointOptions(), PORTS)
        return str((await self.plugins.attach(wanted)).endpoint.name)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    """Return a host whose namespaces have numbers instead of paths."""

    def resolve(text: str) -> Target:
        target = Target("path", "path", text, None, None, text, identity=(1, int(text)))
        monkeypatch.setattr(Target, "close", lambda _self: None)
        return target

    monkeypatch.setattr(plugin_endpoints, "resolve_target", resolve)
    return Host()


async def test_an_endpoint_is_found_by_its_key(host: Host) -> None:
    """Until it is detached; then a detach is no error, and a check is."""
    assert await host.attach() == "web"
    attachment, _ = host.plugins.require(KEY)
    assert attachment.target == "cni:web"
    assert attachment.container_id == ID

    assert len(await host.plugins.detach(KEY)) == 1
    assert await host.plugins.detach(KEY) == []
    with pytest.raises(NotFoundError, match="0123456789ab"):
        host.plugins.require(KEY)


async def test_a_second_attach_of_one_interface_fails(host: Host) -> None:
    """In the same namespace; in another one the container has ended unnoticed before."""
    await host.attach()
    with pytest.raises(ConflictError, match="has eth0 on this network already"):
        await host.attach()

    await host.attach(netns="2")
    assert [each.netns_identity for each in host.attached.values()] == [(1, 2)]


@pytest.mark.parametrize(
    ("given", "taken", "name"),
    [
        ("web", (), "web"),
        ("web", ("WEB",), "web-01234567"),
        ("", (), "0123456789ab"),
        ("a b", (), "a-b"),
        ("...", (), "0123456789ab"),
        ("w" * 70, (), "w" * 63),
    ],
)
async def test_a_container_always_has_a_name(
    host: Host, given: str, taken: tuple[str, ...], name: str
) -> None:
    """The runtime's, made valid; where it is taken, with a part of the id, and an event."""
    host.names = list(taken)

    assert await host.attach(name=given) == name
    assert len(host.events) == len(taken)


async def test_a_restart_keeps_the_address(host: Host) -> None:
    """A detach, then an attach; if another container has the address by then, any other."""
    wanted = PluginAttach(KEY, "1", "blue", "web", EndpointOptions(ips=(CHOSEN,)))
    for netns, taken, ips in (("1", (), CHOSEN), ("2", (), CHOSEN), ("3", (CHOSEN,), FIRST)):
        host.taken = taken
        options = EndpointOptions(ips=(CHOSEN,) if netns == "1" else ())
        result = await host.plugins.attach(replace(wanted, netns_path=netns, options=options))
        assert result.endpoint.ips == (ips,)
        await host.plugins.detach(KEY)


async def test_two_containers_have_two_targets(host: Host) -> None:
    """Pods of two Kubernetes namespaces may have one name, on two networks."""
    await host.attach()
    await host.attach(KEY._replace(container_id="f" * 64), netns="2")

    assert [each.target for each in host.attached.values()] == ["cni:web", f"cni:{'f' * 12}"]


async def test_ports_end_with_the_endpoint(host: Host) -> None:
    """They are owned by it; a port that is refused undoes the attach."""
    await host.attach()
    assert host.published == [("endpoint/01", "web", "blue", [*PORTS], PortHolder(ID))]
    await host.plugins.detach(KEY)
    assert host.dropped == 1

    host.refusal = ConflictError("port 8080 is taken")
    with pytest.raises(ConflictError, match="8080"):
        await host.attach()
    assert host.rolled_back == 1


async def test_ports_are_published_once(host: Host) -> None:
    """A runtime asks for them on each of a container's networks; another's are refused."""
    await host.attach()
    await host.attach(KEY._replace(scope="green", ifname="eth1"), netns="1")
    await host.attach(KEY._replace(container_id="b"), netns="2")

    assert [len(ports) for _, _, _, ports, _ in host.published] == [1, 0, 1]


async def test_only_a_networks_own_containers_are_collected(host: Host) -> None:
    """Of the same plugin and the same network of the runtime, without the valid ones."""
    others = [
        KEY._replace(container_id="b"),
        KEY._replace(scope="blue2", container_id="c"),
        KEY._replace(plugin="netavark", container_id="d"),
    ]
    for number, key in enumerate((KEY, *others), start=1):
        await host.attach(key, netns=str(number))

    await host.plugins.detach_others("cni", "blue", [(ID, "eth0")])
    assert [each.container_id for each in host.attached.values()] == [ID, "c", "d"]
