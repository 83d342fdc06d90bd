"""Which containers ask the gateway by a redirect, for which resolvers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
from overlay.agent.dns import resolver_redirects
from overlay.agent.dns.resolver_redirects import ResolverRedirects
from overlay.agent.gossip.context import NodeContext
from overlay.agent.resolvers.container_resolvers import ContainerResolvers
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.documents import Attachment
from overlay.errors import OverlayError
from overlay.kernel.host.subnet_routes import SubnetRoute
from overlay.model import Endpoint, Ip, Mac, Network, ip_text, parse_ip
from overlay.signals import AsyncSignal
from tests.agent.dns.conftest import BLUE, RED, SHUT, subnet

PATH, IDENTITY = "/proc/7/ns/net", (4, 7)
HOST = parse_ip("192.0.2.7")
SIX = replace(subnet("10.1.0.0"), base=parse_ip("fd00::"), prefix_length=64,
              gateway=parse_ip("fd00::1"))  # fmt: skip


def attachment(vni: int, **fields: Any) -> Attachment:
    """Return an attachment of the container."""
    given: dict[str, Any] = {
        "endpoint_id": bytes([vni] * 8).hex(),
        "vni": vni,
        "target": "docker:web",
        "netns_path": PATH,
        "netns_identity": IDENTITY,
        "container_id": "c",
        "ifname": f"eth{vni}",
        "port": "ve0",
        "subnet_index": 0,
        "gateway": True,
        "plugged": True,
    }
    return Attachment(**{**given, **fields})


class FakeKernel:
    """The kernel thread, and the redirects in containers' namespaces."""

    def __init__(self) -> None:
        self.elsewhere: set[Ip] = {HOST}  # what the container reaches by another interface
        self.redirects: list[FakeRedirect] = []
        self.refusal: Exception | None = None
        self.led = {4, 16}  # families in which the container has a default route
        self.routes: set[str] = set()

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a function."""
        return function(*args)

    def reached_elsewhere(
        self, _path: str, _identity: tuple[int, int], _own: object, destinations: Sequence[Ip]
    ) -> list[Ip]:
        """Return the destinations that are reached by another interface."""
        return [ip for ip in destinations if ip in self.elsewhere]

    def families_led_out(self, _path: str, _identity: tuple[int, int]) -> set[int]:
        """Return the families in which the container has a default route."""
        return self.led

    def ensure(self, _path: str, _identity: tuple[int, int], wanted: list[SubnetRoute]) -> None:
        """Add routes."""
        self.routes |= set(map(_text, wanted))

    def drop(self, _path: str, _identity: tuple[int, int], unwanted: list[SubnetRoute]) -> None:
        """Remove routes."""
        self.routes -= set(map(_text, unwanted))

    def open(self, _path: str, _identity: tuple[int, int]) -> FakeRedirect:
        """Open a redirect."""
        if self.refusal is not None:
            raise self.refusal
        self.redirects.append(FakeRedirect())
        return self.redirects[-1]

    @property
    def gateways(self) -> dict[str, str]:
        """The redirects that are in force."""
        return {
            ip_text(ip): ip_text(gateway)
            for each in self.redirects
            for ip, gateway in each.gateways.items()
        }


def _text(route: SubnetRoute) -> str:
    """Return a route as ip(8) shows it."""
    target = f"{ip_text(route.base)}/{route.prefix_length}"
    return f"{target} via {ip_text(route.gateway)} dev {route.ifname}"


class FakeRedirect:
    """A redirect."""

    def __init__(self) -> None:
        self.gateways: dict[Ip, Ip] = {}

    def put(self, gateways: dict[Ip, Ip]) -> None:
        """Set what is redirected."""
        self.gateways = gateways

    def close(self) -> None:
        """Redirect nothing."""
        self.gateways = {}


class FakeNode:
    """Networks, and an endpoint on each; an event log."""

    def __init__(self) -> None:
        self.networks: dict[int, Network] = {each.vni: each for each in (BLUE, RED)}
        self.ips = {BLUE.vni: ["10.1.0.2"], RED.vni: ["10.2.0.2"]}
        self.kernel = FakeKernel()
        self.directory = self.event_log = self
        self.events: list[str] = []

    def network_by_vni(self, vni: int) -> Network | None:
        """Return a network."""
        return self.networks.get(vni)

    def endpoint_of(self, attachment: Attachment) -> Endpoint:
        """Return an endpoint."""
        network = self.networks[attachment.vni]
        ips = tuple(map(parse_ip, self.ips[network.vni]))
        return Endpoint(b"12345678", network.vni, "web", Mac(b"\2" * 6), ips)

    def record(self, _kind: str, text: str, **_: object) -> None:
        """Record an event."""
        self.events.append(text)


class World:
    """A container's attachments, and the redirects that follow from them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.node = FakeNode()
        self.attachments = Attachments()
        self.changed: AsyncSignal[[tuple[int, int]]] = AsyncSignal()
        resolvers = ContainerResolvers(self.attachments)
        monkeypatch.setattr(resolvers, "of_host", lambda: (HOST,))
        monkeypatch.setattr(resolver_redirects, "ResolverRedirect", self.node.kernel)
        monkeypatch.setattr(resolver_redirects, "default_route", self.node.kernel)
        monkeypatch.setattr(resolver_redirects, "subnet_routes", self.node.kernel)
        self.redirects = ResolverRedirects(
            cast("NodeContext", self.node), self.attachments, resolvers, self.changed
        )

    async def of(self, *attachments: Attachment) -> dict[str, str]:
        """Return the resolvers and gateways, once the container has these attachments."""
        self.attachments.clear()
        self.attachments.update((bytes.fromhex(a.endpoint_id), a) for a in attachments)
        await self.changed.emit(IDENTITY)
        return self.node.kernel.gateways


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a container."""
    return World(monkeypatch)


async def test_an_engines_container_asks_the_gateway(world: World) -> None:
    """For the host's resolvers and its own, until it is detached."""
    world.node.kernel.elsewhere.add(parse_ip("192.0.2.1"))

    assert await world.of(attachment(1)) == {"192.0.2.7": "10.1.0.1"}
    own = attachment(1, resolvers=["192.0.2.1", "192.0.2.2"], target="podman:web")
    assert await world.of(own) == {"192.0.2.7": "10.1.0.1", "192.0.2.1": "10.1.0.1"}
    assert await world.of() == {}
    assert len(world.node.kernel.redirects) == 1


