"""Notifications in a real kernel."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.state import NeighborRow
from overlay.kernel.netlink import codec, neighbor_rows, row_requests
from overlay.kernel.netlink.link_lookup import find_link
from overlay.kernel.netlink.socket import LostNotificationsError, NetlinkSocket
from overlay.model import Ip, Mac

if TYPE_CHECKING:
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns

MAC = Mac(bytes.fromhex("020000000303"))
MANY = 2_000  # notifications: more than the receive buffer of this test holds


def test_after_a_loss_all_is_notified_again(world: World) -> None:
    """The kernel drops further ones while some wait: a loss is told once, and leaves none."""
    name = world.namespace("lost")
    world.run(name, "ip", "link", "add", "br0", "type", "bridge")
    fd = world.fd(name)
    rows = [NeighborRow("br0", Ip((0x0A000000 + n).to_bytes(4, "big")), MAC) for n in range(MANY)]
    with (
        NetlinkSocket(fd) as writer,
        NetlinkSocket(fd, groups=(codec.RTNLGRP_NEIGH,)) as watching,
    ):
        index = find_link(writer, "br0")
        with socket.socket(fileno=os.dup(watching.fileno())) as opened:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        assert writer.transact([row_requests.put(row, index) for row in rows]) == []
        with pytest.raises(LostNotificationsError):
            watching.notifications(MANY)
        writer.request(row_requests.delete(rows[0], index))

        found = watching.notifications(MANY)

    assert {neighbor_rows.neighbor_subject(each).address for each in found} == {rows[0].ip}
    assert found[-1].kind == codec.RTM_DELNEIGH
