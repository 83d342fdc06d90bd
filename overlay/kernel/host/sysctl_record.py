"""The record of the host's sysctls that overlayd changed: their values before, and of which links.

Owns: its file in the run directory, which like the sysctls does not survive a boot, and following
links that get another name: their sysctls go with them.
Does not: change sysctls (`ip_forwarding`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from overlay import failpoint
from overlay.core.dataplane.host_rules import ForwardingInterface
from overlay.kernel.netlink.link_lookup import all_links, links_best_effort
from overlay.kernel.netlink.socket import NetlinkSocket, TornDumpError

MEMORY_NAME: Final = "sysctls.json"
_INTERFACES: Final = "interfaces"
_OFF: Final = "0"
_SWITCHES: Final = {4: "ipv4/conf/{}/forwarding", 6: "ipv6/conf/{}/force_forwarding"}


class Links(NamedTuple):
    """The links of a namespace."""

    indexes: Mapping[str, int]  # by name
    is_whole: bool  # no link is missing


def present_links() -> Links:
    """Return the links of the thread's namespace. Raises OSError."""
    with NetlinkSocket() as socket:
        try:
            found, is_whole = all_links(socket), True
        except TornDumpError:
            found, is_whole = links_best_effort(socket), False
    return Links({each.name: each.index for each in found}, is_whole)


def interface_of(name: str) -> str:
    """Return the link that a sysctl is of; "all" of that for all links."""
    return name.split("/")[2]


@dataclass(frozen=True, slots=True)
class SysctlRecord:
    """Values before overlayd's, by sysctl, and the indexes of the links that they are of.

    An index stays with its link; the name may become another's.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    indexes: Mapping[str, int] = field(default_factory=dict)

    def including(self, values: Mapping[str, str], links: Links) -> SysctlRecord:
        """Add values that are not recorded yet."""
        names = {interface_of(name) for name in values}
        found = {name: links.indexes[name] for name in names & links.indexes.keys()}
        return SysctlRecord({**values, **self.values}, {**found, **self.indexes})

    def including_guarded(
        self, guarded: Iterable[ForwardingInterface], links: Links
    ) -> SysctlRecord:
        """Add that links forward because of overlayd only, as the host's table knows."""
        names = {index: name for name, index in links.indexes.items()}
        switches = (
            _SWITCHES[each.family].format(names[each.interface_index])
            for each in guarded
            if each.interface_index in names
        )
        return self.including(dict.fromkeys(switches, _OFF), links)

    def following(self, links: Links) -> SysctlRecord:
        """Move what is recorded to the present names, and drop that of links that are gone.

        What an earlier version recorded without an index is taken for the link of that name.
        """
        present = {index: name for name, index in links.indexes.items()}
        values: dict[str, str] = {}
        indexes: dict[str, int] = {}
        for name, value in self.values.items():
            link = interface_of(name)
            index = self.indexes.get(link, links.indexes.get(link))
            if index is None:
                values[name] = value
            elif index in present or not links.is_whole:
                now = present.get(index, link)
                values[_renamed(name, now)] = value
                indexes[now] = index
        return SysctlRecord(values, indexes)


def _renamed(name: str, link: str) -> str:
    parts = name.split("/")
    return "/".join((*parts[:2], link, *parts[3:]))


def load(run_dir: Path) -> SysctlRecord:
    """Return what is on disk; an empty record if there is none, or it cannot be read."""
    with suppress(OSError, ValueError):
        found = json.loads((run_dir / MEMORY_NAME).read_text(encoding="ascii"))
        if isinstance(found, dict):
            links = found.pop(_INTERFACES, {})
            indexes = links if isinstance(links, dict) else {}
            return SysctlRecord(
                {str(name): str(value) for name, value in found.items() if name.count("/") > 2},
                {str(name): index for name, index in indexes.items() if isinstance(index, int)},
            )
    return SysctlRecord()


def save(run_dir: Path, record: SysctlRecord) -> None:
    """Replace what is on disk. Raises OSError."""
    failpoint.failpoint("host.sysctl-record")
    draft = run_dir / f"{MEMORY_NAME}.new"
    text = json.dumps({**record.values, _INTERFACES: dict(record.indexes)})
    draft.write_text(text, encoding="ascii")
    draft.replace(run_dir / MEMORY_NAME)
