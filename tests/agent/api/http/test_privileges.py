"""Requests that amount to root of this host's network are refused to the group."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from overlay.agent.api.http import privileges
from overlay.agent.api.http.caller import ApiCaller
from overlay.errors import ForbiddenError

MEMBER = ApiCaller(os.geteuid() + 1001, frozenset({12_300}))
TRUSTED = ApiCaller(MEMBER.uid, MEMBER.groups, is_group_trusted=True)
ROOT = ApiCaller(0, frozenset())
ACTS: dict[str, Callable[[ApiCaller], None]] = {
    "addresses": lambda caller: privileges.require_own_addresses(caller, ["10.0.0.9"]),
    "security": lambda caller: privileges.require_port_security(caller, enabled=False),
    "dhcp-server": lambda caller: privileges.require_client(caller, dhcp_server=True, router=False),
    "router": lambda caller: privileges.require_client(caller, dhcp_server=False, router=True),
    "isolation": lambda caller: privileges.require_isolation(caller, enabled=False),
    "ethertypes": lambda caller: privileges.require_ethertypes(caller, "0x88f7"),
    "low-port": lambda caller: privileges.require_ports(caller, [8080, 22]),
    "path": lambda caller: privileges.require_target(caller, "/tmp/ns"),  # noqa: S108
    "public-subnet": lambda caller: privileges.require_subnets(
        caller, ["10.0.0.0/24", "8.8.8.0/24"]
    ),
    "underlay": lambda caller: privileges.require_parent(caller, "eth1", is_underlay=True),
    "any-name": lambda caller: privileges.require_names(caller, any_name=True),
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_an_act_of_root_needs_trust(act: Callable[[ApiCaller], None]) -> None:
    """Root may, and the group where the configuration trusts it; the error names the setting."""
    act(ROOT)
    act(TRUSTED)
    with pytest.raises(ForbiddenError, match="only root may") as caught:
        act(MEMBER)

    assert "api_group_trusted" in caught.value.hint


def test_other_requests_need_no_trust() -> None:
    """The group may still do all that it always could."""
    privileges.require_port_security(MEMBER, enabled=True)
    privileges.require_client(MEMBER, dhcp_server=False, router=False)
    privileges.require_isolation(MEMBER, enabled=True)
    privileges.require_ethertypes(MEMBER, None)
    privileges.require_ethertypes(MEMBER, "none")
    privileges.require_ports(MEMBER, [1024, 65_535])
    privileges.require_subnets(MEMBER, ["10.32.0.0/16", "fd00::/64", "100.64.0.0/24", "nonsense"])
    privileges.require_parent(MEMBER, "eth2", is_underlay=False)
    privileges.require_names(MEMBER, any_name=False)
    for target in ("web", "docker:web", "/proc/7/ns/net", "/proc/7/task/8/ns/net",
                   "/run/netns/c1", "/var/run/netns/c1"):  # fmt: skip
        privileges.require_target(MEMBER, target)


@pytest.mark.parametrize(
    "target",
    [
        "/etc/shadow", "/root/missing", "/proc/1/root/run/netns/x", "/run/netns/../../etc/shadow",
        "/run/netns/..", "/run/netns/", "/proc/self/ns/net", "/proc/7/ns/../../../etc/shadow",
        "/dev/watchdog", "/run/netns/x/y", "relative/path", "/proc/7/ns/net\n",
    ],
)  # fmt: skip
def test_a_path_elsewhere_gets_one_answer(target: str) -> None:
    """The same for what exists and what does not: nothing is looked up."""
    with pytest.raises(ForbiddenError) as caught:
        privileges.require_target(MEMBER, target)

    assert str(caught.value) == str(_refusal("/nowhere"))


def _refusal(target: str) -> ForbiddenError:
    with pytest.raises(ForbiddenError) as caught:
        privileges.require_target(MEMBER, target)
    return caught.value
