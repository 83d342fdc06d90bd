"""The changes of other nodes' endpoints on a network since they were last read.

Owns: the choice between reading all records and those that changed. Does not: know which VTEP a
node has (`core.view`).
"""

from __future__ import annotations

from collections.abc import Mapping

from overlay.core.dataplane.planning.inputs import (
    HostEndpoints,
    RecordsPosition,
    RemoteChanges,
    RemoteEndpoint,
    RemoteEndpoints,
)
from overlay.core.dataplane.planning.remote_table import RemoteTable
from overlay.core.log.store import Store
from overlay.core.protocol.records import Key, Scope
from overlay.model import Endpoint, Ip, NodeId


def remote_changes(
    store: Store, scope: Scope, vteps: Mapping[NodeId, Ip | None], since: RecordsPosition | None
) -> RemoteChanges:
    """Return the changes since a position; all endpoints if it is None, or long ago.

    `vteps` are the other nodes that have records, each with the VTEP that frames are sent to; the
    endpoints of one without are not there.
    """
    count = store.change_count(scope, "endpoint")
    position = RecordsPosition(count, dict(vteps))
    changed = None
    if since is not None:
        changed = store.changed_since(scope, "endpoint", since.change_count)
    if since is None or changed is None:
        return RemoteChanges(_all(store, scope, vteps), position=position)
    keys: dict[tuple[NodeId, Key], None] = {}
    for origin, vtep in vteps.items():
        if since.vteps.get(origin) != vtep:
            of_origin = store.values_of(origin, scope, "endpoint")
            ids = (value.endpoint_id for value in of_origin if isinstance(value, Endpoint))
            keys.update(((origin, ("endpoint", each)), None) for each in ids)
    keys.update((each, None) for each in changed if each[0] != store.self_id)
    present: list[RemoteEndpoint] = []
    gone: list[tuple[NodeId, bytes]] = []
    for origin, key in keys:
        vtep, value = vteps.get(origin), store.value(origin, scope, key)
        if vtep is None or not isinstance(value, Endpoint):
            gone.append((origin, key[1]))
        else:
            present.append(RemoteEndpoint(origin, vtep, value))
    return RemoteChanges(present, gone, is_whole=False, position=position)


def has_followed(
    store: Store, scope: Scope, vteps: Mapping[NodeId, Ip | None], table: RemoteTable
) -> bool:
    """Return whether a table has the endpoints of the records; it is not asked after new changes.

    That it has follows from `remote_changes`; this is for a pass that is to trust nothing.
    """
    position = table.position
    if position is None:
        return False
    if position != (store.change_count(scope, "endpoint"), vteps):
        return True
    return (
        all(
            table.has_all_of(
                origin,
                vtep,
                (v for v in store.values_of(origin, scope, "endpoint") if isinstance(v, Endpoint)),
            )
            for origin, vtep in vteps.items()
        )
        and table.origins() <= vteps.keys()
    )


def _all(store: Store, scope: Scope, vteps: Mapping[NodeId, Ip | None]) -> RemoteEndpoints:
    return RemoteEndpoints(
        HostEndpoints(
            origin,
            vtep,
            tuple(
                value
                for value in store.values_of(origin, scope, "endpoint")
                if isinstance(value, Endpoint)
            ),
        )
        for origin, vtep in vteps.items()
        if vtep is not None
    )
