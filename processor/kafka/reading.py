"""The feed, as a consumer wants it: each event once, in position order, from any position on."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from msgspec import Struct

from processor.errors import BrokerUnreachable, FeedGap, SettingsError
from processor.kafka.connection import client_options, stop_consumer
from processor.kafka.feed import position_of
from processor.kafka.topics import count_partitions
from processor.names import TopicNames
from processor.settings import Settings

After = Mapping[int, int] | int | Literal["start", "now"]
"""Where to begin: behind a position of each partition (one number for all; 0 where a mapping has none), with all there
is, or with what comes."""

_FETCH_BYTES = 256 * 1024
_WAIT_MS = 500


class FeedEvent(Struct, frozen=True, kw_only=True, gc=False):
    """An event as the feed has it; see `messages.RecordedEvent` for the fields.

    `data_json` and `metadata_json` are JSON text; `data` and `metadata` parse it when they are asked for.
    """

    tenant: str
    partition: int
    position: int
    stream: str
    version: int
    event_id: str
    type: str
    schema_version: int
    time_ms: int
    data_json: bytes
    metadata_json: bytes = b"{}"
    command_id: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None

    @property
    def data(self) -> Any:
        """The payload."""
        return msgspec.json.decode(self.data_json)

    @property
    def metadata(self) -> dict[str, Any]:
        """What goes with the payload; empty where there was none."""
        return msgspec.json.decode(self.metadata_json, type=dict[str, Any])

    @property
    def time(self) -> datetime:
        """The command record's timestamp, in UTC."""
        return datetime.fromtimestamp(self.time_ms / 1000, UTC)


def event_of(record: ConsumerRecord) -> FeedEvent:
    """The event that a record of the feed is; the record has a position (`position_of`)."""
    # Decoded one by one, as a third of the headers are of no use here: this is done for every event that anyone reads.
    headers = dict(record.headers)
    return FeedEvent(
        tenant=headers["ce_tenant"].decode(),
        partition=record.partition,
        position=int(headers["ce_position"]),
        stream=headers["ce_subject"].decode(),
        version=int(headers["ce_streamversion"]),
        event_id=headers["ce_id"].decode(),
        type=headers["ce_type"].decode(),
        schema_version=int(headers["ce_schemaversion"]),
        time_ms=record.timestamp,
        data_json=record.value,
        metadata_json=headers.get("ce_metadata") or b"{}",
        command_id=_text(headers.get("ce_commandid")),
        correlation_id=_text(headers.get("ce_correlationid")),
        causation_id=_text(headers.get("ce_causationid")),
        traceparent=_text(headers.get("traceparent")),
    )


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


async def read_feed(
    settings: Settings,
    tenant: str,
    *,
    partitions: Iterable[int] | None = None,
    after: After = "start",
    follow: bool = True,
) -> AsyncGenerator[list[ConsumerRecord], None]:
    """The feed's records, some of one partition at a time: no position twice, and none that is not above `after`.

    Ends, if not `follow`, with what is there at the beginning. Raises `SettingsError` for a partition that is none,
    `TopicMismatch`, `BrokerUnreachable`, and `FeedGap` where a position that was to come next is not on the feed.
    """
    topic = TopicNames.of(settings.topic_prefix, tenant).events
    count = (await count_partitions(settings, [topic]))[topic]
    chosen = _chosen(range(count), partitions, after)
    consumer = AIOKafkaConsumer(
        **client_options(settings),
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        max_partition_fetch_bytes=_FETCH_BYTES,
    )
    try:
        await consumer.start()
        reader = _Reader(consumer, [TopicPartition(topic, partition) for partition in chosen])
        await reader.seek(after)
        async for records in reader.pages(follow=follow):
            yield records
    except OffsetOutOfRangeError:
        raise FeedGap(f"What was to be read next is not on {topic} any more: it was deleted, or made anew.") from None
    except KafkaError as error:
        raise BrokerUnreachable(f"The feed {topic} can't be read: {error or type(error).__name__}.") from None
    finally:
        await stop_consumer(consumer)


