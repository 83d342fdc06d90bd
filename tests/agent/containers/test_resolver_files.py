"""Files of bare containers follow the configuration and the host's own files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay.agent.containers import etc_files, namespaces
from overlay.agent.containers.namespaces import ContainerService
from overlay.agent.containers.resolver_files import ResolverFiles
from overlay.agent.process.event_log import EventLog
from overlay.agent.state.database import StateDatabase
from overlay.agent.state.documents import CONTAINERS, StoredContainer
from overlay.errors import OverlayError
from overlay.kernel import container_files
from overlay.model import Endpoint, Mac, Network, NodeId, Subnet, Vni, parse_ip

SUBNETS = (Subnet(parse_ip("10.1.0.0"), 16, parse_ip("10.1.0.1")),)
BLUE = Network(Vni(7), "blue", SUBNETS, NodeId(b"o" * 16))
WEB = Endpoint(b"e" * 8, Vni(7), "web", Mac(b"\2" * 6), (parse_ip("10.1.0.2"),))


class Writer:
    """Counts its calls; fails while it has an error."""

    def __init__(self) -> None:
        self.count = 0
        self.error: OverlayError | None = None

    async def refresh_files(self) -> None:
        """Count one call."""
        self.count += 1
        if self.error is not None:
            raise self.error


async def test_files_are_written_after_a_change_of_the_hosts(tmp_path: Path) -> None:
    """At the first pass, and after each change; a failed pass is repeated."""
    host, writer = tmp_path / "resolv.conf", Writer()
    files = ResolverFiles(writer, EventLog(tmp_path), [host])
    await files.attempt()
    await files.attempt()
    assert writer.count == 1

    host.write_text("search lab\n")
    writer.error = OverlayError("the disk is full")
    await files.attempt()
    assert files.fault is not None
    writer.error = None
    await files.attempt()
    await files.attempt()
    assert writer.count == 3
    assert not list(files.faults())


async def test_a_new_domain_and_search_list_reach_old_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of attached containers; one without a network has the host's resolv.conf."""
    folder = tmp_path / "netns"
    monkeypatch.setattr(container_files, "FILES_DIRECTORY", folder)
    monkeypatch.setattr(namespaces, "host_search", lambda: ["corp.example"])
    state = StateDatabase(tmp_path / "state")
    for name in ("web", "idle"):
        CONTAINERS.put(state, StoredContainer(name))
        etc_files.write(name, ["search old"])
    attachments = {"one": SimpleNamespace(target="netns:web", vni=7)}
    directory = SimpleNamespace(
        endpoint_of=lambda _attachment: WEB, network_by_vni=lambda _vni: BLUE
    )
    membership = cast("Any", SimpleNamespace(attachments=attachments, directory=directory))
    service = ContainerService(
        state, cast("Any", None), "lab", lambda: membership, lambda: membership
    )
    await service.refresh_files()

    lines = (folder / "web" / "resolv.conf").read_text().splitlines()
    assert lines[:2] == ["nameserver 10.1.0.1", "search lab corp.example"]
    assert "search old" not in (folder / "idle" / "resolv.conf").read_text()
    state.close()
