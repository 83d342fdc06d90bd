"""Attach with ports as one step, and detach of what is not there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay.agent.endpoints import service
from overlay.agent.endpoints.edit import EditSpec, EndpointEdit
from overlay.agent.endpoints.service import AttachService
from overlay.agent.endpoints.spec import AttachSpec, DetachSpec, EndpointOptions
from overlay.core.dataplane.published_port import PortPair
from overlay.errors import ConflictError, NotFoundError, OverlayError, UsageError

PORTS = (PortPair("tcp", 8080, 80), PortPair("tcp", 8081, 81))


class Attached(dict[str, Any]):
    """Attachments by any key."""

    def of_target(self, identity: tuple[int, int]) -> list[Any]:
        """Return the attachments of a namespace."""
        return [each for each in self.values() if each.netns_identity == identity]


class Host:
    """The parts of a host that the service uses; `refusal`: the error of each publication."""

    def __init__(self, refusal: OverlayError | None = None) -> None:
        self.refusal = refusal
        self.calls: list[str] = []
        self.attached = Attached()
        self.elsewhere = ""
        self.ended: set[str] = set()
        directory = SimpleNamespace(
            network=lambda name: SimpleNamespace(name=name, vni=7),
            endpoint_of=lambda attachment: attachment.endpoint,
            whereabouts=lambda _name: self.elsewhere,
        )
        context = SimpleNamespace(
            node=SimpleNamespace(directory=directory), attachments=self.attached
        )
        attacher = SimpleNamespace(
            context=context, attach_all=self._attach_all, roll_back=self._roll_back
        )
        detacher = SimpleNamespace(detach=self._detach)
        restart = SimpleNamespace(forget=lambda target, _vnis: target in self.ended)
        editor = SimpleNamespace(edit=self._edit)
        publisher = SimpleNamespace(publish=self._publish)
        paths = SimpleNamespace(probe=lambda _vnis: [])
        parts = (attacher, detacher, editor, restart, publisher, paths)
        self.service = AttachService(*(cast("Any", part) for part in parts))

    async def _attach_all(self, *_args: object, **_options: object) -> list[Any]:
        self.calls.append("attach")
        endpoint = SimpleNamespace(name="web")
        return [SimpleNamespace(endpoint=endpoint, network=SimpleNamespace(name="blue"))]

    async def _roll_back(self, results: list[Any], _error: BaseException) -> None:
        self.calls.append(f"roll back {len(results)}")

    async def _publish(
        self, name: str, network: str, pairs: list[PortPair], _host_ip: bytes
    ) -> None:
        self.calls.append(f"publish {len(pairs)} for {name} on {network}")
        if self.refusal is not None:
            raise self.refusal

    async def _edit(self, identity: tuple[int, int], *_args: object) -> list[Any]:
        self.calls.append(f"edit {identity}")
        return []

    async def _detach(self, identity: tuple[int, int], _networks: list[Any]) -> list[Any]:
        self.calls.append(f"detach {identity}")
        return []


@pytest.fixture(autouse=True)
def targets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this machine's targets be the container web alone."""

    def resolve(text: str) -> Any:
        if text != "web":
            raise NotFoundError(f"there is no container {text!r}", why="nothing has it")
        return SimpleNamespace(name="web", kind="netns", identity=(1, 2), close=lambda: None)

    monkeypatch.setattr(service, "resolve_target", resolve)


async def test_ports_are_published_with_the_attach() -> None:
    """All of them, on the container's first network."""
    host = Host()
    await host.service.attach(AttachSpec("web", ("blue",), ports=PORTS))

    assert host.calls == ["attach", "publish 2 for web on blue"]


async def test_a_refused_port_undoes_the_attach() -> None:
    """Nothing is left half done."""
    host = Host(ConflictError("port 8081 is taken"))
    with pytest.raises(ConflictError, match="8081"):
        await host.service.attach(AttachSpec("web", ("blue",), ports=PORTS))

    assert host.calls[-1] == "roll back 1"


async def test_a_bare_container_cannot_be_kept() -> None:
    """No engine makes it again, so nothing would ever be attached."""
    host = Host()
    with pytest.raises(UsageError, match="web cannot be kept") as caught:
        await host.service.attach(AttachSpec("web", ("blue",), EndpointOptions(keep=True)))

    assert "--restart always" in caught.value.hint
    assert host.calls == []


async def test_a_container_that_is_not_attached_detaches() -> None:
    """As before: what is there and detached already needs nothing."""
    host = Host()

    assert await host.service.detach(DetachSpec("web")) == []
    assert host.calls == ["detach (1, 2)"]


@pytest.mark.parametrize(("elsewhere", "told"), [("", "nothing has it"), ("on vm2", "on vm2")])
async def test_detaching_an_unknown_name_says_what_is_known(elsewhere: str, told: str) -> None:
    """A typing error, and a container of another host."""
    host = Host()
    host.elsewhere = elsewhere
    with pytest.raises(NotFoundError, match="no container 'c2'") as caught:
        await host.service.detach(DetachSpec("c2"))

    assert caught.value.why == told


async def test_detaching_by_an_endpoints_name_says_its_target() -> None:
    """A name given at the attach is no target."""
    host = Host()
    found = SimpleNamespace(target="pid:42", endpoint=SimpleNamespace(name="C2"))
    host.attached["one"] = SimpleNamespace(netns_identity=(1, 3), **vars(found))
    with pytest.raises(NotFoundError) as caught:
        await host.service.detach(DetachSpec("c2"))

    assert "pid:42" in caught.value.why


async def test_an_ended_container_is_forgotten_by_detach() -> None:
    """It is not running, but was remembered for its next start."""
    host = Host()
    host.ended.add("docker:old")

    assert await host.service.detach(DetachSpec("docker:old")) == []


@pytest.mark.parametrize(("networks", "where"), [((), "any network"), (("red",), "red")])
async def test_an_edit_needs_an_attachment(networks: tuple[str, ...], where: str) -> None:
    """On each network that was named; nothing is changed on the others."""
    host = Host()
    if networks:
        host.attached["one"] = SimpleNamespace(
            netns_identity=(1, 2), target="netns:web", vni=9, endpoint=None
        )
    with pytest.raises(NotFoundError, match=f"web is not attached to {where}"):
        await host.service.edit(EditSpec("web", EndpointEdit(name="new"), networks))

    assert host.calls == []
