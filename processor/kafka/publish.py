"""What is committed goes out: the replies, the dead letters, the feed. One publisher per log, in order.

Each topic's records go as ready-made batches, one acknowledged before the next is sent, so that what is on the feed is
always a beginning of what is in the store. A publication is tried until it is acknowledged; meanwhile its log takes
part in no further cycle once its backlog is full, and the other logs go on.

A publication has no task for each topic: under a light load, with a record or two for each, that was a fifth of what it
cost. Replies come first in a request, as somebody waits for them and the broker takes one batch after the other.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import structlog
from aiokafka.errors import KafkaError
from msgspec.structs import replace

from processor.errors import StoreDamaged, StoreUnreachable
from processor.failpoints import FailPoint, reach
from processor.kafka.batches import batch_of
from processor.kafka.outgoing import Answer, EventRecords, Outgoing, ReplyRecords, dead_letter
from processor.kafka.producer import BatchProducer
from processor.kafka.reply_topics import ReplyTopics
from processor.messages import Accepted, Duplicate, Log, Outcome, Publication, Record, RecordedEvent, Rejected
from processor.names import TopicNames
from processor.replies import reply_address
from processor.telemetry.meter import WorkerMeter

logger = structlog.get_logger(__name__)

_BATCH_OVERHEAD_BYTES = 4 * 1024
_RETRY_FIRST_S, _RETRY_MOST_S = 0.1, 5.0
_PAGE = 1_000
_APPENDED = (Accepted, Duplicate)
_TOGETHER = 1_024


class Lane(NamedTuple):
    """What goes to a topic, in order.

    `encode` has to make a record when it is asked for it: made all at once, they would be cold memory when their batch
    is.
    """

    topic: str
    items: Sequence[Any]
    encode: Callable[[Iterable[Any]], Iterable[Outgoing]]


class Begun(NamedTuple):
    """A batch that the producer has: how many records it holds, and what is done when they are acknowledged."""

    records: int
    acknowledged: asyncio.Future[Any]


class Outbound:
    """The one idempotent producer of a worker."""

    def __init__(
        self,
        options: dict[str, Any],
        *,
        compression: str | None,
        max_record_bytes: int,
        meter: WorkerMeter | None = None,
    ) -> None:
        self._meter = meter or WorkerMeter()
        self._compression = compression
        # What the rest of a batch and the broker's own parts take.
        self.room_bytes = max_record_bytes - _BATCH_OVERHEAD_BYTES
        self.reply_topics = ReplyTopics(options, max_request_size=max_record_bytes)
        self._producer = BatchProducer(options, self._tries_again)

    async def start(self) -> None:
        """Connect. Raises aiokafka's errors."""
        await self._producer.start()

    async def stop(self) -> None:
        """Let go of the connections; what is not acknowledged yet is published by the next owner."""
        await self.reply_topics.stop()
        await self._producer.stop()

    def _tries_again(self) -> None:
        self._meter.retries["publish"] += 1

    async def send(self, partition: int, lanes: Sequence[Lane]) -> None:
        """Send a record for each item, to this partition of the lanes' topics; returns when all are acknowledged.

        Only cancelling ends the trying.
        """
        pause_s = _RETRY_FIRST_S
        while lanes:
            counts = await self._send_next(partition, lanes)
            lanes = [
                lane._replace(items=lane.items[count:])
                for lane, count in zip(lanes, counts, strict=True)
                if count < len(lane.items)
            ]
            if 0 in counts:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _RETRY_MOST_S)
            else:
                pause_s = _RETRY_FIRST_S

    async def _send_next(self, partition: int, lanes: Sequence[Lane]) -> list[int]:
        """Send the next batch of each lane, all at once; returns how many records of each were acknowledged."""
        begun = [self.begin(lane.topic, partition, lane.encode(lane.items)) for lane in lanes]
        try:
            return [await self._counted(lane, partition, one) for lane, one in zip(lanes, begun, strict=True)]
        finally:
            for one in begun:
                one.acknowledged.cancel()

    async def _counted(self, lane: Lane, partition: int, begun: Begun) -> int:
        """How many records are acknowledged: 0 where the broker would not have them yet."""
        try:
            await begun.acknowledged
        except KafkaError as error:
            self._tries_again()
            logger.warning("not published yet, trying again", topic=lane.topic, partition=partition, error=repr(error))
            return 0
        return begun.records

    async def send_batch(self, topic: str, partition: int, records: Iterable[Outgoing]) -> int:
        """Send as many of the records as one batch holds; return how many, once they are acknowledged.

        Raises aiokafka's errors.
        """
        begun = self.begin(topic, partition, records)
        await begun.acknowledged
        return begun.records

    def begin(self, topic: str, partition: int, records: Iterable[Outgoing]) -> Begun:
        """Hand as many of the records as one batch holds to the producer."""
        batch = batch_of(records, self._compression)
        return Begun(batch.record_count(), self._producer.send(topic, partition, batch))


