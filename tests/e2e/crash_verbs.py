"""The verbs of `test_crash_points` and `test_faults_at_points`."""

from __future__ import annotations

import contextlib
import signal

from overlay.lab.driver import AgentDriver, ApiRefusedError, Json
from tests.e2e.crash_points import FLAT, Pair, Verb, attach, detach, nothing


def limit(driver: AgentDriver) -> Json:
    """Attach the host's namespace with a rate, or give it one."""
    where: Json = {"target": f"netns:c{driver.number}", "networks": ["blue"]}
    return driver.post("/v1/endpoints", **where, rate_in=10**7, rate_out=10**7)


def create(pair: Pair) -> Json:
    """Make a second network."""
    return pair.two.post("/v1/networks", name="red", subnets=[{"subnet": "10.77.0.0/24"}])


def remove(pair: Pair) -> None:
    """Remove it, if it still exists."""
    with contextlib.suppress(ApiRefusedError):
        pair.two.call("DELETE", "/v1/networks/red")


def add(pair: Pair) -> Json:
    """Make a bare container on the network."""
    return pair.two.post("/v1/containers", name="bare", networks=["blue"])


def unmake(pair: Pair) -> None:
    """Remove it, if it still exists."""
    with contextlib.suppress(ApiRefusedError):
        pair.two.call("DELETE", "/v1/containers/bare")


def join(pair: Pair) -> None:
    """Make the second host join, if it is not a member."""
    if pair.two.get("/v1/status")["cluster"] is None:
        token = pair.one.get("/v1/token")["token"]
        pair.two.post("/v1/join", peers=[pair.one.address], token=token)


def leave(pair: Pair) -> None:
    """Make the second host leave, if it is a member."""
    if pair.two.get("/v1/status")["cluster"] is not None:
        pair.two.post("/v1/leave")


def attach_and_leave(pair: Pair) -> None:
    """Attach first, so that leaving withdraws an endpoint."""
    join(pair)
    attach(pair.two)


def choose(pair: Pair) -> None:
    """Choose an address of the first host's own, a new one each time: grants stay granted."""
    pair.chosen += 1


def ask(pair: Pair) -> None:
    """Ask for it on the second host; an owner that dies meanwhile is a reason to ask again."""
    wanted = f"10.32.{100 + pair.chosen // 250}.{pair.chosen % 250 + 2}"
    pair.two.post("/v1/endpoints", target="netns:c2", networks=["blue"], ip=wanted)


def kill(pair: Pair) -> None:
    """Kill the second host's agent with an endpoint in its care."""
    attach(pair.two)
    pair.two.end()


def power_cut(pair: Pair) -> None:
    """Remove the second host's kernel state too; the container itself survives."""
    kill(pair)
    pair.two.run(
        "sh", "-c", "for each in $(ls /run/netns | grep ^ov-); do ip netns del $each; done"
    )
    pair.two.run("nft", "flush", "ruleset")


def start(pair: Pair) -> None:
    """Start the second host's agent, anew if it runs."""
    pair.two.end(signal.SIGTERM)
    pair.two.start(**FLAT)


def expose(driver: AgentDriver, *, exposed: bool = True) -> Json:
    """Expose the network on the host, or unexpose it."""
    return driver.post("/v1/expose" if exposed else "/v1/unexpose", network="blue")


def hide(driver: AgentDriver) -> None:
    """Attach, and unexpose the network, which the attach has exposed."""
    attach(driver)
    expose(driver, exposed=False)


def show(driver: AgentDriver) -> None:
    """Attach, and expose the network."""
    attach(driver)
    expose(driver)


def publish(driver: AgentDriver) -> Json:
    """Publish a port."""
    return driver.post("/v1/published", name="c2", network="blue", ports=["8080:80"])


def unpublish(driver: AgentDriver) -> Json:
    """Take it back."""
    return driver.post("/v1/unpublish", name="c2")


def shown(driver: AgentDriver) -> None:
    """Attach, expose the network, and publish a port."""
    show(driver)
    publish(driver)


def close(driver: AgentDriver) -> None:
    """Undo all of that; an explicitly exposed network would keep the sandbox."""
    unpublish(driver)
    expose(driver, exposed=False)
    detach(driver)


def _two(pair: Pair) -> AgentDriver:
    return pair.two


def kill_shown(pair: Pair) -> None:
    """Kill the second host's agent with a published port in its care."""
    shown(pair.two)
    pair.two.end()


def rotate(pair: Pair) -> None:
    """Replace the cluster's key."""
    pair.one.post("/v1/keys/rotate")


VERBS = (
    Verb("attach", lambda p: p.two, nothing, lambda p: attach(p.two), lambda p: detach(p.two)),
    Verb("detach", lambda p: p.two, lambda p: attach(p.two), lambda p: detach(p.two), nothing),
    Verb("attach, limited", _two, nothing, lambda p: limit(p.two), lambda p: detach(p.two)),
    Verb("limit", _two, lambda p: attach(p.two), lambda p: limit(p.two), lambda p: detach(p.two)),
    Verb("network create", lambda p: p.two, nothing, create, remove),
    Verb("network rm", lambda p: p.two, create, remove, nothing),
    Verb("container add", lambda p: p.two, nothing, add, unmake),
    Verb("container rm", lambda p: p.two, add, unmake, nothing),
    Verb("grant, asking", lambda p: p.two, choose, ask, lambda p: detach(p.two)),
    Verb("grant, giving", lambda p: p.one, choose, ask, lambda p: detach(p.two)),
    Verb("rotate, making", lambda p: p.one, nothing, rotate, nothing),
    Verb("rotate, following", lambda p: p.two, nothing, rotate, nothing),
    Verb("leave", lambda p: p.two, attach_and_leave, leave, join),
    Verb("join", lambda p: p.two, leave, join, nothing),
    Verb("start", lambda p: p.two, kill, start, lambda p: detach(p.two)),
    Verb("start, after a power cut", lambda p: p.two, power_cut, start, lambda p: detach(p.two)),
    Verb("expose", _two, lambda p: hide(p.two), lambda p: expose(p.two), lambda p: close(p.two)),
    Verb("unexpose", _two, lambda p: show(p.two), lambda p: expose(p.two, exposed=False),
         lambda p: close(p.two)),
    Verb("publish", _two, lambda p: show(p.two), lambda p: publish(p.two), lambda p: close(p.two)),
    Verb("unpublish", _two, lambda p: shown(p.two), lambda p: unpublish(p.two),
         lambda p: close(p.two)),
    Verb("start, with a published port", _two, kill_shown, start,
         lambda p: close(p.two)),
)  # fmt: skip
