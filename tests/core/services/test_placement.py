"""A change has only the affected services derived again."""

from __future__ import annotations

from dataclasses import replace

from overlay.core.protocol.messages import MemberState
from overlay.core.services.derivation import BackendIndex
from overlay.core.services.placement import Placement, Placements
from overlay.core.services.service import Service
from overlay.model import Vni, parse_ip
from tests.core.services.test_derivation import (
    CHECKED,
    NETWORK,
    ONE,
    TWO,
    VNI,
    WEB,
    candidate,
    index,
)

API = replace(WEB, name="api", ips=(parse_ip("10.0.0.99"),), selector=(("app", "api"),))


class Network:
    """One network, whose services are looked up again and again."""

    def __init__(self, *services: Service) -> None:
        self.services = list(services)
        self.record = NETWORK
        self.placements = Placements()
        self.indexed = 0

    def now(self, number: int, found: BackendIndex) -> Placement:
        """Return the services; `number` stands for the state of the records."""

        def read() -> BackendIndex:
            self.indexed += 1
            return found

        return self.placements.of(self.record, self.services, number, read)


def test_nothing_is_read_without_a_change() -> None:
    """The same objects are returned."""
    network = Network(API, WEB)
    before = network.now(1, index(candidate(1)))

    assert network.now(1, index(candidate(2))) is before
    assert network.indexed == 1


def test_only_a_changed_service_is_derived_again() -> None:
    """A container of web came, its host was suspected, a check said something."""
    network = Network(API, CHECKED)
    one, two = candidate(1, ONE), candidate(2, TWO)
    api = candidate(3, label="api")
    found = [
        network.now(1, index(api, one)),
        network.now(2, index(api, one, two)),
        network.now(3, index(api, one, two, health={1: True})),
        network.now(4, index(api, one, two._replace(host_state=MemberState.SUSPECT))),
    ]

    assert len({id(each.services[0]) for each in found}) == 1
    assert len({id(each.ports[0]) for each in found}) == 1
    assert len({id(each.services[1]) for each in found}) == 4
    assert [each.services[1].service.name for each in found] == ["web"] * 4


def test_a_service_that_is_set_is_derived_again() -> None:
    """With the same records, and one that is gone is no longer there."""
    network = Network(API, WEB)
    known = index(candidate(1), candidate(2))
    before = network.now(1, known)
    network.services = [API, replace(WEB, drained=("c1",))]
    drained = network.now(1, known)
    network.services = [API]

    assert drained.services[0] is before.services[0]
    assert [each.is_resting for each in drained.ports[1].backends] == [True, False]
    assert len(network.now(1, known).ports) == 1


def test_other_subnets_have_other_backends() -> None:
    """As of a network that another one displaces; with the same records of containers."""
    network = Network(WEB)
    known = index(candidate(1))
    assert len(network.now(1, known).ports[0].backends) == 1
    network.record = replace(NETWORK, subnets=())

    assert network.now(1, known).ports[0].backends == ()


def test_networks_that_are_gone_are_forgotten() -> None:
    """Networks that still exist are kept."""
    network = Network(WEB)
    before = network.now(1, index(candidate(1)))
    network.placements.keep([VNI])
    assert network.now(1, index()) is before

    network.placements.keep([Vni(8)])
    network.now(1, index())
    assert network.indexed == 2
