"""Rate limits of ports in a real kernel: read as written, damage detected."""

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
def test_a_written_limit_is_read(host: Host, in_bits: int, out_bits: int) -> None:
    """A limit is read back after being written twice, changed, and deleted."""
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
def test_an_incomplete_limit_is_read_as_another_row(host: Host, damage: tuple[str, ...]) -> None:
    """Each damage is read as another row; writing the row again repairs it."""
    row = RateRow(PORT, 5 * 10**6, 5 * 10**6)
    assert host.sandbox.apply([PutRow(row)]) == []
    host.world.run(host.sandbox.name, *damage)
    assert row not in rates(host)
    assert host.sandbox.apply([PutRow(row)]) == []
    assert rates(host) == {row}


def test_a_device_without_its_port_is_deleted(host: Host) -> None:
    """The rest of a limit, left by a crash, is deleted as an unplanned row."""
    assert host.sandbox.apply([PutRow(RateRow(PORT, 0, 10**6))]) == []
    host.world.run(host.sandbox.name, "ip", "link", "del", PORT)
    host.ports.clear()
    assert host.converge() == []
    assert rates(host) == set()
    assert "sh0011" not in host.world.run(host.sandbox.name, "ip", "link")


def test_another_queueing_discipline_stays(host: Host) -> None:
    """An operator's queueing discipline on an unlimited port is kept."""
    sandbox = host.sandbox.name
    command = ("tc", "qdisc", "add", "dev", PORT, "root", "handle", "1:", "tbf")
    host.world.run(sandbox, *command, "rate", "1mbit", "burst", "16kb", "latency", "10ms")
    assert rates(host) == set()
    assert host.differences() == []
    assert "tbf 1:" in host.world.run(sandbox, "tc", "qdisc", "show", "dev", PORT)


def test_the_kernel_check_leaves_no_trace(host: Host) -> None:
    """The check leaves nothing in the host's namespace or the sandbox."""
    before = host.world.run(host.sandbox.name, "ip", "-o", "link")
    rate_limit.require()
    assert host.world.run(host.sandbox.name, "ip", "-o", "link") == before


@pytest.mark.usefixtures("world")
def test_a_missing_module_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error contains the modules and the kernel's reason."""

    def refuse(_self: NetlinkSocket, _request: Request) -> None:
        raise NetlinkError(95, "Operation not supported")

    monkeypatch.setattr(NetlinkSocket, "request", refuse)
    with pytest.raises(OverlayError) as caught:
        rate_limit.require()
    assert caught.value.what == "this kernel cannot limit rates"
    assert "modprobe" in caught.value.hint
    assert "act_mirred" in caught.value.hint
