"""Rules as `iptables-save` prints them, compared with overlayd's packets."""

from __future__ import annotations

import pytest
from overlay.core.netcheck.iptables_ruleset import iptables_chains
from overlay.core.netcheck.packet_filter import Obstacle, Packet, find_obstacle

VXLAN_IN = Packet(True, "192.168.56.12", "192.168.56.11", "eth1", 4789, 150)
HEAD = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n"
UFW = """\
*filter
:INPUT DROP [0:0]
:ufw-before-input - [0:0]
:ufw-user-input - [0:0]
:ufw-not-local - [0:0]
-A INPUT -j ufw-before-input
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -m conntrack --ctstate INVALID -j DROP
-A ufw-before-input -p udp -m udp --sport 67 --dport 68 -j ACCEPT
-A ufw-before-input -j ufw-not-local
-A ufw-before-input -j ufw-user-input
-A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN
-A ufw-not-local -j DROP
-A ufw-user-input -p tcp -m tcp --dport 22 -j ACCEPT
{more}COMMIT
"""


def obstacle(saved: str, packet: Packet = VXLAN_IN) -> Obstacle | None:
    """Return what drops a packet."""
    return find_obstacle(iptables_chains(saved, "iptables", packet), packet)


@pytest.mark.parametrize(
    "rule",
    [
        "-A INPUT -p udp -m udp --dport 4789 -j DROP",
        "-A INPUT -p udp -m multiport --dports 53,4000:5000 -j REJECT --reject-with x",
        "-A INPUT -s 192.168.56.0/24 -i eth+ -j DROP",
        "-A INPUT ! -s 10.0.0.0/8 -p udp -j DROP",
        '-A INPUT -p udp -m comment --comment "no VXLAN" -j DROP',
    ],
)
def test_a_rule_that_matches_drops(rule: str) -> None:
    """The rule is named as iptables shows it."""
    found = obstacle(f"{HEAD}{rule}\nCOMMIT\n")

    assert found is not None
    assert found.certain
    assert rule in found.where


@pytest.mark.parametrize(
    "rule",
    [
        "-A INPUT -p tcp -m tcp --dport 4789 -j DROP",
        "-A INPUT -p udp -m udp --dport 53 -j DROP",
        "-A INPUT ! -i eth1 -j DROP",
        "-A INPUT -m length --length 1400:65535 -j DROP",
        "-A FORWARD -j DROP",
        "-A OUTPUT -j DROP",
        "-A INPUT -p udp --dport 4789 -j LOG",
    ],
)
def test_a_rule_about_something_else_does_not(rule: str) -> None:
    """Other protocols, ports, interfaces, sizes and directions."""
    assert obstacle(f"{HEAD}{rule}\nCOMMIT\n") is None


def test_a_rule_about_the_port_is_deleted_to_mend_it() -> None:
    """Any other gets an exception before it."""
    own = obstacle(f"{HEAD}-A INPUT -p udp --dport 4789 -j DROP\nCOMMIT\n")
    all_udp = obstacle(f"{HEAD}-A INPUT -p udp -j DROP\nCOMMIT\n")

    assert own is not None
    assert own.remedy == "iptables -D INPUT -p udp --dport 4789 -j DROP"
    assert all_udp is not None
    assert all_udp.remedy == "iptables -I INPUT -p udp --dport 4789 -j ACCEPT"


def test_an_unknown_match_may_drop() -> None:
    """It is not certain."""
    found = obstacle(f"{HEAD}-A INPUT -m set --match-set bad src -j DROP\nCOMMIT\n")

    assert found is not None
    assert not found.certain


def test_the_chains_of_ufw_are_followed() -> None:
    """Its policy drops the port until it is allowed."""
    found = obstacle(UFW.format(more=""))

    assert found is not None
    assert found.certain
    assert found.where == "the policy of iptables chain INPUT (table filter)"
    assert found.remedy == "ufw allow 4789/udp"
    allowed = "-A ufw-user-input -p udp -m udp --dport 4789 -j ACCEPT\n"
    assert obstacle(UFW.format(more=allowed)) is None
