"""Commands out, outcomes back: what the client and `tidemark send` are made of.

Each partition has a lane, which sends what waits for it as one batch and waits for the acknowledgement before the next:
so commands of a stream stay in order, and many senders share a request. Replies come from the standing topics, read
from where they ended before the first command was sent, and are told from others' by the correlation id.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    InvalidTimestampError,
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    TopicAuthorizationFailedError,
)
from msgspec import Struct

from processor.errors import BrokerUnreachable, NotSent, TidemarkError
from processor.kafka.connection import client_options, stop_consumer
from processor.kafka.outgoing import Headers, Outgoing
from processor.kafka.publish import Outbound
from processor.kafka.topics import count_partitions
from processor.names import TopicNames
from processor.partition import partition_of
from processor.settings import Settings

IN_FLIGHT = 10_000
"""Most commands without an outcome."""

_CORRELATION = "correlation_id"
_ECHOED = frozenset({_CORRELATION, "kafka_correlationId"})
_IN_FLIGHT_BYTES = 64 * 1024 * 1024
_LANE_RECORDS = 2_000
_FETCH_BYTES = 256 * 1024
_WAIT_MS = 1_000
_RETRY_FIRST_S, _RETRY_MOST_S = 0.1, 2.0
# A command over the limit is sent all the same where the broker takes it: the outcome says what the limit is.
_HEADROOM_BYTES = 1024 * 1024
# What the broker says of a record that it will never take; anything else is tried again.
_REFUSALS = (
    ClusterAuthorizationFailedError,
    InvalidTimestampError,
    InvalidTopicError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    TopicAuthorizationFailedError,
)


class Sent(Struct, eq=False):
    """A command under way.

    `outcome` comes to be the reply's value (JSON), or b"" at the acknowledgement where no replies are read; it fails
    with `NotSent` and other `TidemarkError`s. `acknowledged`: the broker has the command. `size` is in bytes.
    """

    number: int
    partition: int
    record: Outgoing
    size: int
    outcome: "asyncio.Future[bytes]"
    acknowledged: bool = False


class Sender:
    """Sends commands of one tenant, from `async with` to its end. What has no outcome by then fails."""

    def __init__(self, settings: Settings, tenant: str, *, replies: bool = True, in_flight: int = IN_FLIGHT) -> None:
        self.names = TopicNames.of(settings.topic_prefix, tenant)
        self._settings = settings
        self._replies = replies
        self._prefix = secrets.token_hex(8).encode() + b"-"
        self._number = 0
        self._under_way: dict[int, Sent] = {}
        self._window = _Window(in_flight, _IN_FLIGHT_BYTES)
        self._most_bytes = settings.max_record_bytes + _HEADROOM_BYTES
        self._outbound = Outbound(client_options(settings), compression=None, max_record_bytes=self._most_bytes)
        self._lanes: list[_Lane] = []
        self._consumer: AIOKafkaConsumer | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._failure: TidemarkError | None = None

    # --- from start to end

    async def start(self) -> None:
        """Connect, and find where the replies will be. Raises `BrokerUnreachable` and `TopicMismatch`."""
        standing = (self.names.results, self.names.conflicts) if self._replies else ()
        partitions = await count_partitions(self._settings, [self.names.commands, *standing])
        try:
            await self._outbound.start()
            await self._find_replies({topic: partitions[topic] for topic in standing})
        except KafkaError as error:
            await self.stop()
            raise _named(error, self.names.commands) from None
        except BaseException:
            await self.stop()
            raise
        self._lanes = [_Lane(self, partition) for partition in range(partitions[self.names.commands])]
        self._start_tasks()

    def _start_tasks(self) -> None:
        work = [lane.run() for lane in self._lanes]
        if self._replies:
            work.append(self._read_replies())
        self._tasks = [asyncio.create_task(coroutine) for coroutine in work]
        for task in self._tasks:
            task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not isinstance(error, TidemarkError):
            error = BrokerUnreachable(f"The connection to the broker failed: {error!r}.")
        self._fail(error)

    def _fail(self, error: TidemarkError) -> None:
        """Nothing more will come: whoever waits is told, and whoever comes later."""
        self._failure = error
        for sent in list(self._under_way.values()):
            self.settle(sent, error)

    async def stop(self) -> None:
        """Let go of the connections, and of what has no outcome. May be called twice."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._fail(BrokerUnreachable("The connection was closed before the outcome came."))
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await stop_consumer(consumer)
        await self._outbound.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    # --- commands

    async def send(
        self,
        stream: bytes,
        command: bytes,
        *,
        timestamp_ms: int | None = None,
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> Sent:
        """Put a command in line; waits only where too many are under way already.

        `stream` is its name in UTF-8, `command` its JSON. Raises `NotSent` where it is larger than any broker takes.
        """
        size = len(stream) + len(command)
        if size > self._most_bytes:
            raise NotSent(f"A command of {size:,} bytes is too large to be sent; about {self._most_bytes:,} can be.")
        if not self._window.try_enter(size):
            await self._window.enter(size)
        if self._failure is not None:
            self._window.leave(size)
            raise self._failure
        self._number += 1
        correlated: Headers = [*headers, (_CORRELATION, b"%b%d" % (self._prefix, self._number))]
        partition = partition_of(stream, len(self._lanes))
        outcome: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        sent = Sent(self._number, partition, (stream, command, correlated, timestamp_ms), size, outcome)
        self._under_way[sent.number] = sent
        self._lanes[partition].put(sent)
        return sent

    def send_again(self, sent: Sent) -> None:
        """Send the very same record once more; the first reply counts."""
        if sent.number in self._under_way:
            sent.acknowledged = False
            self._lanes[sent.partition].put(sent)

    def forget(self, sent: Sent) -> None:
        """Wait no longer for an outcome."""
        if self._under_way.pop(sent.number, None) is not None:
            self._window.leave(sent.size)
            sent.outcome.cancel()

    def settle(self, sent: Sent, outcome: bytes | TidemarkError) -> None:
        """The outcome is there, or it is sure that there will be none."""
        if self._under_way.pop(sent.number, None) is None:
            return
        self._window.leave(sent.size)
        if sent.outcome.done():
            return
        if isinstance(outcome, bytes):
            sent.outcome.set_result(outcome)
        else:
            sent.outcome.set_exception(outcome)
            # Whoever gave up waiting doesn't look: that is no fault to report.
            sent.outcome.exception()

    def acknowledged(self, batch: Sequence[Sent]) -> None:
        """The broker has these commands."""
        for sent in batch:
            sent.acknowledged = True
            if not self._replies:
                self.settle(sent, b"")

    async def send_batch(self, partition: int, batch: Sequence[Sent]) -> int:
        """Send as many as one batch holds. Raises aiokafka's errors."""
        return await self._outbound.send_batch(self.names.commands, partition, [sent.record for sent in batch])

    # --- replies

    async def _find_replies(self, topics: Mapping[str, int]) -> None:
        standing = [
            TopicPartition(topic, number) for topic, partitions in topics.items() for number in range(partitions)
        ]
        if not standing:
            return
        consumer = self._consumer = AIOKafkaConsumer(
            **client_options(self._settings),
            enable_auto_commit=False,
            auto_offset_reset="latest",
            max_partition_fetch_bytes=_FETCH_BYTES,
        )
        await consumer.start()
        consumer.assign(standing)
        for place, end in (await consumer.end_offsets(standing)).items():
            consumer.seek(place, end)

    async def _read_replies(self) -> None:
        assert self._consumer is not None
        while True:
            try:
                fetched = await self._consumer.getmany(timeout_ms=_WAIT_MS)
            except KafkaError as error:
                if isinstance(error, _REFUSALS):
                    raise _named(error, self.names.results) from None
                await asyncio.sleep(_RETRY_FIRST_S)
                continue
            for records in fetched.values():
                for record in records:
                    self._answer(record)

    def _answer(self, record: ConsumerRecord) -> None:
        for name, value in record.headers:
            if name in _ECHOED and value is not None and value.startswith(self._prefix):
                sent = self._under_way.get(int(value[len(self._prefix) :]))
                if sent is not None:
                    self.settle(sent, record.value)
                return


class _Lane:
    """One partition's commands, in order."""

    def __init__(self, sender: Sender, partition: int) -> None:
        self._sender = sender
        self._partition = partition
        self._waiting: deque[Sent] = deque()
        self._wake = asyncio.Event()

    def put(self, sent: Sent) -> None:
        self._waiting.append(sent)
        self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._send_all(self._take())

    def _take(self) -> list[Sent]:
        count = min(len(self._waiting), _LANE_RECORDS)
        taken = (self._waiting.popleft() for _ in range(count))
        return [sent for sent in taken if not sent.outcome.done()]

    async def _send_all(self, batch: list[Sent]) -> None:
        """Send until all are acknowledged or refused; only the cancelling of the lane ends the trying."""
        pause_s = _RETRY_FIRST_S
        most = len(batch)
        while batch:
            try:
                count = await self._sender.send_batch(self._partition, batch[:most])
            except _REFUSALS as error:
                if most > 1:
                    # One record is enough for the broker to refuse a batch: alone, each has its own answer.
                    most = 1
                    continue
                self._sender.settle(batch.pop(0), _named(error, self._sender.names.commands))
            except KafkaError:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _RETRY_MOST_S)
            else:
                self._sender.acknowledged(batch[:count])
                del batch[:count]


