"""The attachments of this node, by endpoint id and by container."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator, MutableMapping, ValuesView
from dataclasses import replace
from weakref import WeakValueDictionary

from overlay.agent.state.documents import Attachment
from overlay.core.dataplane.planning.inputs import LocalPort
from overlay.model import Ip, Vni, parse_ip


class Attachments(MutableMapping[bytes, Attachment]):
    """This node's attachments by endpoint id, as they are on disk.

    The container of an attachment never changes: its endpoint ends with it.
    Event `compared`: a start has compared them with this node's newest records; before, an old
    state file may be behind those.
    """

    def __init__(self, stored: Iterable[Attachment] = ()) -> None:
        self.compared = asyncio.Event()
        self._by_id: dict[bytes, Attachment] = {}
        self._of_target: dict[tuple[int, int], dict[bytes, None]] = {}
        self._with_resolvers: dict[bytes, Attachment] = {}
        self._withdrawn: dict[bytes, Attachment] = {}
        self._ports: dict[int, dict[bytes, LocalPort]] = {}  # by network: each pass asks for them
        # A lock exists while a task holds it or waits for it.
        self._locks: WeakValueDictionary[tuple[int, int], asyncio.Lock] = WeakValueDictionary()
        self.update((bytes.fromhex(each.endpoint_id), each) for each in stored)

    def of_target(self, identity: tuple[int, int]) -> list[Attachment]:
        """Return the attachments of a namespace, in the order of their creation."""
        return [self._by_id[each] for each in self._of_target.get(identity, ())]

    def ports_on(self, vni: int) -> tuple[LocalPort, ...]:
        """Return the attachments to a network, in the planner's form."""
        return tuple(self._ports.get(vni, {}).values())

    def resolvers(self, vni: int) -> list[str]:
        """Return the resolvers that the containers on a network were given by their runtimes."""
        mine = (each for each in self._with_resolvers.values() if each.vni == vni)
        return [text for each in mine for text in each.resolvers]

    def withdrawn_ips(self, vni: Vni) -> set[Ip]:
        """Return the addresses of containers whose records another host withdrew."""
        found = (each for each in self._withdrawn.values() if each.vni == vni)
        return {parse_ip(ip) for each in found if each.withdrawn for ip in each.withdrawn.ips}

    def mark_connected(self, attachment: Attachment, ifname: str) -> Attachment:
        """Set an attachment to connected, with the name of its interface; return it."""
        connected = replace(attachment, ifname=ifname, plugged=True)
        self[bytes.fromhex(attachment.endpoint_id)] = connected
        return connected

    def move(self, attachment: Attachment) -> None:
        """Replace an attachment whose interface a runtime has moved to its container."""
        endpoint_id = bytes.fromhex(attachment.endpoint_id)
        del self[endpoint_id]
        self[endpoint_id] = attachment

    @contextlib.asynccontextmanager
    async def alone_with(self, identity: tuple[int, int]) -> AsyncIterator[None]:
        """Keep other tasks from attaching, detaching or repairing a container meanwhile."""
        async with self._locks.setdefault(identity, asyncio.Lock()):
            yield

    def __getitem__(self, endpoint_id: bytes) -> Attachment:
        return self._by_id[endpoint_id]

    def __setitem__(self, endpoint_id: bytes, attachment: Attachment) -> None:
        before = self._by_id.get(endpoint_id)
        assert before is None or before.netns_identity == attachment.netns_identity
        assert before is None or before.vni == attachment.vni
        self._by_id[endpoint_id] = attachment
        self._ports.setdefault(attachment.vni, {})[endpoint_id] = planned(attachment)
        self._of_target.setdefault(attachment.netns_identity, {})[endpoint_id] = None
        self._with_resolvers.pop(endpoint_id, None)
        if attachment.resolvers:
            self._with_resolvers[endpoint_id] = attachment
        self._withdrawn.pop(endpoint_id, None)
        if attachment.withdrawn is not None:
            self._withdrawn[endpoint_id] = attachment

    def __delitem__(self, endpoint_id: bytes) -> None:
        former = self._by_id.pop(endpoint_id)
        identity = former.netns_identity
        self._with_resolvers.pop(endpoint_id, None)
        self._withdrawn.pop(endpoint_id, None)
        del self._ports[former.vni][endpoint_id]
        if not self._ports[former.vni]:
            del self._ports[former.vni]
        of_target = self._of_target[identity]
        del of_target[endpoint_id]
        if not of_target:
            del self._of_target[identity]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._by_id)

    def __len__(self) -> int:
        return len(self._by_id)

    def values(self) -> ValuesView[Attachment]:
        """Return all attachments, without the inherited view's lookup of each."""
        return self._by_id.values()


def planned(attachment: Attachment) -> LocalPort:
    """Return an attachment in the planner's form."""
    return LocalPort(
        attachment.port, attachment.subnet_index, bytes.fromhex(attachment.endpoint_id)
    )
