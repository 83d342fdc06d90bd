"""A real agent, killed while it creates, changes and removes what networks are governed by.

Policies, services, routers, plugs, VLANs, isolation, encryption, limits and records of DNS, files
that declare them, and what a container runtime attaches: at the first, a middle and the last pass
of each kind of crash point. In `make chaos` only; the attaches and networks below them are in
`test_crash_points`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from http import HTTPStatus

import pytest
from overlay.lab.driver import AgentDriver, ApiRefusedError, Json, wait_until
from tests.e2e.crash_points import (
    Pair,
    Verb,
    attach,
    crash_at_kinds,
    crash_pair,
    detach,
    nothing,
)

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.timeout(1200)]
RED: Json = {"name": "red", "subnets": [{"subnet": "10.77.0.0/24"}]}
POLICY: Json = {"name": "shut", "network": "blue", "action": "deny", "ports": ["81/tcp"]}
SERVICE: Json = {"name": "web", "network": "blue", "ports": [{"port": 80}], "backends": ["c2"]}
ROUTER: Json = {"name": "between", "networks": ["blue", "red"]}
RECORD: Json = {"name": "printer", "network": "blue", "ips": ["10.32.200.9"]}
FILE: Json = {
    "owner": "crash",
    "network": [RED],
    "service": [SERVICE | {"publish": [{"port": 8088, "service_port": 80}]}],
    "policy": [POLICY],
    "router": [ROUTER],
    "dns": [RECORD],
    "publish": [{"host": "vm2", "network": "blue", "name": "c2", "ports": ["8089:80"]}],
}
KEY: Json = {"plugin": "cni", "scope": "blue", "container_id": "0badcafe", "ifname": "eth0"}
WIRE = """
ip link show wire || ip link add wire type veth peer far
ip link set far up && ip link set wire up
"""


def gone(driver: AgentDriver, *paths: str) -> None:
    """Remove objects, if they still exist; a network may be in use for a moment longer."""
    for path in paths:
        wait_until(partial(is_gone, driver, path), f"{path} is removed")


def is_gone(driver: AgentDriver, path: str) -> bool:
    """Remove an object; return whether it does not exist."""
    try:
        driver.call("DELETE", path)
    except ApiRefusedError as refusal:
        return refusal.status == HTTPStatus.NOT_FOUND
    return True


def post(path: str, **body: object) -> Callable[[Pair], object]:
    """Return a request to the second host."""
    return lambda pair: pair.two.post(path, **body)


def delete(path: str) -> Callable[[Pair], None]:
    """Return a request to the second host that may come again."""
    return lambda pair: gone(pair.two, path)


def first(*steps: Callable[[Pair], object]) -> Callable[[Pair], None]:
    """Return what attaches the second host's container, and takes further steps."""

    def prepare(pair: Pair) -> None:
        attach(pair.two)
        for step in steps:
            step(pair)

    return prepare


def last(*paths: str) -> Callable[[Pair], None]:
    """Return what removes objects and detaches the container."""

    def undo(pair: Pair) -> None:
        gone(pair.two, *paths)
        detach(pair.two)

    return undo


def setting(**values: object) -> Callable[[Pair], object]:
    """Return a request to change settings of the network."""
    return post("/v1/networks/blue", **values)


def set_back(**values: object) -> Callable[[Pair], None]:
    """Return what resets them, and detaches."""

    def undo(pair: Pair) -> None:
        setting(**values)(pair)
        detach(pair.two)

    return undo


def on_vlan(pair: Pair) -> object:
    """Attach the container to a VLAN of the network."""
    return pair.two.post("/v1/endpoints", target="netns:c2", networks=["blue"], vlan="10")


def wire(pair: Pair) -> None:
    """Make a cable for the plug."""
    pair.two.run("sh", "-c", WIRE)


def plug(pair: Pair) -> object:
    """Plug the cable into the network."""
    return pair.two.post("/v1/networks/blue/plug", interface="wire")


def unplug(pair: Pair) -> None:
    """Take it out, if it is plugged."""
    gone(pair.two, "/v1/networks/blue/plug?interface=wire")


def unplugged(pair: Pair) -> None:
    """Take it out, and detach."""
    unplug(pair)
    detach(pair.two)


def encrypted(*, value: bool) -> Callable[[Pair], object]:
    """Return a request to encrypt the network in use, or to end that."""
    return post("/v1/encryption/switch", network="blue", encrypted=value)


def in_clear(pair: Pair) -> None:
    """End the encryption, and detach."""
    wait_until(partial(is_in_clear, pair), "the encryption ends")
    detach(pair.two)


