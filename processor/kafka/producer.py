"""An idempotent producer of ready-made batches: one under way for each partition, all that is ready in one request.

aiokafka's own has, for each batch, an object with three futures, and one request at a time for each broker, whose bytes
are copied half a dozen times on their way: for a record or two in each batch, as under a light load, that is much of
what publishing costs.

The protocol is that of KIP-98. A batch carries the producer's id and the number of its first record, the same ones
however often it is sent, so a broker that has it already says so instead of taking it twice. With one batch under way
for each partition, no other one can be between two tries.
"""

import asyncio
import struct
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import structlog
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    DuplicateSequenceNumber,
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    KafkaConnectionError,
    KafkaError,
    LeaderNotAvailableError,
    NoError,
    OutOfOrderSequenceNumber,
    ProducerClosed,
    TopicAuthorizationFailedError,
    UnknownProducerId,
    for_code,
)
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest

logger = structlog.get_logger(__name__)

# The broker and the producer disagree on what was sent: only another producer id, with a new sequence, goes on.
_SPENT = (InvalidProducerEpoch, InvalidProducerIdMapping, OutOfOrderSequenceNumber, UnknownProducerId)
_RETRY_S = 0.1
# Less than a broker takes, whatever the number of partitions; and it has something to do while more are laid out.
_REQUEST_BYTES = 1024 * 1024
_ALL = -1
_NO_TRANSACTION = 2**31 - 1
_LAST_SEQUENCE = 2**31 - 1

_REQUEST = struct.Struct(">hhii")
_COUNT = struct.Struct(">i")
_LENGTH = struct.Struct(">h")
_PARTITION = struct.Struct(">ii")


class _Identity(NamedTuple):
    producer_id: int
    epoch: int


class _Sending:
    """A batch on its way. Once it has been sent, `data` stays what it is, and `identity` whom it is of."""

    __slots__ = ("acknowledged", "batch", "data", "identity", "place", "since_s")

    def __init__(self, place: TopicPartition, batch: BatchBuilder, acknowledged: "asyncio.Future[None]") -> None:
        self.place = place
        self.batch = batch
        self.acknowledged = acknowledged
        self.data: bytes | None = None
        self.identity: _Identity | None = None
        self.since_s = acknowledged.get_loop().time()

    @property
    def is_void(self) -> bool:
        """Whether nobody waits for it, and the broker can't have it."""
        return self.data is None and self.acknowledged.done()

    def end(self, error: BaseException | None) -> None:
        """It is acknowledged, or given up."""
        if self.acknowledged.done():
            return
        if error is None:
            self.acknowledged.set_result(None)
        else:
            self.acknowledged.set_exception(error)
            # Whoever gave up waiting doesn't look: that is no fault to report.
            self.acknowledged.exception()


class _Request(ProduceRequest):  # type: ignore[misc]  # aiokafka has no types
    """A produce request whose bytes are laid out at once, for versions 3 to 7 alike."""

    def __init__(self, timeout_ms: int, sendings: Iterable[_Sending]) -> None:
        super().__init__(None, _ALL, timeout_ms, [])
        self._data = _laid_out(timeout_ms, sendings)

    def build(self, request_struct_class: Any) -> Any:
        built = super().build(request_struct_class)
        built.encode = lambda: self._data
        return built