def _chosen(there: range, asked: Iterable[int] | None, after: After) -> list[int]:
    chosen = list(there) if asked is None else sorted(set(asked))
    given = list(after) if isinstance(after, Mapping) else []
    wrong = [str(partition) for partition in (*chosen, *given) if partition not in there]
    if wrong:
        raise SettingsError(f"There is no partition {', '.join(wrong)}: the feed has 0 to {there[-1]}.")
    return chosen


class _Reader:
    """Drops what was seen. `_next` is the position that has to come next, where that is known."""

    def __init__(self, consumer: AIOKafkaConsumer, places: list[TopicPartition]) -> None:
        self._consumer = consumer
        self._places = places
        self._begins: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._seen: dict[TopicPartition, int] = {}
        self._next: dict[TopicPartition, int] = {}
        self._guessed: set[TopicPartition] = set()

    async def seek(self, after: After) -> None:
        """Go to where to begin."""
        self._consumer.assign(self._places)
        self._begins = await self._consumer.beginning_offsets(self._places)
        self._ends = await self._consumer.end_offsets(self._places)
        self._seen = dict.fromkeys(self._places, 0)
        starts = self._ends if after == "now" else self._begins
        for place in self._places:
            self._consumer.seek(place, starts[place])
        if isinstance(after, str):
            return
        for place in self._places:
            position = after if isinstance(after, int) else after.get(place.partition, 0)
            if position > 0:
                self._seen[place], self._next[place] = position, position + 1
        await self._skip([place for place in self._next if self._ends[place] > self._begins[place]])

    async def _skip(self, places: list[TopicPartition]) -> None:
        """Go past what has been seen without reading it.

        Between the first occurrences of two positions there are at least as many records as positions, so the first
        record's position says how far can be skipped. It may itself be a late duplicate, and then that is too far:
        `pages` finds the hole and goes back. The last record is read in any case, as a hole may be before it.
        """
        firsts = await self._first_positions(places)
        for place, (offset, position) in firsts.items():
            skipped = offset + max(0, self._next[place] - position)
            start = min(skipped, self._ends[place] - 1)
            if start > self._begins[place]:
                self._guessed.add(place)
            self._consumer.seek(place, start)

    async def _first_positions(self, places: list[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        """Offset and position of each partition's first event; only of those that have one."""
        found: dict[TopicPartition, tuple[int, int]] = {}
        left = set(places)
        while left:
            for place, records in (await self._consumer.getmany(*left, timeout_ms=_WAIT_MS)).items():
                for record in records:
                    position = position_of(record)
                    if position is not None:
                        found.setdefault(place, (record.offset, position))
            left = {place for place in left - found.keys() if not await self._at_end(place)}
        return found

    async def _at_end(self, place: TopicPartition) -> bool:
        return bool(await self._consumer.position(place) >= self._ends[place])

    async def pages(self, *, follow: bool) -> AsyncIterator[list[ConsumerRecord]]:
        """What is new, for ever or up to where the feed ended."""
        left = set(self._places)
        while follow or left:
            if not follow:
                left = {place for place in left if not await self._at_end(place)}
                if not left:
                    return
            for place, records in (await self._consumer.getmany(*left, timeout_ms=_WAIT_MS)).items():
                fresh = self._fresh(place, records)
                if fresh:
                    yield fresh

    def _fresh(self, place: TopicPartition, records: list[ConsumerRecord]) -> list[ConsumerRecord]:
        fresh = []
        for record in records:
            position = position_of(record)
            if position is None or position <= self._seen[place]:
                continue
            if position > self._next.get(place, position):
                self._go_back(place, position)
                break
            self._guessed.discard(place)
            self._seen[place], self._next[place] = position, position + 1
            fresh.append(record)
        return fresh

    def _go_back(self, place: TopicPartition, position: int) -> None:
        if place not in self._guessed:
            raise FeedGap(
                f"Partition {place.partition} of {place.topic} goes on with position {position}, not "
                f"{self._next[place]}: what is between was deleted, or the topic was made anew."
            )
        self._guessed.discard(place)
        self._consumer.seek(place, self._begins[place])
