"""Joining a cluster: which peers work, what is refused, and what is known when it returns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    "ports",
    [("--vxlan-port", "7948"), ("--gossip-port", "5000", "--vxlan-port", "5000")],
)
def test_a_cluster_with_equal_ports_is_not_created(hosts: Cluster, ports: tuple[str, ...]) -> None:
    """The error names the port and the options; the host stays outside any cluster."""
    code, out, err = hosts.run(3, "overlayd", "join", *ports)

    assert (code, out) == (2, ""), err
    assert f"gossip and VXLAN cannot both use UDP port {ports[-1]}" in err
    assert "--gossip-port" in err
    assert "not in a cluster" in hosts.run(3, "overlayd", "status")[1]
