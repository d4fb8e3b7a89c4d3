"""What the reading commands share: the store as a reader opens it, and events as they are printed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from msgspec import UNSET, Raw, Struct, UnsetType

from processor.cli.progress import progress
from processor.codec import rfc3339
from processor.kafka.reading import FeedEvent
from processor.kafka.rebuild import rebuild
from processor.messages import Log, RecordedEvent
from processor.settings import Settings
from processor.store import Store
from processor.stores import open_store

PAGE = 500


@asynccontextmanager
async def opened_store(settings: Settings) -> AsyncIterator[Store]:
    """The store, for reading. One in memory is another process's: it is made again from the log, and is the same."""
    store = open_store(settings.store, partitions=settings.partitions, durability=settings.durability, read_only=True)
    await store.open()
    try:
        if not store.durable:
            with progress("commands", None) as bar:
                await rebuild(settings, store, bar.at)
        yield store
    finally:
        await store.close()


class EventJson(Struct, omit_defaults=True):
    """An event as the commands print it; what it lacks is left out."""

    tenant: str
    partition: int
    position: int
    stream: str
    version: int
    event_id: str
    type: str
    schema_version: int
    time: str
    data: Raw
    metadata: Raw | UnsetType = UNSET
    command_id: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None
    offset: int | UnsetType = UNSET
    hash: str | UnsetType = UNSET


def recorded_json(log: Log, event: RecordedEvent) -> EventJson:
    """An event of the store."""
    return _event_json(
        event,
        tenant=log.tenant,
        partition=log.partition,
        data=_one_line(event.data),
        metadata=_one_line(event.metadata) if event.metadata else UNSET,
        offset=event.offset,
        hash=event.hash.hex(),
    )


def feed_json(event: FeedEvent) -> EventJson:
    """An event of the feed."""
    return _event_json(
        event,
        tenant=event.tenant,
        partition=event.partition,
        data=_one_line(event.data_json),
        metadata=_one_line(event.metadata_json) if event.metadata_json != b"{}" else UNSET,
    )


def _event_json(event: RecordedEvent | FeedEvent, **more: Any) -> EventJson:
    return EventJson(
        position=event.position,
        stream=event.stream,
        version=event.version,
        event_id=event.event_id,
        type=event.type,
        schema_version=event.schema_version,
        time=rfc3339(event.time_ms),
        command_id=event.command_id,
        correlation_id=event.correlation_id,
        causation_id=event.causation_id,
        traceparent=event.traceparent,
        **more,
    )


def _one_line(text: bytes) -> Raw:
    # In JSON a line break can only stand between tokens, where a space means the same.
    return Raw(text.replace(b"\r", b" ").replace(b"\n", b" "))


def event_text(event: EventJson) -> str:
    """An event on one line, for a person."""
    place = f"{event.partition}/{event.position}"
    return f"{event.time}  {place:>8}  {event.stream} v{event.version}  {event.type}  {bytes(event.data).decode()}"
