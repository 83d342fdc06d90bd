"""DNS records of a declared state."""

from __future__ import annotations

from collections.abc import Iterator

from overlay.agent.apply.host.items import record_item, record_of
from overlay.agent.declared.service import DeclaredService
from overlay.agent.dns.records.custom_records import CustomRecords
from overlay.agent.records.directory import Directory
from overlay.core.apply.items import DeclaredItem
from overlay.core.apply.plan import PlannedStep
from overlay.core.declared.host_objects import DeclaredRecord, existing


class RecordObjects:
    """The DNS records of all networks, declared ones and those that `dns add` has made.

    Of the latter only those on networks whose records this host holds.
    """

    def __init__(
        self, directory: Directory, declared: DeclaredService, records: CustomRecords
    ) -> None:
        self._directory = directory
        self._declared = declared
        self._records = records

    def present(self) -> Iterator[DeclaredItem]:
        """Yield all records that are served; a declared one takes precedence."""
        declared = [each for each in existing(self._declared.objects, DeclaredRecord) if each.ips]
        yield from map(record_item, declared)
        for network in self._directory.networks():
            found: dict[str, DeclaredRecord] = {}
            hidden = self._directory.declared_records(network.vni)
            for _, record in self._directory.added_records(network.vni):
                if record.name.lower() in hidden:
                    continue
                before = found.get(record.name.lower())
                ips = record.ips if before is None else (*before.ips, *record.ips)
                found[record.name.lower()] = DeclaredRecord(network.name, record.name, ips)
            yield from map(record_item, found.values())

    async def check(self, step: PlannedStep) -> None:
        """Raise ConflictError for a record that is too large."""
        if step.action != "remove":
            record_of(step.item).body()

    async def carry_out(self, step: PlannedStep) -> None:
        """Declare a record in place of one that a command has added here, or remove it."""
        record = record_of(step.item)
        if step.action == "remove":
            self._declared.remove(record.kind, record.object_name)
            return
        self._declared.put(record.kind, record.object_name, record.body())
        self._records.drop_own(self._directory.network(record.network), record.name)
