"""Since when peers have answered."""

from __future__ import annotations

from overlay.core.encryption.device import DeviceReading, PeerReading
from overlay.core.encryption.first_handshakes import FirstHandshakes


def reading(**handshakes: float) -> DeviceReading:
    """Return a device whose peers had their last handshakes at these times."""
    peers = {name.encode(): PeerReading((), at, 0, 0) for name, at in handshakes.items()}
    return DeviceReading(b"", 7949, peers)


def test_the_first_handshake_by_a_key_stays() -> None:
    """Also where another device is made; a key that is gone, or had none, has no time."""
    first = FirstHandshakes()
    first.update([reading(a=10.0, b=0.0)])
    first.update([reading(a=130.0, b=131.0), reading(c=132.0)])
    assert [first.of(each) for each in (b"a", b"b", b"c")] == [10.0, 131.0, 132.0]
    first.update([reading(a=0.0, c=250.0)])
    first.update([reading(a=260.0, c=250.0)])
    assert [first.of(each) for each in (b"a", b"b", b"c")] == [260.0, None, 132.0]