class _Window:
    """Bounds what is under way, by number and by bytes. Whoever comes first enters first."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._count = 0
        self._bytes = 0
        self._turn = asyncio.Lock()
        self._room = asyncio.Event()

    def _fits(self, size: int) -> bool:
        # One that is larger than the window may enter when it is empty.
        return self._count < self._most and (not self._count or self._bytes + size <= self._most_bytes)

    def try_enter(self, size: int) -> bool:
        if self._turn.locked() or not self._fits(size):
            return False
        self._count += 1
        self._bytes += size
        return True

    async def enter(self, size: int) -> None:
        async with self._turn:
            while not self._fits(size):
                self._room.clear()
                await self._room.wait()
            self._count += 1
            self._bytes += size

    def leave(self, size: int) -> None:
        self._count -= 1
        self._bytes -= size
        self._room.set()


def _named(error: KafkaError, topic: str) -> TidemarkError:
    """A broker's answer in words."""
    if isinstance(error, MessageSizeTooLargeError):
        return NotSent(f"The command is larger than the topic {topic} takes (its max.message.bytes).")
    if isinstance(error, InvalidTimestampError):
        return NotSent(f"The command's timestamp is not one that the topic {topic} takes: it lies ahead or far back.")
    if isinstance(error, TopicAuthorizationFailedError | ClusterAuthorizationFailedError):
        return NotSent(f"This user may not write to or read from {topic}, or its replies: the broker's access rules.")
    if isinstance(error, InvalidTopicError | PolicyViolationError):
        return NotSent(f"The broker refuses records for {topic}: {error or type(error).__name__}.")
    return BrokerUnreachable(f"The broker does not serve the request: {error or type(error).__name__}.")
