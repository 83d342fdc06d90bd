"""The reference of policies: what is allowed, and which policy decides."""

from __future__ import annotations

import ipaddress
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay.core.policy.decision import TCP, UDP, Basis, Decision, Party, decide, selects
from overlay.core.policy.policy import Peer, PeerKind, Policy, PortRange, parse_peer
from overlay.model import Vni, parse_ip

BLUE = frozenset({"blue"})
WEB = Party(parse_ip("10.0.0.2"), "web1", (("app", "web"),), networks=BLUE)
DB = Party(parse_ip("10.0.0.3"), "db1", (("app", "db"),), networks=BLUE)
HOST = Party(parse_ip("10.0.0.9"), "vm1", is_host=True, networks=BLUE)
GATEWAY = Party(parse_ip("10.0.0.1"), is_host=True, is_gateway=True, networks=BLUE)
RED = Party(parse_ip("10.1.0.2"), networks=frozenset({"Red"}))
OUTSIDE = Party(parse_ip("203.0.113.7"))
PARTIES = [WEB, DB, HOST, GATEWAY, RED, OUTSIDE]
TO_DB = Policy(
    "db", Vni(7), "allow", (parse_peer("label=app=web"),), (parse_peer("label=app=db"),),
    (PortRange("tcp", 5432, 5432),),
)  # fmt: skip
PEERS = [
    "label=app=web",
    "label=app",
    "name=DB1",
    "host",
    "world",
    "cidr:10.0.0.0/8",
    "network:red",
]
POLICIES = st.lists(
    st.builds(
        Policy,
        st.sampled_from(["a", "b", "C", "d"]),
        st.just(Vni(7)),
        st.sampled_from(["allow", "deny"]),
        st.lists(st.sampled_from(PEERS).map(parse_peer), max_size=2).map(tuple),
        st.lists(st.sampled_from(PEERS).map(parse_peer), max_size=2).map(tuple),
        st.lists(
            st.sampled_from([PortRange("tcp", 80, 90), PortRange("udp"), PortRange("icmp")]),
            max_size=2,
        ).map(tuple),
    ),
    max_size=4,
    unique_by=lambda policy: policy.name.lower(),
)
ENDS = st.sampled_from(PARTIES)
PACKETS = st.tuples(ENDS, ENDS, st.sampled_from([TCP, UDP, 1, 58, 132]), st.integers(0, 100))


def test_an_allowed_connection_names_its_policy() -> None:
    """On a network that denies by default, what no policy allows is denied."""
    found = decide([TO_DB], WEB, DB, TCP, 5432, default_deny=True)

    assert found == Decision(True, Basis.POLICY, "db")
    other = Decision(False, Basis.DEFAULT)
    assert decide([TO_DB], DB, WEB, TCP, 5432, default_deny=True) == other
    assert decide([TO_DB], WEB, DB, TCP, 5433, default_deny=True) == other
    assert decide([TO_DB], WEB, DB, UDP, 5432, default_deny=True) == other


@pytest.mark.parametrize(
    ("peer", "selected"),
    [
        ("label=app=web", [WEB]),
        ("label=app", [WEB, DB]),
        ("name=DB1", [DB]),
        ("host", [HOST, GATEWAY]),
        ("world", [OUTSIDE]),
        ("cidr:10.0.0.2/31", [WEB, DB]),
        ("cidr:::/0", []),
        ("network:red", [RED]),
    ],
)
def test_a_peer_selects_its_ends(peer: str, selected: list[Party]) -> None:
    """Each kind of peer selects what its name says, and nothing else."""
    assert [each for each in PARTIES if selects([parse_peer(peer)], each)] == selected


def test_without_peers_every_end_is_selected() -> None:
    """So a policy may be about all connections of its network."""
    assert all(selects([], each) for each in PARTIES)


def test_a_gateway_always_answers_names_and_dhcp() -> None:
    """A deny of everything leaves what a network cannot work without."""
    nothing = Policy("nothing", Vni(7), "deny")

    for protocol, port in ((TCP, 53), (UDP, 53), (UDP, 67), (UDP, 547)):
        found = decide([nothing], WEB, GATEWAY, protocol, port, default_deny=True)
        assert found == Decision(True, Basis.ALWAYS)
        assert not decide([nothing], WEB, HOST, protocol, port, default_deny=True).allowed


@given(policies=POLICIES, packet=PACKETS, default_deny=st.booleans(), seed=st.integers())
def test_the_order_of_policies_does_not_matter(
    policies: list[Policy], packet: tuple[Party, Party, int, int], default_deny: bool, seed: int
) -> None:
    """All hosts decide alike, in whatever order their records are."""
    shuffled = random.Random(seed).sample(policies, len(policies))

    found = decide(policies, *packet, default_deny=default_deny)

    assert decide(shuffled, *packet, default_deny=default_deny) == found


@given(policies=POLICIES, packet=PACKETS, default_deny=st.booleans())
def test_a_deny_wins_and_an_allow_wins_over_the_default(
    policies: list[Policy], packet: tuple[Party, Party, int, int], default_deny: bool
) -> None:
    """A further deny takes nothing but connections, a further allow gives nothing else."""
    before = decide(policies, *packet, default_deny=default_deny)
    everything = Policy("everything", Vni(7), "deny")
    denied = decide([*policies, everything], *packet, default_deny=default_deny)
    allowed = decide(
        [*policies, replace(everything, action="allow")], *packet, default_deny=default_deny
    )

    assert denied.allowed == (before.basis is Basis.ALWAYS)
    assert allowed.allowed == (before.allowed or before.basis is Basis.DEFAULT)
    if before.basis is Basis.POLICY:
        assert before.policy in {each.name for each in policies}


def test_a_range_is_of_one_family() -> None:
    """An IPv4 address is in no IPv6 range that begins with the same bits."""
    peer = Peer(PeerKind.CIDR, cidr=ipaddress.ip_network("a00::/8"))

    assert not selects([peer], WEB)
