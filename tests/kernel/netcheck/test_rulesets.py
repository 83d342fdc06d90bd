"""Rules of this machine's programs, found and named."""

from __future__ import annotations

from overlay.kernel.netcheck.rulesets import Rulesets, blocked_packets, parse_rule_texts

LISTED = """\
table inet cut { # handle 3
\tset bad { # handle 2
\t\ttype ipv4_addr
\t}

\tchain in { # handle 1
\t\ttype filter hook prerouting priority -400; policy accept;
\t\tudp dport 4789 counter packets 0 bytes 0 drop # handle 2
\t\tiifname "eth1" jump more # handle 4
\t}
}
"""
SAVED = """\
*filter
:INPUT ACCEPT [0:0]
-A INPUT -p udp -m length --length 1400:1600 -j DROP
COMMIT
"""


def test_rules_are_shown_as_nft_writes_them() -> None:
    """By their handles."""
    assert parse_rule_texts(LISTED) == {
        ("inet", "cut", "in", 2): "udp dport 4789 counter packets 0 bytes 0 drop",
        ("inet", "cut", "in", 4): 'iifname "eth1" jump more',
    }


def test_only_large_packets_of_vxlan_are_blocked() -> None:
    """One line for each peer and direction, with the size."""
    rules = Rulesets(saved=((SAVED, "iptables", False), (SAVED, "ip6tables", True)))
    found = list(
        blocked_packets(
            rules,
            [("vm2", "192.168.56.12")],
            address="192.168.56.11",
            interface="eth1",
            ports=(7948, 4789),
            size=1500,
        )
    )

    assert [(each.port, each.incoming, each.peer, each.is_large) for each in found] == [
        (4789, True, "vm2", True)
    ]
    assert "length" in found[0].obstacle.where


def test_large_packets_of_wireguard_are_compared_too() -> None:
    """Each port beside that of gossip carries frames of full size."""
    found = blocked_packets(
        Rulesets(saved=((SAVED, "iptables", False),)),
        [("vm2", "192.168.56.12")],
        address="192.168.56.11",
        interface="eth1",
        ports=(7948, 4789, 7949),
        size=1500,
    )
    assert [(each.port, each.is_large) for each in found] == [(4789, True), (7949, True)]
