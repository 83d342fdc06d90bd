"""Services where TCP is led to its backend at connect(2), on Debian's Linux 6.1.

Run by `make vm-test`; `kernel/services/test_connect_hook` and `test_service_traffic` have the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from overlay.lab import host_process, lab
from tests.e2e.service_backends import KILL, ask, names, start_server
from tests.e2e.world import netns

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.vm]
PATIENCE_S = 120.0  # an emulated machine is ten times slower
PEER = "import socket; print(socket.create_connection(('{}', 80), 60).getpeername()[0])"


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Two members, a container on each."""
    make = request.getfixturevalue("cluster_of")
    hosts = lab.make(2)
    try:
        lab.join(hosts)
        lab.populate(hosts)
        yield make(hosts)
    finally:
        host_process.end(host_process.running())


def test_connections_are_led_at_connect(pair: Cluster, eventually: Callable[..., None]) -> None:
    """To backends of both hosts; without the agent they are translated."""
    backends = {}
    for number in (1, 2):
        name = f"b{number}"
        backends[name] = pair.attach(number, name, network="blue")
        start_server(pair, number, name, backends[name])
    made = ("overlayd", "service", "create", "web", "--network", "blue", "--port", "80:8080")
    virtual = pair.ok(1, *made, "--backend", "b1", "--backend", "b2").split()[0]

    def peer() -> str:
        return pair.ok(1, *netns("c1"), "python3", "-c", PEER.format(virtual)).strip()

    def are_asked() -> bool:
        return names(ask(pair, 1, "c1", virtual, count=50)).keys() == backends.keys()

    eventually(are_asked, "both backends", PATIENCE_S)
    assert pair.json(1, "status")["services_at_connect"]["active"]
    assert peer() in backends.values()

    pair.ok(1, "bash", "-c", KILL)
    assert are_asked()
    assert peer() == virtual
