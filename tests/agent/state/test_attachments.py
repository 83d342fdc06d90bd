"""The attachments of a node, by what they are asked for."""

from __future__ import annotations

from dataclasses import replace

from overlay.agent.state.attachments import Attachments
from overlay.agent.state.documents import Attachment
from overlay.core.dataplane.planning.inputs import LocalPort


def attachment(number: int, vni: int) -> Attachment:
    """Return an attachment that is not connected yet."""
    return Attachment(
        endpoint_id=f"{number:016x}", vni=vni, target=f"netns:c{number}",
        netns_path=f"/run/netns/c{number}", netns_identity=(4, number), container_id=None,
        ifname="", port=f"ve{number}", subnet_index=0, gateway=False, plugged=False,
    )  # fmt: skip


def port(number: int, subnet_index: int = 0) -> LocalPort:
    """Return its port."""
    return LocalPort(f"ve{number}", subnet_index, number.to_bytes(8, "big"))


def test_the_ports_of_a_network_follow_its_attachments() -> None:
    """Those that are stored, made, changed, moved and removed; no other network's."""
    first, second, other = attachment(1, 7), attachment(2, 7), attachment(3, 8)
    attachments = Attachments([first, other])
    assert attachments.ports_on(7) == (port(1),)
    attachments[bytes.fromhex(second.endpoint_id)] = second
    attachments.mark_connected(first, "eth0")
    assert attachments.ports_on(7) == (port(1), port(2))
    attachments.move(replace(first, subnet_index=1))
    assert attachments.ports_on(7) == (port(2), port(1, 1))
    del attachments[bytes.fromhex(second.endpoint_id)]
    attachments.pop(bytes.fromhex(first.endpoint_id))
    assert (attachments.ports_on(7), attachments.ports_on(8)) == ((), (port(3),))
    assert attachments._ports.keys() == {8}
