"""Some settings of a network with containers may change; others are refused with a reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from overlay.agent.networks.exportable import require_vni
from overlay.agent.networks.settings import (
    SettingsSpec,
    changed,
    require_changeable,
    subnet_of_range,
)
from overlay.core.dataplane.controls.shared_rate import shared_rate_of
from overlay.core.declared.network_options import (
    MTU,
    NON_IP,
    OPTION_LABELS,
    PRIORITY,
    RATE_IN,
    RATE_OUT,
    SHARED_RATE,
    STORM,
    option_of,
    owner_of,
    setting_of,
    user_labels,
)
from overlay.core.declared.network_settings import difference
from overlay.errors import ConflictError, OverlayError, UsageError
from overlay.model import (
    LABEL_PREFIX,
    PORT_SECURITY_OFF_LABEL,
    Network,
    NodeId,
    Subnet,
    Vni,
    has_any_name,
    has_default_deny,
    is_exported,
    isolates_ports,
    parse_ip,
)

SUBNET = Subnet(parse_ip("10.32.0.0"), 16, parse_ip("10.32.0.1"), block_length=24)
BLUE = Network(Vni(7), "blue", (SUBNET,), NodeId(bytes(16)), labels=(("team", "a"),))


def test_every_option_of_a_network_is_a_setting() -> None:
    """Otherwise a change of it would have no effect on any host."""
    options: dict[str, int | str] = {MTU: 1300, RATE_IN: 10**6, RATE_OUT: 10**6}
    options |= {SHARED_RATE: 10**6, STORM: 200, NON_IP: "0x88f7", PRIORITY: "5"}
    assert options.keys() == OPTION_LABELS.keys()
    found = changed(BLUE, SettingsSpec(options=options))

    assert difference(BLUE, found).applied_to(BLUE) == found


def test_each_setting_changes() -> None:
    """And what is not named stays; 0 and an empty range remove what was set."""
    spec = SettingsSpec(
        labels={"x": "y"},
        internal=True,
        port_security=False,
        any_name=True,
        default_deny=True,
        isolate_ports=True,
        ip_ranges={"10.32.0.0/16": "10.32.8.0/21"},
        options={MTU: 1300, RATE_IN: 1_000_000, STORM: 200, NON_IP: "0x88f7"},
        owner="shop",
    )
    found = changed(BLUE, spec)

    assert found.internal
    assert has_any_name(found)
    assert has_default_deny(found)
    assert isolates_ports(found)
    assert PORT_SECURITY_OFF_LABEL in found.labels
    assert user_labels(found) == (("x", "y"),)
    assert (option_of(found, MTU), option_of(found, RATE_IN)) == (1300, 1_000_000)
    assert (setting_of(found, STORM), setting_of(found, NON_IP)) == (200, "0x88f7")
    assert owner_of(found) == "shop"
    assert found.subnets[0].ip_range == (parse_ip("10.32.8.0"), 21)
    assert changed(found, SettingsSpec()) == found
    back = SettingsSpec(
        labels={"team": "a"},
        internal=False,
        port_security=True,
        any_name=False,
        default_deny=False,
        isolate_ports=False,
        ip_ranges={"10.32.0.0/16": ""},
        options={MTU: 0, RATE_IN: 0, STORM: 0, NON_IP: ""},
        owner="",
    )
    assert changed(found, back) == BLUE


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (SettingsSpec(options={MTU: 575}), "too small"),
        (SettingsSpec(ip_ranges={"10.33.0.0/16": "10.33.0.0/24"}), "has no subnet"),
        (SettingsSpec(ip_ranges={"10.32.0.0/16": "10.40.0.0/24"}), "not within the subnet"),
        (SettingsSpec(ip_ranges={"10.32.0.0/16": "10.32.0.0/25"}), "smaller than a host's block"),
        (SettingsSpec(labels={str(n): "" for n in range(17)}), "17 labels"),
    ],
)
def test_impossible_settings_are_refused(spec: SettingsSpec, told: str) -> None:
    """Before anything is written."""
    with pytest.raises(UsageError, match=told):
        changed(BLUE, spec)


def test_some_networks_have_less_to_set() -> None:
    """IPv6 needs 1280 bytes, and a host's segment keeps its own MTU."""
    dual = Network(
        Vni(7), "dual", (Subnet(parse_ip("fd00::"), 64, parse_ip("fd00::1")),), BLUE.creator
    )
    lan = Network(
        Vni(7), "lan", (SUBNET,), BLUE.creator,
        labels=(("overlayd.driver", "macvlan"), ("overlayd.parent", "eth1")),
    )  # fmt: skip
    for network, told in ((dual, "RFC 8200"), (lan, "leaves alone")):
        with pytest.raises(UsageError) as caught:
            changed(network, SettingsSpec(options={MTU: 1000}))
        assert told in caught.value.why
    with pytest.raises(ConflictError, match="network lan cannot have policies"):
        changed(lan, SettingsSpec(default_deny=True))