async def test_queries_that_pass_the_gateway_are_left_alone(world: World) -> None:
    """They are answered there; a redirect ends when the default route moves there."""
    assert await world.of(attachment(1)) != {}

    world.node.kernel.elsewhere.clear()

    assert await world.of(attachment(1)) == {}


@pytest.mark.parametrize(
    "fields",
    [{"target": "netns:web"}, {"target": "pid:7"}, {"hands_off": True}, {"plugged": False}],
)
async def test_other_containers_are_left_alone(world: World, fields: dict[str, Any]) -> None:
    """Those that no engine made, that want it so, or have no interface yet."""
    assert await world.of(attachment(1, **fields)) == {}
    assert world.node.kernel.redirects == []


async def test_dockers_own_endpoints_are_redirected(world: World) -> None:
    """Docker configures their interfaces, so overlayd leaves only these alone."""
    endpoint = attachment(1, hands_off=True, runtime_endpoint="e")

    assert await world.of(endpoint) == {"192.0.2.7": "10.1.0.1"}


async def test_an_internal_network_is_not_asked(world: World) -> None:
    """It would refuse other names; another network of the container may be asked."""
    world.node.networks[BLUE.vni] = SHUT

    assert await world.of(attachment(1)) == {}
    assert await world.of(attachment(1), attachment(2)) == {"192.0.2.7": "10.2.0.1"}


async def test_a_container_without_a_way_out_gets_routes(world: World) -> None:
    """On an internal network of Docker's alone; they go when it has a default route."""
    world.node.networks[BLUE.vni] = SHUT
    kernel, docked = world.node.kernel, attachment(1, runtime_endpoint="e", hands_off=True)
    kernel.led, kernel.elsewhere = set(), set()

    assert await world.of(docked) == {}
    assert kernel.routes == {"192.0.2.7/32 via 10.1.0.1 dev eth1"}

    kernel.led, kernel.elsewhere = {4}, {HOST}
    assert await world.of(docked) == {}
    assert kernel.routes == set()


async def test_each_family_has_its_gateway(world: World) -> None:
    """A container without an IPv6 address has none to ask."""
    world.node.networks[BLUE.vni] = replace(BLUE, subnets=(*BLUE.subnets, SIX))
    own = attachment(1, resolvers=["2001:db8::1"])
    world.node.kernel.elsewhere = {parse_ip("2001:db8::1")}

    assert await world.of(own) == {}
    world.node.ips[BLUE.vni].append("fd00::2")
    assert await world.of(own) == {"2001:db8::1": "fd00::1"}


async def test_a_refusal_is_told_once(world: World) -> None:
    """An attach works without; the check repeats, the event does not."""
    world.node.kernel.refusal = OverlayError("this kernel has no NAT")

    for _ in range(3):
        assert await world.of(attachment(1)) == {}

    assert len(world.node.events) == 1
    assert "this kernel has no NAT; start it with --dns GATEWAY" in world.node.events[0]


async def test_a_start_and_an_end_cover_all(world: World) -> None:
    """A start finds no redirect in any container, and a membership leaves none."""
    await world.of(attachment(1))
    await world.redirects.close()
    assert world.node.kernel.gateways == {}

    await world.redirects.ensure_all()

    assert world.node.kernel.gateways == {"192.0.2.7": "10.1.0.1"}