class LogPublisher:
    """Publishes for one log. `feed_position` is the last that the feed has: nothing up to it is sent again.

    `reply_from`: commands below this offset have been answered. `is_allowed` says which topics a command may name for
    its reply. `backlog` bounds the events and the weight of the commands that wait; `on_room` is told when there is
    room again.
    """

    def __init__(
        self,
        log: Log,
        outbound: Outbound,
        names: TopicNames,
        *,
        is_allowed: Callable[[str], bool],
        feed_position: int,
        reply_from: int,
        backlog: int,
        on_room: Callable[[], None],
        meter: WorkerMeter | None = None,
    ) -> None:
        self.acknowledged_offset = reply_from
        self.acknowledged_position = feed_position
        self._log = log
        self._outbound = outbound
        self._names = names
        self._is_allowed = is_allowed
        self._feed_position = feed_position
        self._reply_from = reply_from
        self._backlog = backlog
        self._on_room = on_room
        self._meter = meter or WorkerMeter()
        self._pending = 0
        self._queue: deque[Publication] = deque()
        self._wake = asyncio.Event()

    @property
    def has_room(self) -> bool:
        """Whether the log may go on deciding."""
        return self._pending < self._backlog

    @property
    def is_idle(self) -> bool:
        """Whether all that was put is acknowledged."""
        return not self._pending and not self._queue

    def put(self, publication: Publication) -> None:
        """Take a publication that is committed."""
        self._queue.append(publication)
        self._pending += _size(publication)
        self._wake.set()

    async def run(self, read_events: Callable[[Log, int, int], Awaitable[list[RecordedEvent]]], watermark: int) -> None:
        """Publish for ever: first what the feed lacks of the store, up to `watermark`, then what is put."""
        await self._catch_up(read_events, watermark)
        while True:
            while self._queue:
                publications = self._take()
                publication = _joined(publications)
                with self._meter.publishing(self._log, publication):
                    await self._publish(publication)
                had_room = self.has_room
                self._pending -= sum(map(_size, publications))
                if self.has_room and not had_room:
                    self._on_room()
            self._wake.clear()
            await self._wake.wait()

    def _take(self) -> list[Publication]:
        """What has gathered while the one before was under way goes out together: many cycles can end meanwhile."""
        taken = [self._queue.popleft()]
        size = _size(taken[0])
        while self._queue and (size := size + _size(self._queue[0])) <= _TOGETHER:
            taken.append(self._queue.popleft())
        return taken

    async def _catch_up(
        self, read_events: Callable[[Log, int, int], Awaitable[list[RecordedEvent]]], watermark: int
    ) -> None:
        while self._feed_position < watermark:
            try:
                events = await read_events(self._log, self._feed_position, _PAGE)
            except StoreUnreachable:
                await asyncio.sleep(_RETRY_MOST_S)
                continue
            if not events:
                raise StoreDamaged(f"{self._log}: no events after position {self._feed_position} of {watermark}")
            await reach(FailPoint.BEFORE_FEED)
            await self._outbound.send(self._log.partition, [self._feed(events)])
            await reach(FailPoint.AFTER_FEED)
            self._feed_position = self.acknowledged_position = events[-1].position

    async def _publish(self, publication: Publication) -> None:
        answers = publication.answers
        if answers and answers[0][1].offset < self._reply_from:
            answers = [answer for answer in answers if answer[1].offset >= self._reply_from]
        lanes, named = self._replies(answers)
        events = self._lacking(publication.events)
        if events:
            lanes.append(self._feed(events))
            await reach(FailPoint.BEFORE_FEED)
        await reach(FailPoint.BEFORE_REPLIES)
        sending = self._outbound.send(self._log.partition, lanes)
        await (asyncio.gather(sending, self._send_replies(named)) if named else sending)
        if events:
            await reach(FailPoint.AFTER_FEED)
            self._feed_position = events[-1].position
        await reach(FailPoint.AFTER_REPLIES)
        self.acknowledged_offset = max(self.acknowledged_offset, publication.next_offset)
        self.acknowledged_position = max(self.acknowledged_position, publication.last_position)

    def _lacking(self, events: Sequence[RecordedEvent]) -> Sequence[RecordedEvent]:
        """Those that the feed does not have yet."""
        if events and events[0].position <= self._feed_position:
            return [event for event in events if event.position > self._feed_position]
        return events

    def _feed(self, events: Sequence[RecordedEvent]) -> Lane:
        return Lane(self._names.events, events, partial(EventRecords, self._log))

    def _replies(self, answers: Sequence[tuple[Record, Outcome]]) -> tuple[list[Lane], list[Answer]]:
        """What goes to the standing topics, and the answers whose commands have named another one, too."""
        results: list[Answer] = []
        conflicts: list[Answer] = []
        named: list[Answer] = []
        for record, decided in answers:
            address = reply_address(record.headers, self._is_allowed)
            outcome = replace(decided, reply_refused=True) if address.refused else decided
            answer = record, outcome, address
            (results if isinstance(outcome, _APPENDED) else conflicts).append(answer)
            if address.topic is not None:
                named.append(answer)
        unusable = [
            (record, outcome)
            for record, outcome, _ in conflicts
            if isinstance(outcome, Rejected) and outcome.reason == "malformed"
        ]
        self._meter.dead_letters += len(unusable)
        records = partial(ReplyRecords, self._outbound.room_bytes)
        lanes = [
            Lane(self._names.results, results, records),
            Lane(self._names.conflicts, conflicts, records),
            Lane(self._names.dead_letters, unusable, self._dead_letters),
        ]
        return [lane for lane in lanes if lane.items], named

    def _dead_letters(self, answers: Iterable[tuple[Record, Rejected]]) -> Iterator[Outgoing]:
        for record, outcome in answers:
            yield dead_letter(self._log, self._names.commands, record, outcome, self._outbound.room_bytes)

    async def _send_replies(self, answers: Sequence[Answer]) -> None:
        """Send to the topics that commands have named."""
        replies = ReplyRecords(self._outbound.room_bytes, answers)
        sends = [
            self._outbound.reply_topics.send(address, key, value or b"", headers)
            for (_, _, address), (key, value, headers, _) in zip(answers, replies, strict=True)
        ]
        self._meter.undeliverable += (await asyncio.gather(*sends)).count(False)


def _joined(publications: Sequence[Publication]) -> Publication:
    """Publications that follow on each other as one."""
    if len(publications) == 1:
        return publications[0]
    return Publication(
        events=[event for publication in publications for event in publication.events],
        answers=[answer for publication in publications for answer in publication.answers],
        next_offset=publications[-1].next_offset,
        last_position=publications[-1].last_position,
        weight=sum(publication.weight for publication in publications),
    )


def _size(publication: Publication) -> int:
    # At least 1, so that a publication without records counts as waiting too.
    return 1 + len(publication.events) + publication.weight
