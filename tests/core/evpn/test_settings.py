"""Settings of EVPN, and the configuration that FRR gets."""

from __future__ import annotations

import pytest
from overlay.core.evpn.frr_config import bgpd_config
from overlay.core.evpn.settings import EvpnSettings, parse_settings, settings_text
from overlay.errors import UsageError
from overlay.model import parse_ip

LOCAL = parse_ip("10.9.0.3")


def settings(password: str = "") -> EvpnSettings:
    """Return settings with two route reflectors."""
    return parse_settings(65000, ["10.9.0.1", "10.9.0.9"], ["10.9.0.0/16"], password)


def test_settings_survive_the_disk() -> None:
    """Settings that are written read back as equal values."""
    text = settings_text(settings("secret"))

    assert parse_settings(**text) == settings("secret")  # type: ignore[arg-type]


def test_the_password_is_in_no_text_of_the_value() -> None:
    """A log or traceback that shows the settings shows no secret."""
    assert "secret" not in repr(settings("secret"))


@pytest.mark.parametrize(
    ("asn", "neighbors", "prefixes", "password", "message"),
    [
        (0, ["10.9.0.1"], [], "", "asn must be from 1"),
        (2**32, ["10.9.0.1"], [], "", "asn must be from 1"),
        (65000, [], [], "", "1 to 8 neighbors are required, not 0"),
        (65000, [f"10.9.0.{n}" for n in range(1, 10)], [], "", "1 to 8 neighbors"),
        (65000, ["router"], [], "", "'router' is not the IPv4 address"),
        (65000, ["127.0.0.1"], [], "", "is not the IPv4 address"),
        (65000, ["fd00::1"], [], "", "is not the IPv4 address"),
        (65000, ["10.9.0.1"], ["10.9.0.1/16"], "", "is not an IPv4 prefix"),
        (65000, ["10.9.0.1"], [f"10.{n}.0.0/16" for n in range(33)], "", "at most 32"),
        (65000, ["10.9.0.1"], [], "a b", "password of the sessions"),
        (65000, ["10.9.0.1"], [], "x\nline", "password of the sessions"),
        (65000, ["10.9.0.1"], [], "x" * 81, "password of the sessions"),
    ],
)
def test_wrong_settings_are_refused(
    asn: int, neighbors: list[str], prefixes: list[str], password: str, message: str
) -> None:
    """Nothing reaches FRR's configuration that could change its meaning."""
    with pytest.raises(UsageError, match=message):
        parse_settings(asn, neighbors, prefixes, password)


def test_prefixes_hold_their_addresses() -> None:
    """Inside, outside, and of another family."""
    found = settings()

    assert found.holds(parse_ip("10.9.255.255"))
    assert not found.holds(parse_ip("10.10.0.1"))
    assert not found.holds(parse_ip("::ffff:10.9.0.1"))


def test_the_configuration_holds_neighbors_only() -> None:
    """No VNI, no network and no listener is in it."""
    text = bgpd_config(settings(), LOCAL)

    assert text.splitlines() == [
        "! Written by overlayd; changes are lost. See: overlayd evpn enable --help",
        "frr defaults datacenter",
        "hostname overlayd",
        "log syslog notifications",
        "router bgp 65000",
        " bgp router-id 10.9.0.3",
        " bgp log-neighbor-changes",
        " no bgp default ipv4-unicast",
        *(
            line
            for neighbor in ("10.9.0.1", "10.9.0.9")
            for line in (
                f" neighbor {neighbor} remote-as 65000",
                f" neighbor {neighbor} update-source 10.9.0.3",
                f" neighbor {neighbor} timers 3 9",
                f" neighbor {neighbor} timers connect 2",
            )
        ),
        " address-family l2vpn evpn",
        "  neighbor 10.9.0.1 activate",
        "  neighbor 10.9.0.9 activate",
        "  advertise-all-vni",
        " exit-address-family",
    ]


def test_neighbors_may_be_bounded_in_distance() -> None:
    """GTSM, by a number of hops; FRR takes 1 to 254."""
    near = parse_settings(65000, ["10.9.0.1"], ["10.9.0.0/16"], "", 1)

    assert " neighbor 10.9.0.1 ttl-security hops 1" in bgpd_config(near, LOCAL).splitlines()
    with pytest.raises(UsageError, match="ttl_hops must be from 0 to 254"):
        parse_settings(65000, ["10.9.0.1"], ["10.9.0.0/16"], "", 255)


def test_sessions_have_the_password() -> None:
    """One password serves all neighbors."""
    text = bgpd_config(settings("secret"), LOCAL)

    assert " neighbor 10.9.0.1 password secret" in text.splitlines()
    assert " neighbor 10.9.0.9 password secret" in text.splitlines()