class BatchProducer:
    """Sends each batch until it is acknowledged or refused, whatever becomes of brokers and leaders meanwhile.

    `options`: what aiokafka's client takes, `request_timeout_ms` among it. `on_retry` is called when something is sent
    again.
    """

    def __init__(self, options: dict[str, Any], on_retry: Callable[[], None] = lambda: None) -> None:
        self._options = options
        self._on_retry = on_retry
        self._client: AIOKafkaClient | None = None
        self._timeout_ms: int = options.get("request_timeout_ms", 40_000)
        self._identity: _Identity | None = None
        self._sequences: defaultdict[TopicPartition, int] = defaultdict(int)
        self._lines: dict[TopicPartition, deque[_Sending]] = {}
        self._ready: dict[TopicPartition, None] = {}
        self._flushing = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Connect, and get an id. Raises aiokafka's errors."""
        self._client = AIOKafkaClient(**self._options)
        await self._client.bootstrap()
        while self._identity is None:
            try:
                self._identity = await self._identify()
            except KafkaError as error:
                if not error.retriable:
                    raise
                await asyncio.sleep(_RETRY_S)

    async def stop(self) -> None:
        """Let go of the connections; what is not acknowledged fails with `ProducerClosed`."""
        client, self._client, self._identity = self._client, None, None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._give_up(ProducerClosed())
        if client is not None:
            await client.close()

    def _give_up(self, error: BaseException) -> None:
        for line in self._lines.values():
            for sending in line:
                sending.end(error)
        self._lines.clear()

    @property
    def _live(self) -> AIOKafkaClient:
        if self._client is None:
            raise ProducerClosed
        return self._client

    def send(self, topic: str, partition: int, batch: BatchBuilder) -> "asyncio.Future[None]":
        """Send a closed batch; what is returned is done when it is acknowledged, and fails with aiokafka's errors.

        Cancelled before the batch was sent, it is not.
        """
        place = TopicPartition(topic, partition)
        sending = _Sending(place, batch, asyncio.get_running_loop().create_future())
        if self._client is None:
            sending.end(ProducerClosed())
            return sending.acknowledged
        line = self._lines.setdefault(place, deque())
        line.append(sending)
        if len(line) == 1:
            self._is_ready(place)
        return sending.acknowledged

    # --- what goes out together

    def _is_ready(self, place: TopicPartition) -> None:
        """The first in this partition's line may be sent: with all that come to be ready in this turn of the loop."""
        self._ready[place] = None
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flushing and self._identity is not None:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._identity is None:
            return
        by_leader: defaultdict[int, list[_Sending]] = defaultdict(list)
        astray: list[_Sending] = []
        for place in self._ready:
            sending = self._first(place)
            if sending is None:
                continue
            leader = self._leader(place)
            if leader is None:
                astray.append(sending)
            else:
                self._number(sending, self._identity)
                by_leader[leader].append(sending)
        self._ready.clear()
        for leader, sendings in by_leader.items():
            for together in _by_request(sendings):
                self._begin(self._request(leader, together))
        if astray:
            self._begin(self._find(astray))

    def _leader(self, place: TopicPartition) -> int | None:
        leader: int | None = self._live.cluster.leader_for_partition(place)
        return leader if leader is not None and leader >= 0 else None

    def _first(self, place: TopicPartition) -> _Sending | None:
        """Which of this partition's line is to be sent, past those that nobody waits for."""
        line = self._lines.get(place, deque())
        while line and line[0].is_void:
            line.popleft()
        if line:
            return line[0]
        self._lines.pop(place, None)
        return None

    def _number(self, sending: _Sending, identity: _Identity) -> None:
        """Give a batch that is sent for the first time its place in the sequence."""
        if sending.data is None:
            first = self._sequences[sending.place]
            sending.batch._set_producer_state(*identity, first)  # noqa: SLF001  # there is no other way to it
            sending.data = bytes(sending.batch._build())  # noqa: SLF001
            sending.identity = identity
            self._sequences[sending.place] = (first + sending.batch.record_count()) & _LAST_SEQUENCE

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Whatever this is, nobody is to wait for ever.
            self._give_up(error)

    # --- requests and their answers

    async def _request(self, leader: int, sendings: Sequence[_Sending]) -> None:
        """Send these to their broker once, and again those that it would not have yet."""
        left = {sending.place: sending for sending in sendings}
        try:
            response = await self._live.send(leader, _Request(self._timeout_ms, sendings))
        except KafkaError as error:
            self._failed(sendings, error)
        else:
            for topic, answers in response.topics:
                for partition, error_code, *_ in answers:
                    self._answered(left.pop(TopicPartition(topic, partition)), for_code(error_code))
        again = [sending for sending in sendings if self._is_first(sending)]
        if again:
            await asyncio.sleep(_RETRY_S)
            await self._live._maybe_wait_metadata()  # noqa: SLF001
            for sending in again:
                self._is_ready(sending.place)

    def _answered(self, sending: _Sending, error: type[KafkaError]) -> None:
        if error in (NoError, DuplicateSequenceNumber):
            self._finish(sending, None)
        elif error is TopicAuthorizationFailedError:
            self._failed([sending], error(sending.place.topic))
        else:
            self._failed([sending], error())

    def _failed(self, sendings: Sequence[_Sending], error: KafkaError) -> None:
        """What can be tried again stays the first of its line."""
        if getattr(error, "invalid_metadata", False):
            self._live.force_metadata_update()
        if error.retriable:
            self._on_retry()
            place = sendings[0].place
            logger.warning(
                "not acknowledged yet, sent again",
                topic=place.topic,
                partition=place.partition,
                batches=len(sendings),
                error=repr(error),
            )
            return
        for sending in sendings:
            if isinstance(error, _SPENT) and sending.identity == self._identity:
                self._identity = None
                self._begin(self._renew())
            self._finish(sending, error)

    def _is_first(self, sending: _Sending) -> bool:
        line = self._lines.get(sending.place)
        return line is not None and line[0] is sending

    def _finish(self, sending: _Sending, error: BaseException | None) -> None:
        """It is acknowledged, or given up: the next of its line may go."""
        sending.end(error)
        if not self._is_first(sending):
            return
        line = self._lines[sending.place]
        line.popleft()
        if line:
            self._is_ready(sending.place)
        else:
            del self._lines[sending.place]

    async def _find(self, astray: Sequence[_Sending]) -> None:
        """Look for the leaders of these once more. One that was never sent fails when that takes too long."""
        for sending in astray:
            self._live.add_topic(sending.place.topic)
        await self._live.force_metadata_update()
        now_s = asyncio.get_running_loop().time()
        for sending in astray:
            topic = sending.place.topic
            if topic in self._live.cluster.unauthorized_topics:
                self._finish(sending, TopicAuthorizationFailedError(topic))
            elif sending.data is None and now_s - sending.since_s > self._timeout_ms / 1_000:
                self._finish(sending, LeaderNotAvailableError(f"no broker leads {topic} [{sending.place.partition}]"))
        if not any(self._leader(sending.place) is not None for sending in astray):
            await asyncio.sleep(_RETRY_S)
        for sending in astray:
            if self._is_first(sending):
                self._is_ready(sending.place)

    # --- who sends

    async def _identify(self) -> _Identity:
        node = self._live.get_random_node()
        if node is None:
            raise KafkaConnectionError("no broker is known")
        response = await self._live.send(node, InitProducerIdRequest(None, _NO_TRANSACTION))
        error = for_code(response.error_code)
        if error is not NoError:
            raise error
        return _Identity(response.producer_id, response.producer_epoch)

    async def _renew(self) -> None:
        """Go on under a new id. What was sent under the old one keeps it, until it is acknowledged or refused."""
        identity: _Identity | None = None
        while identity is None:
            try:
                identity = await self._identify()
            except KafkaError as error:
                logger.warning("no producer id yet, asking again", error=repr(error))
                await self._live.force_metadata_update()
                await asyncio.sleep(_RETRY_S)
        self._sequences.clear()
        self._identity = identity
        self._flush_soon()


def _by_request(sendings: Iterable[_Sending]) -> Iterator[list[_Sending]]:
    """In order, so many together that a request is not larger than it should be."""
    together: list[_Sending] = []
    size = 0
    for sending in sendings:
        size += len(sending.data or b"")
        if together and size > _REQUEST_BYTES:
            yield together
            together, size = [], len(sending.data or b"")
        together.append(sending)
    yield together


def _laid_out(timeout_ms: int, sendings: Iterable[_Sending]) -> bytes:
    """A produce request's body: https://kafka.apache.org/protocol#The_Messages_Produce ."""
    topics: defaultdict[str, list[_Sending]] = defaultdict(list)
    for sending in sendings:
        topics[sending.place.topic].append(sending)
    parts = [_REQUEST.pack(-1, _ALL, timeout_ms, len(topics))]
    for topic, of_topic in topics.items():
        name = topic.encode()
        parts += (_LENGTH.pack(len(name)), name, _COUNT.pack(len(of_topic)))
        for sending in of_topic:
            data = sending.data
            assert data is not None
            parts += (_PARTITION.pack(sending.place.partition, len(data)), data)
    return b"".join(parts)
