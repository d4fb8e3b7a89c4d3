"""Rows folded into the views that `Store.load` returns, the same for both SQL stores."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from processor.messages import Head, Log, RecordedEvent, Refusal, RefusedCommand, View, Wanted
from processor.stores.tables import id_text

_refusal: msgspec.json.Decoder[Refusal] = msgspec.json.Decoder(Refusal)


class Views:
    """The views of the logs of one `load`, by the numbers that the rows know them by."""

    def __init__(self, wanted: Mapping[Log, Wanted], tenants: Mapping[str, int]) -> None:
        self.by_log = {log: View.empty() for log in wanted}
        self._by_number = {
            (tenants[log.tenant], log.partition): view for log, view in self.by_log.items() if log.tenant in tenants
        }

    def add_known(self, rows: Iterable[Any]) -> None:
        """Rows of tenant, partition, the stream's number and version, and the `RECORDED` columns of a wanted event.

        Those are null, but for the stream's name, where there is no such event.
        """
        for row in rows:
            view, name = self._by_number[row[0], row[1]], row[4]
            view.heads[name] = Head(row[2], row[3])
            if row[5] is not None:
                _, version, position, event_id, *fields = row[4:]
                event_id = id_text(event_id) if isinstance(event_id, bytes) else str(event_id)
                view.known[name, event_id] = RecordedEvent(name, version, position, event_id, *fields)

    def add_refused(self, rows: Iterable[Any]) -> None:
        """Rows of tenant, partition and the `REMEMBERED` columns, the newest of a command id last."""
        for tenant, partition, *fields in rows:
            refused = _refused_command(fields)
            if refused.stream is not None and refused.command_id is not None:
                self._by_number[tenant, partition].refused[refused.stream, refused.command_id] = refused

    def add_refused_at(self, rows: Iterable[Any]) -> None:
        """Rows of tenant, partition and the `REMEMBERED` columns."""
        for tenant, partition, *fields in rows:
            refused = _refused_command(fields)
            self._by_number[tenant, partition].refused_at[refused.offset] = refused


def _refused_command(row: Any) -> RefusedCommand:
    """A refusal from the columns of `REMEMBERED`."""
    offset, stream, command_id, content, log_time_ms, outcome = row
    return RefusedCommand(offset, stream, command_id, content, log_time_ms, _refusal.decode(outcome))
