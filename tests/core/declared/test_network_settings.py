"""Settings that override a network's definition."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from overlay.core.dataplane.network_drivers import driver_of, is_encrypted
from overlay.core.declared import bodies
from overlay.core.declared.kinds import SETTINGS_KIND
from overlay.core.declared.network_settings import (
    NetworkSettings,
    difference,
    in_effect,
    settings_name,
)
from overlay.core.declared.objects import DeclaredObjects, PlacedObject
from overlay.core.protocol.records import DeclaredObject
from overlay.model import Ip, Network, NodeId, Subnet, Vni, parse_ip

CREATOR = NodeId(b"c" * 16)
SUBNET = Subnet(parse_ip("10.32.0.0"), 16, parse_ip("10.32.0.1"))
BLUE = Network(
    Vni(7),
    "blue",
    (SUBNET,),
    CREATOR,
    labels=(("overlayd.driver", "overlay-encrypted"), ("team", "a")),
)
RANGES = [None, (parse_ip("10.32.8.0"), 21)]


class Objects(DeclaredObjects):
    """Declared objects that a test gives."""

    def __init__(self, body: bytes, name: str = settings_name(BLUE)) -> None:
        self._given = PlacedObject(CREATOR, DeclaredObject(SETTINGS_KIND, name, 1, body))

    def existing(self, kind: int) -> list[PlacedObject]:
        """Return the object given."""
        return [self._given] if kind == SETTINGS_KIND else []


def effective(body: bytes) -> Network:
    """Return the network in effect under one declared body."""
    return in_effect(Objects(body), [(CREATOR, BLUE)])[0][1]


@given(
    st.booleans(),
    st.dictionaries(st.sampled_from(["team", "overlayd.mtu", "x"]), st.text("ab1", max_size=3)),
    st.sampled_from(RANGES),
)
def test_a_change_reads_back(
    internal: bool, labels: dict[str, str], ip_range: tuple[Ip, int] | None
) -> None:
    """Settings that a member declares are in effect on all; equal ones declare nothing."""
    wanted = replace(
        BLUE,
        internal=internal,
        labels=tuple(sorted([BLUE.labels[0], *labels.items()])),
        subnets=(replace(SUBNET, ip_range=ip_range),),
    )
    settings = difference(BLUE, wanted)

    assert (settings == NetworkSettings()) == (wanted == BLUE)
    assert effective(settings.body("blue")) == wanted


def test_what_a_network_is_made_of_stays() -> None:
    """A member that lies changes neither driver nor encryption, nor leaves the subnet."""
    lie = NetworkSettings(
        labels=(("overlayd.driver", "macvlan"), ("overlayd.parent", "eth0")),
        ip_ranges=((parse_ip("192.168.0.0"), 24),),
    )
    found = effective(lie.body("blue"))

    assert is_encrypted(found)
    assert driver_of(found) == "overlay"
    assert found.labels == (("overlayd.driver", "overlay-encrypted"),)
    assert found.subnets == BLUE.subnets


@given(st.binary(max_size=40) | st.sampled_from([b"[1]", b'[null,[["a"]],null]', b"[true,3,4]"]))
def test_what_no_agent_writes_has_no_effect(body: bytes) -> None:
    """The definition stands."""
    found = bodies.decode(body, lambda *fields: fields)

    assert effective(body) == BLUE or found is not None


def test_a_newer_agents_further_fields_are_left_out() -> None:
    """Those that are known count."""
    assert effective(b'[true,null,null,"more"]') == replace(BLUE, internal=True)


def test_settings_of_another_creator_do_not_count() -> None:
    """Two hosts may have created networks with one VNI during a partition."""
    body = NetworkSettings(internal=True).body("blue")
    other = replace(BLUE, creator=NodeId(b"d" * 16))

    assert in_effect(Objects(body), [(CREATOR, BLUE), (other.creator, other)]) == [
        (CREATOR, replace(BLUE, internal=True)),
        (other.creator, other),
    ]
    assert in_effect(None, [(CREATOR, BLUE)]) == [(CREATOR, BLUE)]
