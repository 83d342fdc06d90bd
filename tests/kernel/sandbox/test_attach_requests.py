"""How often an attach waits for the kernel: each time costs as much as a thread switch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from overlay.core.dataplane.state import GuardRow
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.kernel.sandbox import veth
from overlay.model import mac_for, parse_ip
from tests.kernel.conftest import MTU, VNI, World

pytestmark = pytest.mark.netns

ADDRESS, GATEWAY = parse_ip("10.32.0.9"), parse_ip("10.32.0.1")
REQUESTS_MAX = 5
"""Of one attach; the check of the container's namespace and the routes after it are two more."""


def test_an_attach_waits_for_few_answers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interface, its hooks, port security and routes are asked for together."""
    host = world.host()
    assert host.converge() == []
    space = world.namespace(f"{host.name[-2:]}cost")
    sent: list[str] = []

    def counted(name: str) -> Callable[..., Any]:
        method = getattr(NetlinkSocket, name)

        def call(self: NetlinkSocket, *arguments: Any) -> Any:
            sent.append(name)
            return method(self, *arguments)

        return call

    for name in ("_send_batch", "_send_one", "atomically"):
        monkeypatch.setattr(NetlinkSocket, name, counted(name))
    veth.attach_interface(
        host.sandbox,
        port_name="p9",
        bridge="br0",
        netns_fd=world.fd(space),
        container="c9",
        ifname=None,
        mac=mac_for(VNI, ADDRESS),
        addresses=[(ADDRESS, 16)],
        mtu=MTU,
        gateway=GATEWAY,
        allowed=GuardRow((mac_for(VNI, ADDRESS),), (ADDRESS,), "p9"),
    )
    assert 0 < len(sent) <= REQUESTS_MAX, sent
