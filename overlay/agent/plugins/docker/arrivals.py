"""Assign endpoints to the namespaces of containers as soon as Docker has configured them.

Docker makes a container's namespace after its last call about the endpoint, and its events tell of
the container once that runs. But `Join` names the place of the namespace. So the agent waits until
Docker has taken the interface out of the host's namespace, and looks there until it is up; what
then depends on the container's own routes and resolver is in place before its first instruction.
Docker waits for none of this: on a host that is short of processor time the container may be first.

Owns: when and where to look. Does not: assign (`endpoints.runtime_endpoints`).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass

from overlay import limits
from overlay.agent.endpoints.runtime_endpoints import RuntimeEndpoints
from overlay.agent.runtimes.targets import Target
from overlay.errors import OverlayError
from overlay.kernel import netns

_IFNAME_PREFIX = "ovd"


@dataclass(slots=True)
class _Expected:
    """One container that Docker starts; times are of the loop's clock."""

    netns_path: str
    since_s: float
    due_s: float  # the next look


class ContainerArrivals:
    """The containers whose namespace Docker is about to make."""

    def __init__(self, offered: RuntimeEndpoints) -> None:
        self._offered = offered
        self._expected: dict[str, _Expected] = {}  # by Docker's id of the endpoint
        self._added = asyncio.Event()

    def expect(self, endpoint_id: str, netns_path: str) -> None:
        """Look for a container's namespace from now on, for a bounded time."""
        now_s = asyncio.get_running_loop().time()
        self._expected[endpoint_id] = _Expected(netns_path, now_s, now_s)
        if len(self._expected) > limits.DOCKER_NEW_CONTAINERS_MAX:
            del self._expected[next(iter(self._expected))]
        self._added.set()

    def is_expected(self, endpoint_id: str) -> bool:
        """Return whether Docker has joined an endpoint to a container that is looked for."""
        return endpoint_id in self._expected

    async def run(self) -> None:
        """Look for the expected containers until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._added.wait()
            while self._expected:
                await asyncio.sleep(limits.DOCKER_ARRIVAL_POLL_S)
                for endpoint_id, expected in list(self._expected.items()):
                    if loop.time() >= expected.due_s:
                        await self._look(endpoint_id, expected, loop.time())
            self._added.clear()

    async def _look(self, endpoint_id: str, expected: _Expected, now_s: float) -> None:
        """Assign a container that has arrived, or put the next look off."""
        waited_s = now_s - expected.since_s
        expected.due_s = now_s + waited_s * limits.DOCKER_ARRIVAL_POLL_SHARE
        is_over = waited_s > limits.DOCKER_ARRIVAL_MAX_S or self._is_settled(endpoint_id)
        if not is_over and not await self._is_assigned(endpoint_id, expected.netns_path):
            return
        if self._expected.get(endpoint_id) is expected:  # not that of a later call
            del self._expected[endpoint_id]

    def _is_settled(self, endpoint_id: str) -> bool:
        """Return whether an endpoint is detached again, or has its container already."""
        attachment = self._offered.find(endpoint_id)
        return attachment is None or attachment.netns_identity[0] != 0

    async def _is_assigned(self, endpoint_id: str, netns_path: str) -> bool:
        if _is_here(interface_name(endpoint_id)):
            return False
        try:
            descriptor = netns.open_if_namespace(netns_path)
        except OSError:
            return False
        if descriptor is None:  # Docker has not mounted it there yet
            return False
        target = Target(
            kind="docker",
            name=netns_path,
            netns_path=netns_path,
            pid=None,
            container_id=None,
            text=netns_path,
            runtime_endpoint=endpoint_id,
            descriptor=descriptor,
            identity=netns.identity(descriptor),
        )
        with contextlib.closing(target), contextlib.suppress(OverlayError):
            return await self._offered.assign(endpoint_id, target, when_up=True)
        return False


def interface_name(endpoint_id: str) -> str:
    """Return the name of an endpoint's interface until Docker renames it."""
    return _IFNAME_PREFIX + endpoint_id[:11]


def _is_here(ifname: str) -> bool:
    """Return whether the host's namespace has an interface."""
    try:
        socket.if_nametoindex(ifname)
    except OSError:
        return False
    return True