@pytest.mark.parametrize("setting", ["subnet", "gateway", "vni", "driver", "parent", "encrypted"])
def test_what_is_fixed_is_refused_with_a_way_out(setting: str) -> None:
    """With the reason, and what to do instead."""
    with pytest.raises(ConflictError) as caught:
        require_changeable("blue", setting)

    assert caught.value.why
    assert "overlayd" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [("10.32.8.0/21", "10.32.0.0/16"), ("10.99.0.0/16", None), ("x", None)],
)
def test_a_range_finds_its_subnet(text: str, expected: str | None) -> None:
    """Or is refused."""
    found: Any = None
    if expected is None:
        with pytest.raises(OverlayError):
            subnet_of_range(BLUE, text)
    else:
        found = subnet_of_range(BLUE, text)
    assert found == expected


def test_a_network_is_exported_and_back() -> None:
    """As any other setting, on every host; its VNI stays."""
    wide = changed(BLUE, SettingsSpec(evpn=True))
    override = difference(BLUE, wide)

    assert is_exported(wide)
    assert override.applied_to(BLUE) == wide
    assert changed(wide, SettingsSpec(evpn=False)) == BLUE
    assert changed(wide, SettingsSpec(evpn=True)) == wide


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (
            (LABEL_PREFIX + "driver", "overlay-encrypted"),
            "it is encrypted, and a fabric",
        ),
        ((LABEL_PREFIX + "driver", "bridge"), "it has driver bridge, and BGP EVPN announces what"),
    ],
)
def test_what_no_fabric_carries_is_not_exported(label: tuple[str, str], words: str) -> None:
    """With the reason, and what to do."""
    with pytest.raises(ConflictError, match=words):
        changed(replace(BLUE, labels=(label,)), SettingsSpec(evpn=True))


def test_containers_share_a_rate_between_hosts_alone() -> None:
    """A bridge network is one host's; `none` is no rate anywhere."""
    local = replace(BLUE, labels=((LABEL_PREFIX + "driver", "bridge"),))
    with pytest.raises(UsageError, match="shared_rate is not supported by driver bridge"):
        changed(local, SettingsSpec(options={SHARED_RATE: 64_000}))
    assert changed(local, SettingsSpec(options={SHARED_RATE: 0})) == local
    shared = changed(BLUE, SettingsSpec(options={SHARED_RATE: 64_000}))
    assert shared_rate_of(shared) == 64_000
    assert changed(shared, SettingsSpec(options={SHARED_RATE: 0})) == BLUE


def test_the_fabric_must_have_the_same_vni() -> None:
    """It cannot change: all hosts carry frames under it."""
    require_vni(BLUE, 7)
    with pytest.raises(ConflictError, match="has VNI 7, which cannot change") as caught:
        require_vni(BLUE, 4100)

    assert "overlayd network create NEW --evpn --vni 4100" in caught.value.hint
