"""A Faust transport that hands on slices: one message for all the records of a topic in a fetch, a slice per partition.

Faust's cost is per message: two tasks and several turns of the event loop. With a whole fetch as the message, its
agents, assignment and group membership stay, the cost per record is that of the fetch, and all that came together is
there for one cycle. What this transport changes, besides:

- Records are fetched only for the logs that want them, so nothing piles up behind a log that stands still.
- Where to read is the store's to say, not the group's committed offsets: nothing is fetched for a log before `seek`.
- A slice knows the offsets that it spans and the seek it came after, so that a hole is found and a stale one dropped.
- Fetching has no thread of its own. Beside one, each slice passes between two event loops, and whoever has to compute
  waits for the interpreter's lock time and again: at 200 commands/s that was half of what a command took.

Each class overrides the one of Faust 0.15 with the same name; what is not overridden is Faust's.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import isawaitable
from typing import Any, NamedTuple, Protocol, cast

import aiokafka
import structlog
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import IllegalStateError, KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError
from aiokafka.structs import OffsetAndMetadata
from faust import Service, ServiceT
from faust.serializers.schemas import Schema
from faust.transport.drivers import TRANSPORTS
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, AppT, ConsumerMessage
from faust.types.tuples import Message

from processor.kafka.assignor import LoadAssignor, LoadsByTopic
from processor.kafka.connection import stop_consumer
from processor.kafka.pace import Utilization, rest_ms
from processor.kafka.sessions import FetchSessions
from processor.messages import Log, Record, Slice

logger = structlog.get_logger(__name__)

SCHEME = "tidemark"

_FETCH_WAIT_S = 1.0
_COMMIT_TIMEOUT_S = 5.0
_SOME_LEFT_OUT_WAIT_S = 0.02
_NOT_ACTIVE_WAIT_S = 0.05
_PLENTY_BYTES = 256 * 1024


class Fetched(NamedTuple):
    """Where the fetching of a partition is: the broker's end, the next offset to fetch, the end of the last slice."""

    end: int
    position: int
    handed: int


class SliceHost(Protocol):
    """What the transport asks of the app it belongs to."""

    consumer_options: dict[str, Any]

    def log_of(self, topic: str, partition: int) -> Log:
        """The log that a partition of a commands topic is."""
        ...

    async def wants_records(self, tps: set[TP]) -> set[TP]:
        """The partitions to fetch now; where there is none, waits a while until there may be some."""
        ...

    def on_out_of_range(self, log: Log, offset: int) -> None:
        """The broker has nothing at the offset that is next."""
        ...

    def loads_by_topic(self) -> LoadsByTopic:
        """What came in lately on the partitions that were assigned."""
        ...


class _Results(OrderedDict[TopicPartition, Any]):
    """What a fetcher has received, to be handed out as the records that aiokafka reads.

    Making a `ConsumerRecord` of each takes as long as all else there is to fetching it.
    """

    def __setitem__(self, tp: TopicPartition, result: Any) -> None:
        if isinstance(result, FetchResult):
            result._partition_records._consumer_record = _as_read
        super().__setitem__(tp, result)


def _as_read(tp: TopicPartition, record: Record) -> Record:
    return record


