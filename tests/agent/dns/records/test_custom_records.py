"""Custom DNS records of two hosts: any of them adds, replaces and removes each."""

from __future__ import annotations

import pytest
from overlay.agent.declared.service import DeclaredService
from overlay.agent.dns.records.custom_records import CustomRecords
from overlay.agent.dns.records.removed_records import RemovedRecords
from overlay.agent.gossip.context import NodeContext
from overlay.agent.records.directory import Directory
from overlay.core.declared.host_objects import DeclaredRecord, existing
from overlay.core.declared.objects import DeclaredObjects
from overlay.core.protocol.records import Participation
from overlay.errors import NotFoundError
from overlay.model import Network, Subnet, Vni, ip_text, parse_ip
from tests.agent.conftest import Site, Sites, until

SUBNET = Subnet(parse_ip("10.32.0.0"), 16, parse_ip("10.32.0.1"))


class Names:
    """The records of one member."""

    def __init__(self, site: Site) -> None:
        gossip = site.gossip
        self.objects = DeclaredObjects(gossip.node.store, gossip.signer)
        self.directory = Directory(gossip.node, gossip.node_id, declared=self.objects)
        context = NodeContext(gossip, self.directory, None, site.event_log)  # type: ignore[arg-type]
        self.declared = DeclaredService(context, self.objects)
        self.records = CustomRecords(gossip, self.directory, self.declared)
        self.removed = RemovedRecords(context, self.declared, self.records)
        self._gossip = gossip

    @property
    def blue(self) -> Network:
        """The network."""
        return self.directory.network("blue")

    def shown(self) -> dict[str, list[str]]:
        """Return what DNS serves."""
        return {
            record.name: [ip_text(ip) for ip in record.ips]
            for _, record in self.directory.custom_records(self.blue.vni)
        }

    async def settle(self) -> None:
        """Carry out removals, once this member may write."""
        await until(lambda: self._gossip.may_write and self._gossip.node.caught_up)
        await self.removed.reconcile()


async def pair(sites: Sites) -> tuple[Names, Names]:
    """Return two members, of which the first has created a network."""
    one = sites.first()
    two = await sites.join(2, one, one.admission.default_token())
    blue = Network(Vni(7), "blue", (SUBNET,), one.gossip.node_id)
    for site, values in ((one, [blue]), (two, [])):
        site.write(*values, Participation(blue.vni, forwards=False))
    first, second = Names(one), Names(two)
    await until(lambda: second.directory.find_network("blue") is not None)
    await until(lambda: first.directory.follows(one.gossip.node_id, blue.vni))
    await until(lambda: second.directory.follows(two.gossip.node_id, blue.vni))
    return first, second


async def test_another_hosts_record_is_removed(sites: Sites) -> None:
    """It is hidden at once, deleted by its host, and then nothing of it is left."""
    first, second = await pair(sites)
    first.records.add(first.blue, "db", (parse_ip("10.0.0.1"),))
    await until(lambda: second.shown() == {"db": ["10.0.0.1"]})

    second.records.remove(second.blue, "DB")
    assert second.shown() == {}
    await until(lambda: first.shown() == {})
    await first.settle()
    assert first.records.own(first.blue) == []
    await until(lambda: not second.records.hosts_with(second.blue, "db"))
    await second.settle()
    await until(lambda: not list(existing(first.objects, DeclaredRecord)))
    for names in (first, second):
        with pytest.raises(NotFoundError, match="no DNS record db"):
            names.records.remove(names.blue, "db")


async def test_a_declared_record_takes_precedence(sites: Sites) -> None:
    """Any host replaces it, keeping its owner, or removes it; then the added one is back."""
    first, second = await pair(sites)
    first.records.add(first.blue, "db", (parse_ip("10.0.0.1"),))
    declared = DeclaredRecord("blue", "db", (parse_ip("10.0.0.9"),), "shop")
    first.declared.put(declared.kind, declared.object_name, declared.body())
    await until(lambda: second.shown() == {"db": ["10.0.0.9"]})

    second.records.add(second.blue, "db", (parse_ip("10.0.0.8"),))
    await until(lambda: first.shown() == {"db": ["10.0.0.8"]})
    (found,) = existing(first.objects, DeclaredRecord)
    assert found.owner == "shop"
    first.declared.remove(found.kind, found.object_name)
    await until(lambda: second.shown() == {"db": ["10.0.0.1"]})
