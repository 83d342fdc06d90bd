"""Attach options: the labels of a new endpoint, and the comparison with an attached one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from overlay import limits
from overlay.agent.endpoints.spec import AttachSpec, EndpointOptions, mismatch_text
from overlay.core.dataplane.port_security import DHCP_SERVER_LABEL, ROUTER_LABEL
from overlay.core.dataplane.rate_limits import rates_of
from overlay.errors import UsageError
from overlay.model import Endpoint, Mac, Vni, parse_ip

MANY = tuple((f"k{number}", "v") for number in range(limits.LABEL_COUNT_MAX))
ENDPOINT = Endpoint(
    bytes(8),
    Vni(7),
    "web",
    Mac(bytes.fromhex("020000000001")),
    (parse_ip("10.1.0.5"),),
    aliases=("www",),
    labels=(("a", "1"),),
)


def test_rates_are_labels_of_a_new_endpoint() -> None:
    """The options keep both apart: a changed rate is no mismatch of labels."""
    options = EndpointOptions(labels=(("a", "1"),), rates=(64_000, None))

    assert options.labels == (("a", "1"),)
    assert dict(options.all_labels)["a"] == "1"
    assert rates_of(options.all_labels).in_bits == 64_000
    assert mismatch_text(options, ENDPOINT, "eth0") == ""


def test_allowed_addresses_are_labels_of_a_new_endpoint() -> None:
    """An attached endpoint without one of them is another attachment."""
    options = EndpointOptions(allow_ips=(parse_ip("10.1.0.100"),))
    allowing = replace(ENDPOINT, labels=options.all_labels)

    assert options.labels == ()
    assert mismatch_text(options, allowing, "eth0") == ""
    assert mismatch_text(options, ENDPOINT, "eth0") == "its allowed addresses: none"
    assert mismatch_text(EndpointOptions(), allowing, "eth0") == ""


def test_allowed_roles_are_labels_of_a_new_endpoint() -> None:
    """An attached endpoint without the role is another attachment."""
    options = EndpointOptions(allow_dhcp_server=True, allow_ra=True)
    allowing = replace(ENDPOINT, labels=options.all_labels)

    assert options.all_labels == (DHCP_SERVER_LABEL, ROUTER_LABEL)
    assert mismatch_text(options, allowing, "eth0") == ""
    assert mismatch_text(options, ENDPOINT, "eth0") == (
        "its leave to answer DHCP: none; its leave to send router advertisements: none"
    )


def test_isolation_must_be_as_asked_for() -> None:
    """Unless nothing is said of it."""
    isolated = replace(ENDPOINT, labels=EndpointOptions(isolated=True).all_labels)

    assert mismatch_text(EndpointOptions(isolated=True), isolated, "eth0") == ""
    assert mismatch_text(EndpointOptions(), isolated, "eth0") == ""
    assert mismatch_text(EndpointOptions(isolated=False), isolated, "eth0") == "its isolation: on"
    wanted = EndpointOptions(isolated=True)
    assert mismatch_text(wanted, ENDPOINT, "eth0") == "its isolation: as its network has it"


def test_too_many_labels_are_refused_with_the_options() -> None:
    """A rate counts as one, wherever the options come from."""
    options = EndpointOptions(labels=MANY)

    with pytest.raises(UsageError, match=f"there are {limits.LABEL_COUNT_MAX + 1} labels"):
        replace(options, rates=(1000, None))


def test_a_spec_asks_for_nothing_special_by_default() -> None:
    """A caller names a container and its networks, and waits."""
    spec = AttachSpec("docker:web", ("blue",))

    assert spec.wait
    assert spec.options == EndpointOptions()
    assert mismatch_text(spec.options, ENDPOINT, "eth0") == ""


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (EndpointOptions(ips=(parse_ip("10.1.0.6"),)), "its address: 10.1.0.5"),
        (EndpointOptions(ips=(parse_ip("10.1.0.5"), parse_ip("fd::5"))), "its address: 10.1.0.5"),
        (EndpointOptions(mac=Mac(bytes(6))), "its MAC: 02:00:00:00:00:01"),
        (EndpointOptions(ifname="ov0"), "its interface: eth0"),
        (EndpointOptions(name="db"), "its name: web"),
        (EndpointOptions(aliases=("cdn",)), "its aliases: www"),
        (EndpointOptions(labels=(("a", "2"),)), "its labels: a=1"),
    ],
)
def test_a_mismatch_names_what_the_endpoint_has(options: EndpointOptions, text: str) -> None:
    """One text for each option that cannot be changed in place."""
    assert mismatch_text(options, ENDPOINT, "eth0") == text
