"""The feed against the store: first occurrences are exactly the store's events, in position order."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing

from aiokafka import ConsumerRecord
from msgspec import Struct

from processor.errors import FeedGap
from processor.kafka.feed import position_of
from processor.kafka.outgoing import event_record
from processor.kafka.reading import read_feed
from processor.messages import Checkpoint, Log, RecordedEvent
from processor.settings import Settings
from processor.store import Store

_MOST_PROBLEMS = 10


class FeedReport(Struct):
    """How one log's feed compares: the last position on it, and what is wrong, in sentences."""

    position: int = 0
    problems: list[str] = []


async def check_feed(
    settings: Settings,
    tenant: str,
    store: Store,
    checkpoints: Mapping[Log, Checkpoint],
    on_events: Callable[[int], None],
) -> dict[Log, FeedReport]:
    """Compare what is on a tenant's feed now with the store; `on_events` is told of so many more that were compared.

    `checkpoints` were read before: what the feed lacks above their acknowledged position may still be on its way.
    Raises what `read_feed` does, but for `FeedGap`, and what the store does.
    """
    reports = {log: FeedReport() for log in checkpoints if log.tenant == tenant}
    try:
        async with aclosing(read_feed(settings, tenant, after="start", follow=False)) as pages:
            async for records in pages:
                log = Log(tenant, records[0].partition)
                report = reports.setdefault(log, FeedReport())
                first = position_of(records[0]) or 0
                if first != report.position + 1:
                    report.problems.append(f"the feed begins with position {first}")
                events = await store.read_log(log, first - 1, len(records))
                report.position = position_of(records[-1]) or 0
                _compare(log, report, records, events)
                on_events(len(records))
    except FeedGap as gap:
        for report in reports.values():
            report.problems.append(str(gap))
        return reports
    for log, report in reports.items():
        acknowledged = checkpoints[log].acknowledged_position if log in checkpoints else 0
        if report.position < acknowledged:
            report.problems.append(f"the feed ends at position {report.position}, but had come to {acknowledged}")
    return reports


def _compare(log: Log, report: FeedReport, records: Sequence[ConsumerRecord], events: Sequence[RecordedEvent]) -> None:
    if len(events) < len(records):
        report.problems.append(f"the feed has {len(records) - len(events)} events behind the end of the store")
    for record, event in zip(records, events, strict=False):
        if len(report.problems) >= _MOST_PROBLEMS:
            return
        key, value, headers, time_ms = event_record(log, event)
        if (record.key, record.value, record.timestamp) != (key, value, time_ms) or list(record.headers) != headers:
            report.problems.append(f"the event at position {event.position} is another on the feed than in the store")
