"""Declared objects as an agent writes them: what is refused, and what is cleaned up."""

from __future__ import annotations

import pytest
from overlay import limits
from overlay.agent.declared.service import DeclaredService
from overlay.agent.gossip.context import NodeContext
from overlay.agent.records.directory import Directory
from overlay.core.declared.kinds import EVPN_KIND, POLICY_KIND, ROUTER_KIND
from overlay.core.declared.objects import DeclaredObjects
from overlay.core.protocol.records import CLUSTER_SCOPE, DeclaredObject
from overlay.errors import ConflictError
from tests.agent.conftest import Site, Sites, until

KIND = 1


def service_of(site: Site) -> DeclaredService:
    """Return the declared objects of a member."""
    directory = Directory(site.gossip.node, site.gossip.node_id)
    context = NodeContext(site.gossip, directory, None, site.event_log)  # type: ignore[arg-type]
    objects = DeclaredObjects(site.gossip.node.store, site.gossip.signer)
    return DeclaredService(context, objects)


def bodies(service: DeclaredService) -> dict[str, bytes]:
    """Return what exists, by name."""
    return {each.value.name: each.value.body for each in service.objects.existing(KIND)}


async def test_members_change_each_others_objects(sites: Sites) -> None:
    """One creates, the other changes and removes; the first one's record goes."""
    one = sites.first()
    two = await sites.join(2, one, one.admission.default_token())
    first, second = service_of(one), service_of(two)
    first.put(KIND, "web", b"a")
    await until(lambda: bodies(second) == {"web": b"a"})
    second.put(KIND, "web", b"b")
    await until(lambda: bodies(first) == {"web": b"b"})
    await until(lambda: one.gossip.may_write and one.gossip.node.caught_up)
    await first.reconcile()
    assert first.objects.own_count() == 0

    first.remove(KIND, "WEB")
    await until(lambda: bodies(second) == {})


async def test_an_equal_object_is_not_written_again(sites: Sites) -> None:
    """A repeated command changes nothing."""
    one = sites.first()
    service = service_of(one)
    service.put(KIND, "web", b"a")
    version = one.gossip.node.store.version(one.gossip.node_id, CLUSTER_SCOPE)
    service.put(KIND, "web", b"a")
    service.remove(KIND, "api")

    assert one.gossip.node.store.version(one.gossip.node_id, CLUSTER_SCOPE) == version


async def test_an_old_member_is_named(sites: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would refuse all that this host writes, so nothing is written."""
    one = sites.first()
    monkeypatch.setattr("overlay.agent.gossip.service.__version__", "0.1.9")
    await sites.join(2, one, one.admission.default_token())
    service = service_of(one)

    with pytest.raises(ConflictError, match=r"vm2 \(overlayd 0.1.9\) would accept nothing"):
        service.put(KIND, "web", b"a")
    assert bodies(service) == {}


async def test_the_highest_version_names_its_writer(sites: Sites) -> None:
    """Nobody can write above it, so the message says who wrote it, and the remedy."""
    one = sites.first()
    one.write(DeclaredObject(KIND, "web", limits.DECLARED_VERSION_MAX, b"a"))

    with pytest.raises(ConflictError, match="vm1 has written it") as refused:
        service_of(one).put(KIND, "web", b"b")
    assert refused.value.hint.endswith("overlayd forget --ban vm1")


async def test_a_full_log_takes_no_further_object(
    sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound is that of the log, so that all members count what is written."""
    one = sites.first()
    service = service_of(one)
    monkeypatch.setattr(limits, "DECLARED_PER_NODE_MAX", 2)
    service.put(KIND, "a", b"a")
    service.put(KIND, "b", b"b")

    with pytest.raises(ConflictError, match="it has written 2 such objects"):
        service.put(KIND, "c", b"c")
    service.put(KIND, "a", b"changed")
    assert bodies(service) == {"a": b"changed", "b": b"b"}


@pytest.mark.parametrize(
    ("kind", "does"),
    [(POLICY_KIND, "not enforce it"), (EVPN_KIND, "not follow it"), (ROUTER_KIND, "not route")],
)
async def test_objects_wait_for_members_that_ignore_them(
    sites: Sites, monkeypatch: pytest.MonkeyPatch, kind: int, does: str
) -> None:
    """A member that would do otherwise is named; removing one needs nobody."""
    one = sites.first()
    service = service_of(one)
    service.put(kind, "db", b"a")
    monkeypatch.setattr("overlay.agent.gossip.service.__version__", "0.2.0")
    await sites.join(2, one, one.admission.default_token())

    with pytest.raises(ConflictError, match=rf"vm2 \(overlayd 0.2.0\) would {does}"):
        service.put(kind, "web", b"a")
    service.put(KIND, "web", b"a")
    service.remove(kind, "db")
    assert not service.objects.existing(kind)
