"""Changes of name, aliases and labels in place."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay import limits
from overlay.agent.endpoints.edit import EndpointEdit, EndpointEditor
from overlay.agent.process.event_log import EventLog
from overlay.errors import ConflictError, UsageError
from overlay.model import (
    SHARED_NAME_LABEL,
    Endpoint,
    Mac,
    Network,
    NodeId,
    Subnet,
    Vni,
    parse_ip,
)

OWN = NodeId(b"o" * 16)
SUBNETS = (Subnet(parse_ip("10.1.0.0"), 16, parse_ip("10.1.0.1")),)
BLUE, RED = Network(Vni(1), "blue", SUBNETS, OWN), Network(Vni(2), "red", SUBNETS, OWN)
WEB = Endpoint(
    b"e" * 8, Vni(1), "web", Mac(b"\2" * 6), (parse_ip("10.1.0.2"),),
    aliases=("www",), labels=(("overlayd.rate-in", "1000"), ("team", "a")),
)  # fmt: skip
MANY = tuple(f"a{number}" for number in range(limits.ALIAS_COUNT_MAX))


def test_an_edit_changes_only_what_it_names() -> None:
    """A rate is a label of overlayd's, and stays; aliases are compared without case."""
    edit = EndpointEdit(
        add_aliases=("shop", "WWW"), remove_aliases=("nope",), add_labels=(("team", "b"),)
    )
    after = edit.applied(WEB)

    assert (after.name, after.aliases) == ("web", ("WWW", "shop"))
    assert dict(after.labels) == {"overlayd.rate-in": "1000", "team": "b"}
    assert EndpointEdit(name="new", remove_labels=("team",)).applied(WEB).name == "new"
    assert EndpointEdit(remove_aliases=("WWW",)).applied(WEB).aliases == ()


def test_an_edit_beyond_the_limits_is_refused() -> None:
    """They count with those that the endpoint has."""
    with pytest.raises(UsageError, match="9 aliases; 8 is the limit") as caught:
        EndpointEdit(add_aliases=MANY).applied(WEB)
    assert caught.value.field == "add_aliases"
    EndpointEdit(add_aliases=MANY, remove_aliases=("www",)).applied(WEB)


class Node:
    """One container on blue and red, and another one called taken on red."""

    def __init__(self, folder: Path) -> None:
        self.written: list[Endpoint] = []
        self.records = {1: WEB, 2: WEB}
        self.other = Endpoint(b"f" * 8, Vni(2), "Taken", WEB.mac, WEB.ips)
        attachments = [SimpleNamespace(vni=vni, ifname=f"eth{vni}") for vni in (1, 2)]
        directory = SimpleNamespace(
            network_by_vni={1: BLUE, 2: RED}.get,
            endpoint_of=lambda attachment: self.records[attachment.vni],
            view=SimpleNamespace(services=SimpleNamespace(has=lambda _vni, name: name == "shop")),
            all_endpoints=lambda vni: [(OWN, self.other)] if vni == 2 else [],
            has_endpoint_name=lambda vni, name: vni == 2 and name.lower() == "taken",
            node_name=lambda _node: "vm1",
        )
        gossip = SimpleNamespace(commit=self._commit, publish=lambda _segments: None)
        node = SimpleNamespace(gossip=gossip, directory=directory, event_log=EventLog(folder))
        held = SimpleNamespace(of_target=lambda _identity: attachments, alone_with=self._alone)
        self.editor = EndpointEditor(cast("Any", SimpleNamespace(node=node, attachments=held)))

    @contextlib.asynccontextmanager
    async def _alone(self, _identity: tuple[int, int]) -> AsyncIterator[None]:
        yield

    def _commit(self, _scope: object, values: list[Endpoint]) -> None:
        self.written += values


async def test_a_taken_name_changes_nothing(tmp_path: Path) -> None:
    """Not even on the network where it is free."""
    node = Node(tmp_path)
    with pytest.raises(ConflictError, match="'taken' is taken on network red"):
        await node.editor.edit((1, 1), [], EndpointEdit(name="taken"))

    assert node.written == []


async def test_a_name_is_shared_by_choice(tmp_path: Path) -> None:
    """Of all that have it; each error says which of them lacks the choice."""
    node = Node(tmp_path)
    edit = EndpointEdit(name="taken", shared_name=True)
    with pytest.raises(ConflictError, match="not shared") as caught:
        await node.editor.edit((1, 1), [RED], edit)
    assert "endpoint set Taken --shared-name" in caught.value.hint

    node.other = replace(node.other, labels=(SHARED_NAME_LABEL,))
    with pytest.raises(ConflictError, match="'taken' is taken") as caught:
        await node.editor.edit((1, 1), [RED], EndpointEdit(name="taken"))
    assert "Share it: --shared-name" in caught.value.hint

    ((_, after, _, changes),) = await node.editor.edit((1, 1), [RED], edit)
    assert [each.field for each in changes] == ["name", "labels"]
    node.records[2] = after
    with pytest.raises(ConflictError, match="'taken' is taken"):
        await node.editor.edit((1, 1), [RED], EndpointEdit(shared_name=False))
    assert node.written == [after]


async def test_an_edit_reports_what_it_changed(tmp_path: Path) -> None:
    """On the named network only; an edit without effect writes nothing."""
    node = Node(tmp_path)
    edit = EndpointEdit(name="taken", add_aliases=("shop",))
    renamed: list[tuple[int, str, str]] = []

    async def note(*names: Any) -> None:
        renamed.append(names)

    node.editor.endpoint_renamed.connect(note)
    ((network, after, ifname, changes),) = await node.editor.edit((1, 1), [BLUE], edit)

    assert (network, after.name, ifname) == (BLUE, "taken", "eth1")
    assert [str(each) for each in changes] == ["name web -> taken", "aliases www -> www shop"]
    assert node.written == [after]
    assert renamed == [(1, "web", "taken")]
    await node.editor.edit((1, 1), [], EndpointEdit(add_aliases=("www",)))
    assert node.written == [after]
