"""Rulesets written by common firewalls' programs are judged by what they do to VXLAN."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from overlay import limits
from overlay.core.native.firewall import VxlanTraffic
from overlay.core.netcheck.packet_filter import Action
from overlay.errors import OverlayError
from overlay.kernel import netns
from overlay.kernel.nft import expressions as ex
from overlay.kernel.nft.elements.expression_lists import encoded
from overlay.kernel.nft.expressions import Expression
from overlay.kernel.nft.firewall import legacy
from overlay.kernel.nft.firewall.host_firewall import judging_rule
from overlay.kernel.nft.firewall.reader import Firewall
from overlay.kernel.nft.firewall.rule_matches import RuleReader
from overlay.model import parse_ip
from tests.kernel.conftest import World

pytestmark = pytest.mark.netns
OWN, MEMBERS = parse_ip("10.9.0.1"), (parse_ip("10.9.0.2"), parse_ip("10.9.0.3"))
OWN6, MEMBER6 = parse_ip("fd09::1"), parse_ip("fd09::2")
FIREWALLD = """table inet firewalld {
  chain filter_INPUT { type filter hook input priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    jump zones
    reject with icmpx admin-prohibited
  }
  chain zones { iifname "eth0" goto public
    goto public
  }
  chain public { jump public_allow
    meta l4proto { icmp, ipv6-icmp } accept
  }
  chain public_allow { tcp dport 22 accept
    OPENED
  }
}"""
DOCKER = (  # as Docker 20 writes it by iptables, and by ip6tables
    "-t nat -N DOCKER",
    "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
    "-t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER",
    "-t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
    "-t raw -A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP",
    "-P FORWARD DROP",
    "-N DOCKER-USER",
    "-A FORWARD -j DOCKER-USER",
    "-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A DOCKER-USER -j RETURN",
)
UFW = (  # the rules of ufw 0.36 that packets for this host meet
    "-P INPUT DROP",
    "-N before",
    "-N logging-deny",
    "-N not-local",
    "-N user",
    "-A INPUT -j before",
    "-A before -i lo -j ACCEPT",
    "-A before -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A before -m conntrack --ctstate INVALID -j logging-deny",
    "-A before -m conntrack --ctstate INVALID -j DROP",
    "-A before -p icmp --icmp-type echo-request -j ACCEPT",
    "-A before -p udp --sport 67 --dport 68 -j ACCEPT",
    "-A before -j not-local",
    "-A before -j user",
    "-A not-local -m addrtype --dst-type LOCAL -j RETURN",
    "-A not-local -m addrtype --dst-type MULTICAST -j RETURN",
    "-A not-local -m limit --limit 3/min --limit-burst 10 -j logging-deny",
    "-A not-local -j DROP",
    "-A logging-deny -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix blocked",
)
KUBERNETES = (
    "-N KUBE-FIREWALL",
    "-N KUBE-LOOPBACK",
    "-A INPUT -j KUBE-FIREWALL",
    "-A OUTPUT -j KUBE-FIREWALL",
    "-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment x -j KUBE-LOOPBACK",
    "-A KUBE-LOOPBACK -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP",
)


def in_filter(hook: str, *rules: str, policy: str = "accept", priority: int = 0) -> str:
    """Return a table with one chain."""
    head = f"type filter hook {hook} priority {priority}; policy {policy};"
    return f"table inet filter {{ chain c {{ {head}\n" + "\n".join(rules) + "\n}\n}"


JUDGING = {  # the ruleset, and where it judges
    "policy": in_filter("input", policy="drop"),
    "policy out": in_filter("output", "ct state established accept", policy="drop"),
    "all members but one accepted": in_filter("input", "ip saddr 10.9.0.2 accept", "drop"),
    "one member dropped": in_filter("prerouting", "ip saddr 10.9.0.3 drop"),
    "a network": in_filter("input", "ip saddr 10.9.0.0/24 udp dport 4789 drop"),
    "a set": in_filter("input", "ip saddr { 10.9.0.3, 10.1.1.1 } reject"),
    "an interval": in_filter("input", "ip saddr { 10.9.0.0-10.9.0.2 } drop"),
    "ports": in_filter("output", "udp dport 4000-5000 drop"),
    "a limit": in_filter("input", "udp dport 4789 limit rate over 10/second drop"),
    "a mark": in_filter("prerouting", "udp dport 4789 meta mark set 1"),
    "DSCP": in_filter("postrouting", "udp dport 4789 ip dscp set cs1"),
    "a verdict map": in_filter("input", "udp dport vmap { 53 : accept, 4789 : drop }"),
    "states": in_filter("input", "ct state vmap { established : accept, untracked : drop }"),
    "before tracking": in_filter("prerouting", "ct state invalid drop", priority=-400),
    "interface": in_filter("input", 'iifname "eth0" drop'),
    "other than": in_filter("output", 'oifname != "lo" drop'),
    "prefix": in_filter("input", 'iifname "eth*" udp dport 4789 drop'),
    "unknown": in_filter("input", "meta mark 7 drop"),
    "ingress": 'table netdev f { chain c { type filter hook ingress device "eth0" priority 0;\n'
    "udp dport 4789 drop\n}\n}",
    "maybe back": in_filter("input", "jump d", "drop").replace(
        "table inet filter {", "table inet filter { chain d { meta mark 7 return\n accept\n }\n"
    ),
}
PASSING = {
    "nothing": "",
    "harmless": in_filter("input", "counter log prefix x", "udp dport 4789 notrack accept"),
    "accepted": in_filter("input", "udp dport 4789 accept", policy="drop"),
    "members accepted": in_filter(
        "input", "ip saddr { 10.9.0.2, 10.9.0.3 } udp dport { 53, 4789 } accept", "drop"
    ),
    "network accepted": in_filter("input", "ip saddr 10.9.0.0/24 accept", policy="drop"),
    "untracked accepted": in_filter(
        "input", "ct state { new, untracked } udp dport 4789 accept", "drop"
    ),
    "interval accepted": in_filter("input", "ip saddr { 10.0.0.0/8 } accept", "drop"),
    "verdicts": in_filter("input", "udp dport vmap { 53 : drop, 4789 : accept }", "drop"),
    "others' ports": in_filter("input", "tcp dport 1-65535 drop", "udp dport 53 drop"),
    "others' interfaces": in_filter("output", 'oifname "docker0" drop', 'oifname "lo" drop'),
    "others' addresses": in_filter("input", "ip daddr 10.9.0.7 drop", "ip6 saddr fd00::/8 drop"),
    "forwarded": in_filter("forward", policy="drop"),
    "other device": 'table netdev f { chain c { type filter hook ingress device "lo" priority 0;\n'
    "drop\n}\n}",
    "invalid": in_filter("input", "ct state invalid drop"),
    "translation": "table ip nat { chain c { type nat hook postrouting priority 100;\n"
    "masquerade\n}\n}",
    "dormant": in_filter("input", policy="drop").replace("{", "{ flags dormant;", 1),
    "own": in_filter("input", policy="drop").replace("inet filter", "inet overlayd_ab12cd"),
}


class Place:
    """A host with one interface, whose firewall is looked at."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.name = world.namespace("h")
        world.run(self.name, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth9")
        self.fd = world.fd(self.name)
        self.firewall = Firewall(self.fd)

    def load(self, ruleset: str) -> None:
        """Put a ruleset in place of the one before."""
        whole = f"flush ruleset\n{ruleset}"
        command = ["ip", "netns", "exec", self.name, "nft", "-f", "-"]
        done = subprocess.run(command, input=whole, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr

    def iptables(self, *rules: str) -> None:
        """Add rules by iptables."""
        for rule in rules:
            self.world.run(self.name, "iptables-nft", *rule.split())

    def judging(self, *, ipv6: bool = False) -> str:
        """Return what may drop or change VXLAN packets."""
        own, members = (OWN6, frozenset({MEMBER6})) if ipv6 else (OWN, frozenset(MEMBERS))
        interfaces = frozenset({(7, "eth0")})
        ways = (VxlanTraffic(way, own, members, interfaces, 4789) for way in (True, False))
        return self.firewall.judging(*ways)

    def judging_anywhere(self) -> str:
        """Return what may do so in nftables or in the tables of iptables-legacy."""
        with netns.inside(self.fd):
            return judging_rule(OWN, MEMBERS, [], "eth0", 4789)


@pytest.fixture(scope="module")
def place(_capable: None) -> Iterator[Place]:
    """Return a host."""
    world = World()
    made = Place(world)
    try:
        yield made
    finally:
        made.firewall.close()
        world.close()


@pytest.mark.parametrize("ruleset", JUDGING.values(), ids=JUDGING)
def test_what_may_drop_or_change_the_packets_is_named(place: Place, ruleset: str) -> None:
    """Also a rule that fits some members only, or of which that is not known."""
    place.load(ruleset)
    kind = "netdev f" if "netdev" in ruleset else "inet filter"
    assert place.judging() == f"table {kind}, chain c"


@pytest.mark.parametrize("ruleset", PASSING.values(), ids=PASSING)
def test_rules_about_other_packets_do_not_count(place: Place, ruleset: str) -> None:
    """Nor do those behind a rule that accepts all of these packets."""
    place.load(ruleset)
    assert place.judging() == ""


def test_of_the_other_ip_version_rules_for_it_count(place: Place) -> None:
    """The underlay has one version; rules for the other are about other packets."""
    place.load(in_filter("input", "ip6 saddr fd09::/64 drop", "ip saddr 10.9.0.2 accept"))
    assert (place.judging(), place.judging(ipv6=True)) == ("", "table inet filter, chain c")


def test_firewalld_counts_until_the_port_is_open(place: Place) -> None:
    """Its chains end in a rule that rejects what no zone accepts."""
    place.load(FIREWALLD.replace("OPENED", "tcp dport 80 accept"))
    assert place.judging() == "table inet firewalld, chain filter_INPUT"
    place.load(FIREWALLD.replace("OPENED", "udp dport 4789 accept"))
    assert place.judging() == ""


def test_dockers_and_kubernetes_rules_do_not_count(place: Place) -> None:
    """They translate, and drop what is forwarded or for other addresses."""
    place.load("")
    place.iptables(*DOCKER, *KUBERNETES)
    assert place.judging() == ""


def test_ufw_counts_until_the_port_is_open(place: Place) -> None:
    """Its matches are extensions of iptables, which nf_tables keeps as they are."""
    place.load("")
    place.iptables(*UFW)
    assert place.judging() == "table ip filter, chain INPUT"
    place.iptables("-A user -p udp -m multiport --dports 53,4789 -j ACCEPT")
    assert place.judging() == ""


def test_what_is_not_known_of_iptables_rules_counts(place: Place) -> None:
    """A target may change packets, and a match may fit them."""
    for rule in (
        "-t mangle -A POSTROUTING -p udp --dport 4789 -j DSCP --set-dscp 8",
        "-A INPUT -m string --algo bm --string x -j DROP",
    ):
        place.load("")
        place.iptables(rule)
        assert place.judging()


def test_tables_of_iptables_legacy_count(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which nftables does not show; without the program that does, any table counts."""
    place.load("")
    assert place.judging_anywhere() == ""
    drop = "INPUT -s 10.9.0.3/32 -p udp -m udp --dport 4789 -j DROP"
    place.world.run(place.name, "iptables-legacy", "-A", *drop.split())
    assert place.judging_anywhere() == f"iptables-legacy: '-A {drop}'"
    accept = "INPUT -s 10.9.0.0/24 -p udp --dport 4789 -j ACCEPT"
    place.world.run(place.name, "iptables-legacy", "-I", *accept.split())
    assert place.judging_anywhere() == ""
    monkeypatch.setattr(legacy, "_PATH", "/nowhere")
    assert place.judging_anywhere() == "iptables-legacy table filter"


def test_an_expression_without_its_parts_may_judge() -> None:
    """A newer kernel may write one in another way."""
    traffic = VxlanTraffic(True, OWN, frozenset(MEMBERS), frozenset({(7, "eth0")}), 4789)
    reader = RuleReader(traffic, lambda _name: None, is_untracked=True)
    for broken in (Expression("cmp"), Expression("meta", ((1, b"x"),)), Expression("queue")):
        rules = [*reader.rules(encoded((broken, ex.accept())), "here", "")]
        assert Action.DROP in {each.action for each in rules if each.matches is not False}


def test_more_rules_than_can_be_compared_are_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hosts with many thousand rules exist."""
    place.load(in_filter("input", "tcp dport 1 drop", "tcp dport 2 drop"))
    monkeypatch.setattr(limits, "FIREWALL_RULES_MAX", 1)
    with pytest.raises(OverlayError, match="more than 1 rules"):
        place.judging()
