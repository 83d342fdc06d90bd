"""DNS client lookup is O(1) in the number of local attachments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from overlay.agent.dns.clients import DnsClients
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.documents import Attachment
from overlay.model import Endpoint, Ip, Mac, Vni, parse_ip

BLUE, RED = Vni(1), Vni(2)
COUNT = 1_000


def ip_of(vni: Vni, number: int) -> Ip:
    """Return a container's address."""
    return Ip(bytes([10, vni]) + number.to_bytes(2, "big"))


class Records:
    """A directory of this node's endpoints that counts how many were read."""

    def __init__(self) -> None:
        self.read_count = 0
        self.version = 1
        self.own: dict[Vni, list[Endpoint]] = {BLUE: [], RED: []}

    def networks(self) -> list[Any]:
        """Return both networks."""
        return [SimpleNamespace(vni=vni, internal=vni == BLUE) for vni in self.own]

    def own_version(self, _vni: Vni) -> int:
        """Return the version of this node's records, which grows with each change."""
        return self.version

    def own_endpoints(self, vni: Vni) -> Iterator[Endpoint]:
        """Yield this node's endpoints on a network."""
        for each in self.own[vni]:
            self.read_count += 1
            yield each

    def add(self, vni: Vni, number: int) -> Attachment:
        """Attach a container; its namespace's inode is its number."""
        endpoint_id = bytes([vni]) + number.to_bytes(7, "big")
        ip, mac = ip_of(vni, number), Mac(b"\2" * 6)
        self.own[vni].append(Endpoint(endpoint_id, vni, f"c{number}", mac, (ip,)))
        self.version += 1
        return Attachment(
            endpoint_id=endpoint_id.hex(),
            vni=vni,
            target=f"netns:c{number}",
            netns_path=f"/run/netns/c{number}",
            netns_identity=(4, number),
            container_id=None,
            ifname="eth0",
            port="ve0",
            subnet_index=0,
            gateway=True,
            plugged=True,
        )


def test_a_query_reads_no_other_container() -> None:
    """A thousand queries from a thousand containers read each record once.

    A query from an unknown address reads none again.
    """
    records = Records()
    made = [records.add(vni, number) for vni in (BLUE, RED) for number in range(1, COUNT)]
    attachments = Attachments(made)
    kept = {"c7": {"dns_servers": ["192.0.2.53"]}}
    state = SimpleNamespace(get=lambda _kind, name: kept.get(name))
    dns_clients = DnsClients(cast("Any", state), cast("Any", records), attachments)
    blue = cast("Any", SimpleNamespace(vni=BLUE))
    for number in range(1, COUNT):
        seen = dns_clients.networks(blue, ip_of(BLUE, number))
        assert [network.vni for network in seen] == [BLUE, RED]
    for _ in range(COUNT):
        assert dns_clients.networks(blue, parse_ip("10.1.255.255")) == [blue]

    assert dns_clients.resolvers(blue, ip_of(BLUE, 7)) == ["192.0.2.53"]
    assert records.read_count == COUNT - 1


def test_attach_and_detach_take_effect_at_once() -> None:
    """A change of this node's records rebuilds the index; a detached client is unknown."""
    records, state = Records(), cast("Any", SimpleNamespace(get=lambda *_: None))
    attachments = Attachments()
    dns_clients = DnsClients(state, cast("Any", records), attachments)
    blue = cast("Any", SimpleNamespace(vni=BLUE))
    assert dns_clients.networks(blue, ip_of(BLUE, 1)) == [blue]
    for vni in (BLUE, RED):
        attachment = records.add(vni, 1)
        attachments[bytes.fromhex(attachment.endpoint_id)] = attachment

    assert [each.vni for each in dns_clients.networks(blue, ip_of(BLUE, 1))] == [BLUE, RED]
    for endpoint_id in list(attachments):
        del attachments[endpoint_id]
    assert dns_clients.networks(blue, ip_of(BLUE, 1)) == [blue]


def test_only_internal_networks_reach_nothing_outside() -> None:
    """A client on an internal network reaches the outside only by a second network.

    An address that no container has is on the network of its query alone.
    """
    records, state = Records(), cast("Any", SimpleNamespace(get=lambda *_: None))
    only, both, other = records.add(BLUE, 1), records.add(BLUE, 2), records.add(RED, 2)
    dns_clients = DnsClients(state, cast("Any", records), Attachments([only, both, other]))
    blue, red = cast("Any", records.networks())

    assert not dns_clients.reaches_outside(blue, ip_of(BLUE, 1))
    assert dns_clients.reaches_outside(blue, ip_of(BLUE, 2))
    assert not dns_clients.reaches_outside(blue, ip_of(BLUE, 3))
    assert dns_clients.reaches_outside(red, ip_of(RED, 3))
    addresses = (blue, ip_of(BLUE, 1)), (blue, ip_of(BLUE, 2)), (red, ip_of(RED, 2))
    first, second, same = (dns_clients.identity(*each) for each in addresses)
    assert first != second == same


def test_attachments_are_found_by_their_container() -> None:
    """They are found after a change, after a removal, and after the removal of the last one."""
    records = Records()
    one, two = records.add(BLUE, 1), records.add(RED, 1)
    ids = [bytes.fromhex(each.endpoint_id) for each in (one, two)]
    attachments = Attachments([one, two])
    changed = replace(one, gateway=False)
    attachments[ids[0]] = changed

    assert attachments.of_target((4, 1)) == [changed, two]
    assert list(attachments.values()) == [changed, two]
    attachments.pop(ids[0])
    assert attachments.of_target((4, 1)) == [two]
    del attachments[ids[1]]
    assert (attachments.of_target((4, 1)), len(attachments)) == ([], 0)
