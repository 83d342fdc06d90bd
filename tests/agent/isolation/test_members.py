"""Members that do not isolate ports: nothing is isolated beside them, and they are named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from overlay.agent.isolation.members import isolation_faults, require_isolating_members
from overlay.agent.records.directory import Directory
from overlay.core.declared.objects import DeclaredObjects
from overlay.core.protocol.records import Participation, Scope
from overlay.errors import ConflictError
from overlay.model import ISOLATED_LABEL, Endpoint, Network, Subnet, Vni, mac_for, parse_ip
from tests.agent.conftest import met, until

if TYPE_CHECKING:
    from tests.agent.conftest import Sites

VNI = Vni(7)
SUBNET = Subnet(parse_ip("10.7.0.0"), 24, parse_ip("10.7.0.1"))


async def test_an_older_member_is_named_and_refused(
    sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named as long as something is isolated; beside it, nothing becomes so."""
    one = sites.first()
    await one.gossip.wait_may_write(10.0)
    node = one.gossip.node
    objects = DeclaredObjects(node.store, one.gossip.signer)
    directory = Directory(node, one.gossip.node_id, declared=objects)
    network = Network(VNI, "blue", (SUBNET,), one.gossip.node_id)
    one.write(network, Participation(VNI, forwards=False))
    require_isolating_members(node, "this")
    monkeypatch.setattr("overlay.agent.gossip.service.__version__", "0.3.0")
    two = await sites.join(2, one, one.admission.default_token())
    await until(lambda: met(one, two))

    assert list(isolation_faults(node, directory)) == []
    with pytest.raises(ConflictError, match="cannot be written yet") as caught:
        require_isolating_members(node, "the isolation of web's port")
    assert caught.value.why == "vm2 (overlayd 0.3.0) would let containers meet all the same"

    ip = parse_ip("10.7.0.2")
    mac = mac_for(VNI, ip)
    isolated = Endpoint(b"web".ljust(8), VNI, "web", mac, (ip,), labels=(ISOLATED_LABEL,))
    one.gossip.commit(Scope(VNI), [isolated])
    (fault,) = isolation_faults(node, directory)
    assert fault.text == "vm2 (overlayd 0.3.0) isolates no ports and ignores VLANs"
