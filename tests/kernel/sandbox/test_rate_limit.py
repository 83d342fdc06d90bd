"""Rates of ports in a real kernel: what is put is read, what is not whole is seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.operations import DeleteRow, PutRow
from overlay.core.dataplane.state import RateRow, Row
from overlay.errors import OverlayError
from overlay.kernel.netlink.codec import Request
from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket
from overlay.kernel.sandbox import rate_limit
from overlay.model import parse_ip

if TYPE_CHECKING:
    from tests.kernel.conftest import Host, World

pytestmark = pytest.mark.netns
PORT = "ve0011"


@pytest.fixture
def host(world: World) -> Host:
    """Return a host whose sandbox has one container port."""
    made = world.host()
    assert made.converge() == []
    made.attach(parse_ip("10.32.0.2"))
    made.world.run(made.sandbox.name, "ip", "link", "set", "p0", "down")
    made.world.run(made.sandbox.name, "ip", "link", "set", "p0", "name", PORT)
    made.world.run(made.sandbox.name, "ip", "link", "set", PORT, "up")
    made.ports[:] = [PORT]
    assert made.converge() == []
    return made


def rates(host: Host) -> set[Row]:
    """Return the limits in force."""
    return {row for row in host.sandbox.read().rows if isinstance(row, RateRow)}


@pytest.mark.parametrize(
    ("in_bits", "out_bits"),
    [(64_000, 0), (0, 64_000), (10**7, 10**6), (32 * 10**9, 32 * 10**9), (1_234_568, 10**9)],
)
def test_what_is_put_is_read(host: Host, in_bits: int, out_bits: int) -> None:
    """Put twice, changed to another and taken away, each is what is read then."""
    row = RateRow(PORT, in_bits, out_bits)
    for _ in range(2):
        assert host.sandbox.apply([PutRow(row)]) == []
        assert rates(host) == {row}
    other = RateRow(PORT, out_bits, in_bits)
    assert host.sandbox.apply([PutRow(other)]) == []
    assert rates(host) == {other}
    for _ in range(2):
        assert host.sandbox.apply([DeleteRow(other)]) == []
        assert rates(host) == set()
    assert "ifb" not in host.world.run(host.sandbox.name, "ip", "-d", "link")
    assert host.differences() == []


@pytest.mark.parametrize(
    "damage",
    [
        ("tc", "qdisc", "del", "dev", PORT, "clsact"),
        ("tc", "qdisc", "del", "dev", "sh0011", "root"),
        ("tc", "qdisc", "replace", "dev", PORT, "root", "handle", "6f76:", "tbf",
         "rate", "5mbit", "burst", "1mb", "latency", "1ms"),
        ("ip", "link", "del", "sh0011"),
    ],
)  # fmt: skip
def test_what_is_not_whole_is_no_such_row(host: Host, damage: tuple[str, ...]) -> None:
    """Each damage is read as another row; putting the row again mends it."""
    row = RateRow(PORT, 5 * 10**6, 5 * 10**6)
    assert host.sandbox.apply([PutRow(row)]) == []
    host.world.run(host.sandbox.name, *damage)
    assert row not in rates(host)
    assert host.sandbox.apply([PutRow(row)]) == []
    assert rates(host) == {row}


def test_a_device_without_its_port_goes(host: Host) -> None:
    """What a crash left of a limit is a row that nobody plans, and so is deleted."""
    assert host.sandbox.apply([PutRow(RateRow(PORT, 0, 10**6))]) == []
    host.world.run(host.sandbox.name, "ip", "link", "del", PORT)
    host.ports.clear()
    assert host.converge() == []
    assert rates(host) == set()
    assert "sh0011" not in host.world.run(host.sandbox.name, "ip", "link")


def test_another_queueing_discipline_stays(host: Host) -> None:
    """What an operator has put on a port that has no limit is not ours."""
    sandbox = host.sandbox.name
    command = ("tc", "qdisc", "add", "dev", PORT, "root", "handle", "1:", "tbf")
    host.world.run(sandbox, *command, "rate", "1mbit", "burst", "16kb", "latency", "10ms")
    assert rates(host) == set()
    assert host.differences() == []
    assert "tbf 1:" in host.world.run(sandbox, "tc", "qdisc", "show", "dev", PORT)


def test_this_kernel_can(host: Host) -> None:
    """What an attach asks first leaves nothing in the host's namespace or the sandbox."""
    before = host.world.run(host.sandbox.name, "ip", "-o", "link")
    rate_limit.require()
    assert host.world.run(host.sandbox.name, "ip", "-o", "link") == before


@pytest.mark.usefixtures("world")
def test_a_kernel_that_cannot_is_told_how(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a part is missing the error names the modules, and whatever the kernel said."""

    def refuse(_self: NetlinkSocket, _request: Request) -> None:
        raise NetlinkError(95, "Operation not supported")

    monkeypatch.setattr(NetlinkSocket, "request", refuse)
    with pytest.raises(OverlayError) as caught:
        rate_limit.require()
    assert caught.value.what == "this kernel cannot limit rates"
    assert "modprobe" in caught.value.hint
    assert "act_mirred" in caught.value.hint
