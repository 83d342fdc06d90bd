"""The texts by which wireguard-go is configured and read."""

from __future__ import annotations

from overlay.core.encryption.device import DeviceChange, PeerReading, TunnelPeer
from overlay.kernel.wireguard import uapi
from overlay.model import parse_ip

PEER = TunnelPeer(b"\x01" * 32, parse_ip("fd6f:766c::1"), parse_ip("192.0.2.2"), 7949)
OTHER = TunnelPeer(b"\x02" * 32, parse_ip("fd6f:766c::2"), parse_ip("2001:db8::2"), 7950)
REPLY = f"""private_key={"aa" * 32}
listen_port=7949
public_key={"01" * 32}
preshared_key={"00" * 32}
protocol_version=1
endpoint=192.0.2.2:7949
last_handshake_time_sec=1700000000
last_handshake_time_nsec=500000000
tx_bytes=448
rx_bytes=356
persistent_keepalive_interval=0
allowed_ip=fd6f:766c::1/128
public_key={"02" * 32}
endpoint=[2001:db8::2]:7950
last_handshake_time_sec=0
last_handshake_time_nsec=0
tx_bytes=0
rx_bytes=0
allowed_ip=fd6f:766c::2/128
allowed_ip=192.0.2.0/24
errno=0

"""


def test_a_change_is_one_message() -> None:
    """Removed peers come before those that are put."""
    change = DeviceChange(b"\xaa" * 32, 7949, (PEER, OTHER), (b"\x03" * 32,))

    assert uapi.encode(change).splitlines() == [
        "set=1",
        f"private_key={'aa' * 32}",
        "listen_port=7949",
        f"public_key={'03' * 32}",
        "remove=true",
        f"public_key={'01' * 32}",
        "endpoint=192.0.2.2:7949",
        "replace_allowed_ips=true",
        "allowed_ip=fd6f:766c::1/128",
        f"public_key={'02' * 32}",
        "endpoint=[2001:db8::2]:7950",
        "replace_allowed_ips=true",
        "allowed_ip=fd6f:766c::2/128",
        "",
    ]


def test_a_device_is_read_with_all_its_peers() -> None:
    """Key, port, and for each peer its ranges, its handshake and its bytes."""
    found = uapi.decode(REPLY)

    assert (found.private_key, found.port) == (b"\xaa" * 32, 7949)
    assert found.peers == {
        b"\x01" * 32: PeerReading(((PEER.inner, 128),), 1700000000.5, 356, 448),
        b"\x02" * 32: PeerReading(((OTHER.inner, 128), (parse_ip("192.0.2.0"), 24)), 0.0, 0, 0),
    }


def test_a_new_device_is_empty() -> None:
    """A process that was just started has neither key nor peers."""
    found = uapi.decode("errno=0\n\n")

    assert (found.private_key, found.port, found.peers) == (b"", 0, {})
