"""Commands taken through load, decide and commit, as the pipeline does, on any store."""

from itertools import count
from typing import Any

from processor.codec import decode
from processor.decide import decide
from processor.lookup import wanted
from processor.messages import Checkpoint, Limits, Log, Plan, RecordedEvent
from processor.partition import partition_of
from processor.store import Committed, Store
from tests.records import PARTITIONS, RULES, command, event, event_id, record

TIME_MS = 1_760_000_000_000
LOG = Log("default", 1)
OTHER = Log("default", 2)
ACME = Log("acme", 1)


def stream_of(log: Log, number: int = 0) -> str:
    """The `number`th of the streams `order-0`, `order-1`, … that belong to a log."""
    names = (
        name for name in map("order-{}".format, count()) if partition_of(name.encode(), PARTITIONS) == log.partition
    )
    return next(name for index, name in enumerate(names) if index == number)


def ship(log: Log, *numbers: int, stream: int = 0, **fields: Any) -> dict[str, Any]:
    """A command to a stream of a log, with an event for each of the numbers, which stand for ids."""
    return command(*(event(number) for number in numbers), stream=stream_of(log, stream), **fields)


def new_events(numbers: range, log: Log = LOG) -> list[dict[str, Any]]:
    """Commands with one event each, over seven streams."""
    return [ship(log, number, stream=number % 7) for number in numbers]


async def plan(
    store: Store, log: Log, before: Checkpoint, *commands: dict[str, Any] | bytes, time_ms: int = TIME_MS
) -> Plan:
    """What the commands come to at a checkpoint, with what the store knows."""
    records = [record(before.next_offset + n, value, timestamp=time_ms) for n, value in enumerate(commands)]
    entries = [(it, decode(it.key, it.value, Limits())) for it in records]
    views = await store.load({log: wanted(log, before.incarnation, entries, [])})
    return decide(RULES, log, before, views[log], entries, before.next_offset + len(records))


async def commit(
    store: Store, log: Log, before: Checkpoint, *commands: dict[str, Any] | bytes, time_ms: int = TIME_MS
) -> Plan:
    """The same, committed."""
    decided = await plan(store, log, before, *commands, time_ms=time_ms)
    assert await store.commit([decided]) == {log: Committed.YES}
    return decided


async def claim(store: Store, log: Log = LOG) -> Checkpoint:
    """The checkpoint of a log after becoming its owner."""
    return (await store.claim([log]))[log]


async def whole_log(store: Store, log: Log = LOG) -> list[RecordedEvent]:
    """All events of a log."""
    return await store.read_log(log, 0, 1_000_000)


__all__ = [
    "ACME", "LOG", "OTHER", "PARTITIONS", "TIME_MS", "claim", "commit", "event_id", "new_events", "plan", "ship",
    "stream_of", "whole_log",
]  # fmt: skip
