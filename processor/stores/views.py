"""What `Store.load` asks a SQL store for, as rows, and the views that the answers are folded into.

A row begins with tenant and partition; a tenant is told by its number. Heads are looked up first: only a stream that
there is can have an event that is known, and events know their stream by its number.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from processor.messages import Head, KnownEvent, Log, Outcome, RefusedCommand, View, Wanted
from processor.stores.rows import Row

_outcome: msgspec.json.Decoder[Outcome] = msgspec.json.Decoder(Outcome)


class Views:
    """One `load`: first `streams` and `add_heads`, then the others, in any order. Unknown tenants have no rows."""

    def __init__(self, wanted: Mapping[Log, Wanted], tenants: Mapping[str, int]) -> None:
        self.by_log = {log: View.empty() for log in wanted}
        self._wanted = {(tenants[log.tenant], log.partition): of for log, of in wanted.items() if log.tenant in tenants}
        self._views = {
            (tenants[log.tenant], log.partition): view for log, view in self.by_log.items() if log.tenant in tenants
        }
        self._asked: list[tuple[View, str, str]] = []

    def _each(self) -> Iterator[tuple[int, int, Wanted]]:
        for (tenant, partition), wanted in self._wanted.items():
            yield tenant, partition, wanted

    def streams(self) -> list[Row]:
        """The names whose heads are not known to who asks."""
        return [
            (tenant, partition, name)
            for tenant, partition, wanted in self._each()
            for name in wanted.event_ids
            if name not in wanted.heads
        ]

    def add_heads(self, rows: Iterable[Any]) -> None:
        """Rows of tenant, partition, a stream's name, number and version."""
        for tenant, partition, name, number, version in rows:
            self._views[tenant, partition].heads[name] = Head(number, version)

    def event_ids(self, event_id_as: Callable[[str], Any]) -> list[Row]:
        """The wanted event ids, as the driver takes them, behind the number of their stream."""
        rows: list[Row] = []
        for tenant, partition, wanted in self._each():
            view = self._views[tenant, partition]
            for name, event_ids in wanted.event_ids.items():
                head = wanted.heads.get(name) or view.heads.get(name)
                if head is not None:
                    rows += [(tenant, partition, head.number, event_id_as(event_id)) for event_id in event_ids]
                    self._asked += [(view, name, event_id) for event_id in event_ids]
        return rows

    def add_known(self, rows: Iterable[Any]) -> None:
        """Rows of an event's place among `event_ids`, counted from 1, and its `KNOWN` columns."""
        asked = self._asked
        for place, version, position, kind, schema_version, data, metadata, offset in rows:
            view, name, event_id = asked[place - 1]
            view.known[name, event_id] = KnownEvent(version, position, kind, schema_version, data, metadata, offset)

    def commands(self) -> list[Row]:
        """The wanted refusals: stream and command id."""
        return [(tenant, partition, *key) for tenant, partition, wanted in self._each() for key in wanted.commands]

    def add_refused(self, rows: Iterable[Any]) -> None:
        """Rows of tenant, partition and the `REMEMBERED` columns, the newest of a command id last."""
        for tenant, partition, *fields in rows:
            refused = _refused_command(fields)
            if refused.stream is not None and refused.command_id is not None:
                self._views[tenant, partition].refused[refused.stream, refused.command_id] = refused

    def offsets(self) -> list[Row]:
        """The wanted offsets."""
        return [(tenant, partition, offset) for tenant, partition, wanted in self._each() for offset in wanted.offsets]

    def add_refused_at(self, rows: Iterable[Any]) -> None:
        """Rows of tenant, partition and the `REMEMBERED` columns."""
        for tenant, partition, *fields in rows:
            refused = _refused_command(fields)
            self._views[tenant, partition].refused_at[refused.offset] = refused


def _refused_command(row: Any) -> RefusedCommand:
    """A refusal from the columns of `REMEMBERED`."""
    offset, stream, command_id, content, log_time_ms, outcome = row
    return RefusedCommand(offset, stream, command_id, content, log_time_ms, _outcome.decode(outcome))
