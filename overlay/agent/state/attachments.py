"""The attachments of this node: by the id of their endpoint, and by their container."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator, MutableMapping, ValuesView
from dataclasses import replace
from weakref import WeakValueDictionary

from overlay.agent.state.documents import Attachment
from overlay.core.dataplane.planner import LocalPort


class Attachments(MutableMapping[bytes, Attachment]):
    """What is attached, as it is on disk. `of_target` looks up; an attachment's container never
    changes, for the endpoint goes with it."""

    def __init__(self, stored: Iterable[Attachment] = ()) -> None:
        self._by_id: dict[bytes, Attachment] = {}
        self._of_target: dict[tuple[int, int], dict[bytes, None]] = {}
        # A lock lives as long as somebody holds or awaits it.
        self._locks: WeakValueDictionary[tuple[int, int], asyncio.Lock] = WeakValueDictionary()
        self.update((bytes.fromhex(each.endpoint_id), each) for each in stored)

    def of_target(self, identity: tuple[int, int]) -> list[Attachment]:
        """Return the attachments of one container's namespace, in the order they were made."""
        return [self._by_id[each] for each in self._of_target.get(identity, ())]

    def mark_connected(self, attachment: Attachment, ifname: str) -> Attachment:
        """Keep an attachment with the interface that its container really got; return it so."""
        found = replace(attachment, ifname=ifname, plugged=True)
        self[bytes.fromhex(attachment.endpoint_id)] = found
        return found

    @contextlib.asynccontextmanager
    async def alone_with(self, identity: tuple[int, int]) -> AsyncIterator[None]:
        """Let nobody else attach, detach or mend a container during the block."""
        async with self._locks.setdefault(identity, asyncio.Lock()):
            yield

    def __getitem__(self, endpoint_id: bytes) -> Attachment:
        return self._by_id[endpoint_id]

    def __setitem__(self, endpoint_id: bytes, attachment: Attachment) -> None:
        before = self._by_id.get(endpoint_id)
        assert before is None or before.netns_identity == attachment.netns_identity
        self._by_id[endpoint_id] = attachment
        self._of_target.setdefault(attachment.netns_identity, {})[endpoint_id] = None

    def __delitem__(self, endpoint_id: bytes) -> None:
        identity = self._by_id.pop(endpoint_id).netns_identity
        mates = self._of_target[identity]
        del mates[endpoint_id]
        if not mates:
            del self._of_target[identity]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._by_id)

    def __len__(self) -> int:
        return len(self._by_id)

    def values(self) -> ValuesView[Attachment]:
        """Return all of them: the inherited view would look each up."""
        return self._by_id.values()


def planned(attachment: Attachment) -> LocalPort:
    """Return an attachment as the planner knows it."""
    return LocalPort(
        attachment.port, attachment.subnet_index, bytes.fromhex(attachment.endpoint_id)
    )
