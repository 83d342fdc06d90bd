"""Network drivers, and the label of encrypted overlays."""

from __future__ import annotations

from overlay.core.dataplane.network_drivers import (
    CAPABILITIES,
    OVERLAY,
    driver_of,
    has_tunnel,
    is_encrypted,
    is_supported,
    labels_of,
)
from overlay.model import Network, NodeId, Subnet, Vni, parse_ip

SUBNET = Subnet(parse_ip("10.1.0.0"), 24, parse_ip("10.1.0.1"))


def network(*, encrypted: bool) -> Network:
    """Return an overlay network."""
    labels = labels_of(OVERLAY, "", encrypted=encrypted)
    return Network(Vni(9), "blue", (SUBNET,), NodeId(b"c" * 16), labels=labels)


def test_an_encrypted_network_is_an_overlay() -> None:
    """Everything but its tunnels is as usual."""
    vault, blue = network(encrypted=True), network(encrypted=False)

    assert is_encrypted(vault)
    assert not is_encrypted(blue)
    assert driver_of(vault) == driver_of(blue) == OVERLAY
    assert is_supported(vault)
    assert has_tunnel(vault)


def test_an_older_version_knows_no_such_driver() -> None:
    """It reads the label as it is, finds no such driver, and so attaches nothing in clear."""
    (label,) = network(encrypted=True).labels

    assert label[0] == "overlayd.driver"
    assert label[1] not in CAPABILITIES
