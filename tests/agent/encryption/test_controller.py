"""Which members are peers, who is refused, and what status says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import pytest
from overlay import limits
from overlay.agent.encryption.controller import EncryptionController
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.config import Config
from overlay.agent.process.event_log import EventLog
from overlay.agent.state.database import StateDatabase
from overlay.agent.state.wireguard_keys import (
    WIREGUARD,
    StoredWireguardKey,
    StoredWireguardKeys,
)
from overlay.core.dataplane.network_drivers import BRIDGE, OVERLAY, is_encrypted, labels_of
from overlay.core.encryption.device import PeerReading, TunnelPeer
from overlay.core.encryption.key_record import WireguardKey
from overlay.core.protocol.messages import MemberState
from overlay.errors import ConflictError, OverlayError
from overlay.kernel.wireguard import tunnel, uapi
from overlay.kernel.wireguard.backend import Backend, Support
from overlay.model import Ip, Network, NodeId, Subnet, Vni, ip_text, parse_ip

OWN, ONE, TWO, OTHER = (NodeId(letter * 16) for letter in (b"s", b"a", b"b", b"x"))
SUBNET = Subnet(parse_ip("10.1.0.0"), 24, parse_ip("10.1.0.1"))
VAULT = Network(Vni(9), "vault", (SUBNET,), ONE, labels=labels_of(OVERLAY, "", encrypted=True))
BLUE = Network(Vni(8), "blue", (SUBNET,), ONE)
MISSING = Support(None, "the kernel has no WireGuard", "modprobe wireguard")


class Kernel:
    """A kernel without WireGuard."""

    async def call(self, *_call: object) -> Support:
        """Return what it has."""
        return MISSING


class Host:
    """A member whose records are what a test says."""

    def __init__(self, path: Path, encryption: str = "optional") -> None:
        self.keys: dict[NodeId, WireguardKey] = {
            OWN: WireguardKey(1, b"s" * 32),
            ONE: WireguardKey(1, b"a" * 32),
            TWO: WireguardKey(2, b"b" * 32),
        }
        self.gone: set[NodeId] = set()
        self.addresses = {
            node: parse_ip(f"192.0.2.{at}") for at, node in enumerate((OWN, ONE, TWO), 1)
        }
        state = StateDatabase(path / "state.db")
        WIREGUARD.put(state, StoredWireguardKeys(StoredWireguardKey(1, b"k" * 32)))
        cluster = SimpleNamespace(cluster_id="01020304" * 4, gossip_port=7948, vxlan_port=4789)
        gossip = SimpleNamespace(
            state=state, cluster=cluster, node_id=OWN, card=self._card(OWN), may_write=False
        )
        view = SimpleNamespace(
            members=lambda: sorted(self.keys.keys() | self.addresses.keys()),
            wireguard_keys=lambda node: (self.keys[node],) if node in self.keys else (),
            vtep_of=self._vtep,
            uses_tunnels=is_encrypted,
        )
        directory = SimpleNamespace(
            view=view,
            own=OWN,
            card=self._card,
            node_name=lambda node_id: node_id[:1].decode(),
            node_state=lambda _node_id: MemberState.ALIVE,
            networks=lambda: [BLUE, VAULT],
            find_network={"blue": BLUE, "vault": VAULT}.get,
            participants=lambda _vni, *, forwarding: [OWN, ONE] if forwarding else [],
        )
        context = NodeContext(
            cast("Any", gossip), cast("Any", directory), cast("Any", Kernel()), EventLog(path)
        )
        self.controller = EncryptionController(context, Config(encryption=encryption))
        self.controller.support = Support(Backend.KERNEL)

    def _card(self, node_id: NodeId) -> Any:
        return SimpleNamespace(
            node_id=node_id, address=self.addresses[node_id], gossip_port=7948,
            underlay_mtu=1500, software="0.1", name=node_id[:1].decode(),
        )  # fmt: skip

    def _vtep(self, node_id: NodeId) -> Ip | None:
        if node_id == OWN or node_id in self.gone:
            return None
        return self.addresses[node_id]

    def peers(self) -> dict[NodeId, TunnelPeer]:
        """Return the peers by node."""
        (wanted,) = self.controller._wanted()
        by_key = {each.public_key: each for each in wanted.peers}
        return {
            node_id: by_key[key.public_key]
            for node_id, key in self.keys.items()
            if key.public_key in by_key
        }


@pytest.fixture
async def host(tmp_path: Path) -> Host:
    """Return this node with two other members."""
    return Host(tmp_path)


async def test_every_member_with_a_key_is_a_peer(host: Host) -> None:
    """At the address of its card, from its inner address."""
    found = host.peers()

    assert set(found) == {ONE, TWO}
    assert found[ONE].address == parse_ip("192.0.2.2")
    assert found[ONE].port == 7949
    assert ip_text(found[ONE].inner) == "fd6f:766c:102:304:6161:6161:6161:6161"


async def test_a_former_member_is_no_peer(host: Host) -> None:
    """One that left, was forgotten, or is dead for long."""
    host.gone.add(TWO)

    assert set(host.peers()) == {ONE}


async def test_a_member_of_another_family_is_no_peer(host: Host) -> None:
    """It cannot be reached at all."""
    host.addresses[TWO] = parse_ip("2001:db8::2")

    assert set(host.peers()) == {ONE}


async def test_a_key_of_several_members_is_nobodys(host: Host) -> None:
    """Neither the owner nor the one that copied it is a peer, and both are named."""
    host.keys[TWO] = host.keys[ONE]

    assert host.peers() == {}
    texts = [fault.text for fault in host.controller.faults()]
    assert texts == ["a and b publish the same WireGuard key: encrypted networks do not reach them"]


async def test_members_without_a_key_are_named(host: Host) -> None:
    """With the version that they run; `network create --encrypted` is refused."""
    del host.keys[TWO]
    with (
        patch.object(limits, "WIREGUARD_KEYS_WAIT_S", 0.01),
        pytest.raises(ConflictError, match="not every member") as caught,
    ):
        await host.controller.capable.require_all()

    assert caught.value.why == "no WireGuard key is known of b (overlayd 0.1)"


async def test_members_that_are_gone_do_not_count(host: Host) -> None:
    """They carry no network any more."""
    del host.keys[TWO]
    host.gone.add(TWO)

    assert host.controller.capable.missing() == []
    await host.controller.capable.require_all()


async def test_a_host_without_wireguard_takes_no_part(host: Host) -> None:
    """It is refused with what is missing, and status says so; other networks are as ever."""
    host.controller.support = MISSING

    await host.controller.require_support(BLUE)
    with pytest.raises(ConflictError, match="vault is encrypted") as caught:
        await host.controller.require_support(VAULT)
    assert (caught.value.why, caught.value.hint) == (MISSING.why, MISSING.hint)
    (fault,) = host.controller.faults()
    assert fault.text == (
        "this host can take part in no encrypted network (vault): the kernel has no WireGuard"
    )


async def test_a_member_that_does_not_answer_is_named(host: Host) -> None:
    """With the port to open; only while the tunnels are in use."""
    key = host.keys[ONE].public_key
    for sent in (148, 296, 444):
        host.controller._peer_faults.silent.update({key: PeerReading((), 0.0, 0, sent)})
    assert list(host.controller.faults()) == []
    host.controller._in_use.add(VAULT.vni)
    (fault,) = host.controller.faults()

    assert fault.text == (
        "a does not answer through the tunnel of encrypted networks: gossip works, WireGuard "
        "(UDP 7949) gets no answer"
    )


async def test_required_encryption_encrypts_new_networks(tmp_path: Path) -> None:
    """But for those without a tunnel, and one in clear that exists already."""
    policy = Host(tmp_path, "required").controller.policy

    assert policy.encrypts("new", OVERLAY)
    assert policy.encrypts("vault", OVERLAY)
    assert not policy.encrypts("blue", OVERLAY)
    assert not policy.encrypts("new", BRIDGE)
    assert not policy.encrypts("new", "unknown")


async def test_required_encryption_refuses_networks_in_clear(tmp_path: Path, host: Host) -> None:
    """It says what to do; without it nothing is refused."""
    host.controller.policy.require_allowed(BLUE)
    (tmp_path / "other").mkdir()
    policy = Host(tmp_path / "other", "required").controller.policy

    policy.require_allowed(VAULT)
    with pytest.raises(ConflictError, match="blue is not encrypted") as caught:
        policy.require_allowed(BLUE)
    assert "overlayd encryption on blue" in caught.value.hint


async def test_required_encryption_names_what_is_in_clear(tmp_path: Path) -> None:
    """The networks with containers here, and the members that can carry no encrypted one."""
    host = Host(tmp_path, "required")
    del host.keys[TWO]
    texts = [fault.text for fault in host.controller.faults()]

    assert texts == [
        "encryption is required, and this host has containers on blue, in clear",
        "encryption is required, and no WireGuard key is known of b (overlayd 0.1)",
    ]


async def test_why_there_is_no_device_is_known(host: Host) -> None:
    """No container needs it; or else the error that keeps it from being made."""
    controller = host.controller
    assert controller.missing("wg-ovl", {"wg-ovl": None}) is None
    assert controller.missing("wg-ovl", {}) == "no encrypted network has containers here"
    controller._in_use.add(VAULT.vni)
    assert controller.missing("wg-ovl", {}) == "it is being made"
    controller._applied = controller._wanted()
    assert controller.missing("wg-ovl", {}) == "it does not answer"
    controller._fail(OverlayError("wireguard-go is gone", why="the package was removed"))
    assert controller.missing("wg-ovl", {}) == "wireguard-go is gone: the package was removed"


async def test_a_hung_device_is_given_up(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the second look in a row, and the reason is shown; what is hung holds up no thread."""
    controller, asked = host.controller, []

    async def call(function: Any, *_call: object) -> None:
        asked.append(function)
        raise OverlayError("wireguard-go does not answer for wg-ovl")

    monkeypatch.setattr(controller._kernel, "call", call)
    controller._applied = controller._wanted()
    monkeypatch.setattr(uapi, "is_hung", lambda name: name == "wg-other")
    await controller.replace_hung()
    assert not asked
    monkeypatch.setattr(uapi, "is_hung", lambda name: name == "wg-ovl")
    assert await controller.readings() == {}
    await controller.replace_hung()
    with monkeypatch.context() as patch:
        patch.setattr(uapi, "is_hung", lambda _name: False)
        await controller.replace_hung()
    await controller.replace_hung()
    assert not asked
    await controller.replace_hung()
    assert asked == [tunnel.give_up_hung]
    assert controller.fault is not None
    assert controller.fault.reason == "wireguard-go does not answer for wg-ovl"