class SliceReader(driver.AIOKafkaConsumerThread):
    """What Faust runs as the consumer's thread, on the main loop: fetching, heartbeats, and seeks by number."""

    logger = driver.logger
    wait_for_shutdown = False
    start = Service.start
    maybe_start = Service.maybe_start
    stop = Service.stop
    crash = Service.crash  # type: ignore[assignment]  # with another name for its parameter
    _stopped_set = Service._stopped_set
    _stop_children = Service._stop_children
    _stop_futures = Service._stop_futures
    _stop_exit_stacks = Service._stop_exit_stacks

    def __post_init__(self) -> None:
        super().__post_init__()
        # Per partition, the number of its last seek and where the next slice begins.
        self._spans: dict[TP, tuple[int, int]] = {}
        self._host = cast(SliceHost, self.app)
        self._utilization = Utilization()

    async def on_start(self) -> None:
        """Connect; from then on, records are handed out as they were read, and asked for in sessions."""
        await super().on_start()
        fetcher = self._ensure_consumer()._fetcher
        fetcher._records = _Results()
        fetcher._client = FetchSessions(fetcher._client)

    async def on_stop(self) -> None:
        """Leave the group, and disconnect."""
        if self._consumer is not None:
            await stop_consumer(self._consumer)

    async def call_thread(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call it, and wait for what comes of it."""
        found = fun(*args, **kwargs)
        return await found if isawaitable(found) else found

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        self._assignor = LoadAssignor(self._host.loads_by_topic)
        return aiokafka.AIOKafkaConsumer(
            **self._host.consumer_options,
            enable_auto_commit=False,
            # An offset that the broker doesn't have is a misfit to be told, never a reason to read elsewhere.
            auto_offset_reset="none",
            isolation_level="read_committed",
            partition_assignment_strategy=[self._assignor],
        )

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust's check looks at its own acknowledgements, which are not used."""

    async def _fetch_records(
        self, consumer: aiokafka.AIOKafkaConsumer, active_partitions: set[TP], timeout: float | None = None,
        max_records: int | None = None,
    ) -> Any:  # fmt: skip
        sought = {tp for tp in active_partitions if tp in self._spans}
        if not sought:
            await asyncio.sleep(_SOME_LEFT_OUT_WAIT_S)
            return {}
        try:
            fetched = await super()._fetch_records(consumer, sought, timeout=timeout, max_records=max_records)
        except OffsetOutOfRangeError as error:
            self._report_out_of_range(error)
            return {}
        except NoOffsetForPartitionError:
            return {}
        except KafkaError as error:
            logger.warning("a fetch failed, trying again", error=repr(error))
            await asyncio.sleep(_FETCH_WAIT_S)
            return {}
        self._pace(consumer, len(fetched))
        return self._by_topic(consumer, fetched)

    def _pace(self, consumer: aiokafka.AIOKafkaConsumer, slices: int) -> None:
        """Let the broker gather records for the next fetch; aiokafka has no way to change this while it runs."""
        rest = int(rest_ms(slices, self._utilization.share))
        fetcher = consumer._fetcher
        fetcher._fetch_min_bytes = _PLENTY_BYTES if rest else 1
        fetcher._fetch_max_wait_ms = rest or self._host.consumer_options["fetch_max_wait_ms"]

    def _by_topic(
        self, consumer: aiokafka.AIOKafkaConsumer, fetched: Mapping[TopicPartition, list[Record]]
    ) -> dict[TP, list[Sequence[Slice]]]:
        """For each topic one message, which finds its agent by the first of its partitions."""
        slices: dict[str, list[tuple[TP, Slice]]] = {}
        for place, records in fetched.items():
            tp = TP(*place)
            # A seek can be forgotten while a fetch is under way.
            if (span := self._spans.get(tp)) is not None:
                slices.setdefault(tp.topic, []).append((tp, self._slice(consumer, tp, span, records)))
        return {of_topic[0][0]: [[piece for _, piece in of_topic]] for of_topic in slices.values()}

    def _slice(
        self, consumer: aiokafka.AIOKafkaConsumer, tp: TP, span: tuple[int, int], records: list[Record]
    ) -> Slice:
        number, begin = span
        position = self._position(consumer, tp)
        end = records[-1].offset + 1 if position is None else position
        self._spans[tp] = number, end
        return Slice(self._host.log_of(tp.topic, tp.partition), number, begin, end, records)

    def _position(self, consumer: aiokafka.AIOKafkaConsumer, tp: TP) -> int | None:
        """The next offset to be handed out, without waiting; None while it isn't known."""
        subscription = consumer._subscription.subscription
        assignment = subscription.assignment if subscription is not None else None
        if assignment is None or tp not in assignment.tps:
            return None
        state = assignment.state_value(TopicPartition(*tp))
        return cast(int, state.position) if state is not None and state.has_valid_position else None

    def _report_out_of_range(self, error: OffsetOutOfRangeError) -> None:
        for tp in error.args[0]:
            self._spans.pop(TP(*tp), None)
            self._host.on_out_of_range(self._host.log_of(*tp), error.args[0][tp])

    async def seek_slices(self, seeks: Mapping[TP, tuple[int, int]]) -> set[TP]:
        """Read on from the given offsets; returns the partitions that are no longer assigned. By number and offset."""
        gone: set[TP] = set()
        for tp, (number, offset) in seeks.items():
            try:
                self._ensure_consumer().seek(TopicPartition(*tp), offset)
                self._spans[tp] = number, offset
            except IllegalStateError:
                gone.add(tp)
        return gone

    async def check_membership(self) -> None:
        """Raises a `KafkaError` where the group's coordination has ended; a fault that it may get over is only said."""
        coordinator = self._ensure_consumer()._coordinator
        try:
            coordinator.check_errors()
        except KafkaError as error:
            if coordinator._coordination_task.done():
                raise
            logger.warning("the group can't be joined yet, trying again", error=repr(error))

    def forget_seeks(self, tps: Iterable[TP]) -> None:
        """Fetch nothing more for these partitions until they are sought again."""
        for tp in tps:
            self._spans.pop(tp, None)

    async def fetched(self, tps: Iterable[TP]) -> dict[TP, Fetched]:
        """How far each is, of those that are sought. Raises aiokafka's errors."""
        consumer = self._ensure_consumer()
        ends = await consumer.end_offsets([TopicPartition(*tp) for tp in tps if tp in self._spans])
        return {
            TP(*tp): Fetched(end, position, self._spans[TP(*tp)][1])
            for tp, end in ends.items()
            if TP(*tp) in self._spans and (position := self._position(consumer, TP(*tp))) is not None
        }

    async def committed_offsets(self, tps: Iterable[TP]) -> dict[TP, int | None]:
        """The group's committed offsets."""
        consumer = self._ensure_consumer()
        return {tp: await consumer.committed(TopicPartition(*tp)) for tp in tps}

    async def commit_offsets(self, offsets: Mapping[TP, int]) -> bool:
        """Commit for lag tools; nothing rests on it, so a failure is only said. Returns whether it is done."""
        assigned = self.assignment()
        own = {TopicPartition(*tp): OffsetAndMetadata(offset, "") for tp, offset in offsets.items() if tp in assigned}
        if not own or self.should_stop:
            # The group has taken them back, which the main loop is not told of yet.
            return False
        try:
            # While the coordinator is away, aiokafka would try for ever.
            async with asyncio.timeout(_COMMIT_TIMEOUT_S):
                await self._ensure_consumer().commit(own)
        except (KafkaError, TimeoutError) as error:
            logger.info("offsets were not committed to the group", error=repr(error))
            return False
        return True


class SliceConsumer(driver.Consumer):
    """The consumer as Faust's app sees it."""

    logger = driver.logger
    _thread: SliceReader

    def _new_consumer_thread(self) -> SliceReader:
        return SliceReader(self, loop=self.loop, thread_loop=self.loop, beacon=self.beacon)

    @property
    def reader(self) -> SliceReader:
        """Where seeks and offsets are asked for."""
        return self._thread

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Nothing: each log is sought when it has been claimed, to where the store says."""
        return {}

    async def _drain_messages(self, fetcher: ServiceT) -> None:
        """Hand on what is fetched until the fetcher stops: as Faust's, without the dozen tasks that it has for each."""
        while not self.should_stop and not fetcher.should_stop:
            active = self._get_active_partitions()
            if not self.flow_active or not active:
                await asyncio.sleep(_NOT_ACTIVE_WAIT_S)
                continue
            for tp, fetches in (await self._getmany(active, _FETCH_WAIT_S)).items():
                for fetched in fetches:
                    # Where it has stopped meanwhile, each log is sought anew before there is more.
                    if self.flow_active:
                        await self.callback(self._to_message(tp, fetched))
            # Also where nothing above had to wait, the others have a turn.
            await asyncio.sleep(0)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        wanted = await cast(SliceHost, self.app).wants_records(active_partitions or set())
        if not wanted:
            return {}
        # A partition that is left out now may want records in a moment: don't wait long without it.
        wait_s = _FETCH_WAIT_S if wanted == active_partitions else _SOME_LEFT_OUT_WAIT_S
        return await self._thread.getmany(wanted, wait_s)

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        slices: Sequence[Slice] = record
        return ConsumerMessage(
            tp.topic, tp.partition, slices[0].begin, 0.0, 0, None, None, cast(Any, slices), None, tp=tp,
            generation_id=self.app.consumer_generation_id,
        )  # fmt: skip


class SliceSchema(Schema[None, Sequence[Slice]]):
    """What an agent's stream yields: the slices themselves."""

    def loads_key(self, app: AppT, message: Message, **options: Any) -> None:
        """Slices have no key."""

    def loads_value(self, app: AppT, message: Message, **options: Any) -> Sequence[Slice]:
        """The slices."""
        return cast(Sequence[Slice], message.value)


class SliceTransport(driver.Transport):
    """Registered for `tidemark://` broker addresses."""

    Consumer = SliceConsumer


TRANSPORTS.aliases[SCHEME] = f"{__name__}:{SliceTransport.__name__}"