def is_in_clear(pair: Pair) -> bool:
    """End the encryption; return whether that was possible yet."""
    with contextlib.suppress(ApiRefusedError):
        encrypted(value=False)(pair)
        return True
    return False


def apply(pair: Pair) -> object:
    """Have everything as the file says."""
    return required(pair.two.post("/v1/apply", file=FILE))


def required(answer: Json) -> Json:
    """Return the answer of a file that was applied; raises ApiRefusedError for another one."""
    if answer["failure"] is not None:
        raise ApiRefusedError(HTTPStatus.CONFLICT, answer["failure"])
    return answer


def prune(pair: Pair) -> object:
    """Remove all that the file made."""
    return required(pair.two.post("/v1/apply", file={"owner": FILE["owner"]}, prune=True))


def pruned(pair: Pair) -> None:
    """Remove all of that, and detach; the network may be in use for a moment longer."""
    wait_until(partial(is_pruned, pair), "all is removed")
    detach(pair.two)


def is_pruned(pair: Pair) -> bool:
    """Remove all that the file made; return whether that was possible yet."""
    with contextlib.suppress(ApiRefusedError):
        prune(pair)
        return True
    return False


def plugin_add(pair: Pair) -> object:
    """Attach the container as a runtime does, which first removes what a failure left."""
    plugin_del(pair)
    ports = [{"ports": ["8090:80"], "host_ip": None}]
    where = {"target": "/run/netns/c2", "network": "blue"}
    return pair.two.post("/v1/plugin/attach", **KEY, **where, publish=ports)


def plugin_del(pair: Pair) -> object:
    """Detach it as a runtime does."""
    return pair.two.post("/v1/plugin/detach", **KEY)


def _two(pair: Pair) -> AgentDriver:
    return pair.two


POLICY_PATH, SERVICE_PATH = "/v1/policies/shut", "/v1/services/web"
ROUTER_PATH, RED_PATH = "/v1/routers/between", "/v1/networks/red"
RECORD_PATH = "/v1/dns/printer?network=blue"
make_policy = post("/v1/policies", **POLICY)
make_service = post("/v1/services", **SERVICE)
make_router = post("/v1/routers", **ROUTER)
make_red = post("/v1/networks", **RED)
make_record = post("/v1/dns", **RECORD)
more_ports = post(POLICY_PATH, ports=["81/tcp", "82-90/udp"])
drain = post(SERVICE_PATH, drain=["c2"])

_verb = partial(Verb, is_followed=True)
VERBS = (
    _verb("policy create", _two, first(), make_policy, last(POLICY_PATH)),
    _verb("policy set", _two, first(make_policy), more_ports, last(POLICY_PATH)),
    _verb("policy rm", _two, first(make_policy), delete(POLICY_PATH), detach_two := last()),
    _verb("default-deny on", _two, first(), setting(default_deny=True),
         set_back(default_deny=False)),
    _verb("isolate ports", _two, first(), setting(isolate_ports=True),
         set_back(isolate_ports=False)),
    _verb("limits of a network", _two, first(), setting(shared_rate=10**7, storm=100),
         set_back(shared_rate=0, storm=0)),
    _verb("service create", _two, first(), make_service, last(SERVICE_PATH)),
    _verb("service drain", _two, first(make_service), drain, last(SERVICE_PATH)),
    _verb("service rm", _two, first(make_service), delete(SERVICE_PATH), detach_two),
    _verb("router create", _two, first(make_red), make_router, last(ROUTER_PATH, RED_PATH)),
    _verb("router rm", _two, first(make_red, make_router), delete(ROUTER_PATH), last(RED_PATH)),
    _verb("attach to a VLAN", _two, nothing, on_vlan, detach_two),
    _verb("plug", _two, first(wire), plug, unplugged),
    _verb("unplug", _two, first(wire, plug), unplug, detach_two),
    _verb("dns add", _two, first(), make_record, last(RECORD_PATH)),
    _verb("encryption on", _two, first(), encrypted(value=True), in_clear),
    _verb("encryption off", _two, first(encrypted(value=True)), encrypted(value=False),
         detach_two),
    _verb("apply", _two, first(), apply, pruned),
    _verb("apply --prune", _two, first(apply), prune, detach_two),
    _verb("attach by a plugin", _two, nothing, plugin_add, plugin_del),
    _verb("detach by a plugin", _two, plugin_add, plugin_del, nothing),
)  # fmt: skip


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Two joined hosts with network blue, each with a namespace to attach."""
    with crash_pair() as made:
        yield made


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_crashes_of_each_kind(pair: Pair, verb: Verb) -> None:
    """After a kill at each kind of point, all hosts have the same objects and exact kernels."""
    crash_at_kinds(pair, verb)
