"""The work of `tidemark stress`: producers by the clock, readers and checks beside them, and the report."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from functools import partial
from itertools import count, cycle, islice
from uuid import uuid4

import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from hdrh.histogram import HdrHistogram
from msgspec import Struct, structs

from processor.chain import genesis
from processor.cli.frame import say
from processor.cli.stress_checks import Chain, Memory, Replies, Versions, Violations, hole_in
from processor.cli.stress_load import Asked, Mix, Profile, Writer
from processor.cli.stress_report import Report, Sample, progress_line
from processor.codec import decode_outcome
from processor.errors import FeedGap, TidemarkError
from processor.kafka.connection import client_options, reach_broker
from processor.kafka.reading import event_of, read_feed
from processor.messages import Conflict, Log
from processor.names import TopicNames
from processor.partition import partition_of
from processor.settings import Settings
from processor.store import Store
from processor.stores import open_store

_HEADER = "correlation_id"
_MOST_WAITING = 200_000
_SAMPLE_S = 10.0
_CHECK_S = 2.0
_READS_A_SECOND = 10.0
_PAGE = 1_000
_SETTLE_S = 60.0
_POLL_S = 0.05
_PERCENTILES = (50.0, 90.0, 99.0, 99.9, 99.99)
_HOUR_US = 3_600_000_000


class Plan(Struct, frozen=True):
    """What is to be done. pids: processes whose memory is watched, beside this one."""

    profile: Profile
    mix: Mix
    readers: int
    pids: Sequence[int]
    memory_limit_mb: float


class Stress:
    """One run. It ends when its time is over, or when `stop` is called, and then waits for what is still on its way."""

    def __init__(self, settings: Settings, tenant: str, plan: Plan) -> None:
        self._settings = settings
        self._tenant = tenant
        self._plan = plan
        self._run = uuid4().hex[:8]
        self._names = TopicNames.of(settings.topic_prefix, tenant)
        self._stop = asyncio.Event()
        self._interrupted = False
        self._replies = Replies()
        self._versions = Versions()
        self._violations = Violations()
        self._errors: Counter[str] = Counter()
        self._queried: Counter[str] = Counter()
        self._by_partition: Counter[int] = Counter()
        self._checks = 0
        self._checking = asyncio.Lock()
        self._waits, self._lately, self._reads = (HdrHistogram(1, _HOUR_US, 3) for _ in range(3))
        self._numbers = count()
        self._sent = 0
        self._answered = 0
        self._fed = 0
        self._samples: list[Sample] = []
        self._memory = {pid: Memory(plan.memory_limit_mb) for pid in plan.pids}
        self._own_memory = Memory(float("inf"))
        self._begin_s = 0.0
        share = plan.mix.streams // plan.profile.producers or 1
        self._writers = [
            Writer(f"stress-{self._run}-{number}", structs.replace(plan.mix, streams=share), number)
            for number in range(plan.profile.producers)
        ]

    def stop(self) -> None:
        """End early, with the full report."""
        self._interrupted = True
        self._stop.set()

    async def run(self) -> Report:
        """Raises `BrokerUnreachable`, and what opening the store does."""
        await reach_broker(self._settings)
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(self._store())
            chains = await self._chains(store)
            consumer = await stack.enter_async_context(self._reply_consumer())
            producers = [await stack.enter_async_context(self._producer()) for _ in self._writers]
            self._begin_s = time.perf_counter()
            beside = [self._read_replies(consumer), self._read_feed(chains), self._sample()]
            if store is not None:
                beside += [self._check_chains(store, chains)]
                read_from = islice(cycle(self._writers), self._plan.readers)
                beside += [self._read_streams(store, writer) for writer in read_from]
            tasks = [asyncio.create_task(one) for one in beside]
            try:
                await self._watched(tasks, self._produce_all(producers))
                seconds = self._now_s()
                await self._watched(tasks, self._settle(store, chains))
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        self._take_sample()
        return self._report(seconds)

    async def _watched(self, beside: Sequence[asyncio.Task[None]], work: Awaitable[None]) -> None:
        """Do some work; a fault of what goes on beside it ends it."""
        working = asyncio.ensure_future(work)
        try:
            done, _ = await asyncio.wait((working, *beside), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await task
            await working
        finally:
            working.cancel()

    # --- producers

    async def _produce_all(self, producers: Sequence[AIOKafkaProducer]) -> None:
        rate = self._plan.profile.rate / len(producers)
        async with asyncio.TaskGroup() as group:
            for number, (writer, producer) in enumerate(zip(self._writers, producers, strict=True)):
                first_s = number / self._plan.profile.rate
                group.create_task(self._produce(writer, producer, rate, first_s))

    async def _produce(self, writer: Writer, producer: AIOKafkaProducer, rate: float, first_s: float) -> None:
        for number in range(int(self._plan.profile.duration_s * rate)):
            due_s = first_s + number / rate
            if (wait_s := due_s - self._now_s()) > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), wait_s)
            if self._stop.is_set():
                return
            if self._replies.waiting >= _MOST_WAITING:
                self._errors["not sent: too many wait"] += 1
                continue
            await self._send(writer, producer, writer.next(), due_s)

    async def _send(self, writer: Writer, producer: AIOKafkaProducer, asked: Asked, due_s: float) -> None:
        number = next(self._numbers)
        key = asked.stream.encode()
        self._replies.sent(number, asked, due_s)
        self._sent += 1
        header = (_HEADER, f"{self._run}-{self._writers.index(writer)}-{number}".encode())
        try:
            sending = await producer.send(
                self._names.commands,
                asked.value,
                key,
                partition=partition_of(key, self._settings.partitions),
                headers=[header],
            )
        except KafkaError as error:
            self._not_sent(number, error)
        else:
            sending.add_done_callback(partial(self._delivered, number))

    def _delivered(self, number: int, sending: asyncio.Future[object]) -> None:
        if not sending.cancelled() and (error := sending.exception()) is not None:
            self._not_sent(number, error)

    def _not_sent(self, number: int, error: BaseException) -> None:
        self._errors[f"not sent: {type(error).__name__}"] += 1
        self._replies.given_up(number)

    # --- what comes back

    async def _read_replies(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            try:
                fetched = await consumer.getmany(timeout_ms=200)
            except KafkaError as error:
                self._errors[f"reading replies: {type(error).__name__}"] += 1
                await asyncio.sleep(1)
                continue
            now_s = self._now_s()
            for records in fetched.values():
                for record in records:
                    ours = self._ours(dict(record.headers).get(_HEADER) or b"")
                    if ours is not None:
                        self._answer(*ours, record.value, now_s)

    def _ours(self, text: bytes) -> tuple[Writer, int] | None:
        run, _, rest = text.decode(errors="replace").partition("-")
        if run != self._run:
            return None
        writer, _, number = rest.partition("-")
        return self._writers[int(writer)], int(number)

    def _answer(self, writer: Writer, number: int, value: bytes, now_s: float) -> None:
        outcome = decode_outcome(value)
        due_s, wrong = self._replies.answered(number, outcome)
        if due_s is not None:
            self._answered += 1
            for histogram in (self._waits, self._lately):
                histogram.record_value(min(_HOUR_US, max(1, int((now_s - due_s) * 1e6))))
        if wrong is not None and isinstance(outcome, Conflict) and self._lost_commands:
            # What was sent behind a command that got lost meets a version that it did not reckon with.
            writer.set_version(str(outcome.stream), outcome.actual_version)
            self._errors["conflict behind a lost command"] += 1
            return
        self._judge(wrong)

    @property
    def _lost_commands(self) -> bool:
        return any(error.startswith("not sent: ") for error in self._errors)

    async def _read_feed(self, chains: Mapping[Log, Chain]) -> None:
        after = {log.partition: chain.position for log, chain in chains.items()}
        pages = read_feed(self._settings, self._tenant, after=after)
        try:
            async with aclosing(pages):
                async for records in pages:
                    self._queried["from the feed"] += len(records)
                    for record in records:
                        event = event_of(record)
                        if event.stream.startswith(f"stress-{self._run}-"):
                            self._fed += 1
                            self._by_partition[event.partition] += 1
                            self._judge(self._versions.seen(event.stream, event.version))
        except FeedGap as gap:
            self._violations.add(str(gap))
            await asyncio.Event().wait()

    # --- the store

    async def _check_chains(self, store: Store, chains: Mapping[Log, Chain]) -> None:
        while True:
            await asyncio.sleep(_CHECK_S)
            await self._tried("checking the store", self._check_chains_once(store, chains))

    async def _check_chains_once(self, store: Store, chains: Mapping[Log, Chain]) -> None:
        async with self._checking:
            for log, chain in chains.items():
                while events := await store.read_log(log, chain.position, _PAGE):
                    self._queried["from the store"] += len(events)
                    self._checks += len(events)
                    for wrong in chain.seen(events):
                        self._violations.add(wrong)

    async def _read_streams(self, store: Store, writer: Writer) -> None:
        for number in count():
            await asyncio.sleep(max(0.0, (number + 1) / _READS_A_SECOND - self._now_s()))
            await self._tried("reading a stream", self._read_stream(store, *writer.some_stream()))

    async def _read_stream(self, store: Store, stream: str, version: int) -> None:
        after = max(0, version - _PAGE // 10)
        log = Log(self._tenant, partition_of(stream.encode(), self._settings.partitions))
        begin_s = time.perf_counter()
        events = await store.read_stream(log, stream, after, _PAGE)
        self._reads.record_value(max(1, int((time.perf_counter() - begin_s) * 1e6)))
        self._queried["from the store"] += len(events)
        self._judge(hole_in(stream, after, events))

    async def _tried(self, what: str, work: Awaitable[None]) -> None:
        try:
            await work
        except TidemarkError as error:
            self._errors[f"{what}: {type(error).__name__}"] += 1
            await asyncio.sleep(1)

    # --- beside

    async def _sample(self) -> None:
        for number in count(1):
            await asyncio.sleep(max(0.0, number * _SAMPLE_S - self._now_s()))
            self._take_sample()
            last = self._samples[-1]
            used_mb = max((memory.samples[-1][1] for memory in self._memory.values() if memory.samples), default=0.0)
            say(progress_line(last, self._violations.count, used_mb))

    def _take_sample(self) -> None:
        at_s = self._now_s()
        p99_ms = self._lately.get_value_at_percentile(99) / 1000
        self._lately.reset()
        self._samples.append(Sample(at_s, self._sent, self._answered, self._replies.waiting, p99_ms))
        self._own_memory.seen(at_s, _memory_mb(os.getpid()))
        for pid, memory in self._memory.items():
            try:
                self._judge(memory.seen(at_s, _memory_mb(pid)))
            except psutil.NoSuchProcess:
                self._errors[f"process {pid} is gone"] += 1

    async def _settle(self, store: Store | None, chains: Mapping[Log, Chain]) -> None:
        """Wait for what is on its way, and look at what should be there in the end."""
        outcomes = self._replies.outcomes
        await _until(lambda: not self._replies.waiting, _SETTLE_S)
        if self._replies.waiting:
            self._violations.add(f"{self._replies.waiting} commands have no reply {_SETTLE_S:.0f} s after the last one")
        await _until(lambda: self._fed >= outcomes["accepted"], _SETTLE_S)
        accepted = outcomes["accepted"]
        # A command that the producer gave up may have come through all the same.
        fits = self._fed >= accepted if self._lost_commands else self._fed == accepted
        self._judge(None if fits else f"{accepted} events were accepted, {self._fed} are on the feed")
        if store is not None:
            watermarks = await store.checkpoints()
            await self._check_chains_once(store, chains)
            for log, chain in chains.items():
                at = watermarks[log].next_position - 1 if log in watermarks else 0
                self._judge(None if chain.position >= at else f"{log}: events end at {chain.position}, not at {at}")

    def _judge(self, wrong: str | None) -> None:
        if wrong is None:
            self._checks += 1
        else:
            self._violations.add(wrong)

    def _now_s(self) -> float:
        return time.perf_counter() - self._begin_s

    def _report(self, seconds: float) -> Report:
        plan, events = self._plan, self._by_partition
        mean = events.total() / self._settings.partitions
        watched = {f"{pid}": memory for pid, memory in self._memory.items()} | {"tidemark stress": self._own_memory}
        return Report(
            settings={**plan.profile._asdict(), **structs.asdict(plan.mix), "readers": plan.readers},
            seconds=seconds,
            interrupted=self._interrupted,
            sent=self._sent,
            ingested=self._replies.outcomes["accepted"],
            queried=dict(self._queried),
            outcomes=dict(self._replies.outcomes),
            checks_passed=self._checks,
            violations=self._violations.count,
            first_violations=list(self._violations.first),
            errors=dict(self._errors),
            imbalance=max(events.values(), default=0) / mean if mean else 0.0,
            latency_ms=_percentiles(self._waits),
            read_ms=_percentiles(self._reads),
            memory_mb={name: memory.samples for name, memory in watched.items() if memory.samples},
            samples=self._samples,
        )

    # --- connections

    @asynccontextmanager
    async def _store(self) -> AsyncIterator[Store | None]:
        """The store to look into; none where it is within the worker."""
        settings = self._settings
        if settings.store == "memory:":
            yield None
            return
        store = open_store(settings.store, partitions=settings.partitions, read_only=True)
        await store.open()
        try:
            yield store
        finally:
            await store.close()

    async def _chains(self, store: Store | None) -> dict[Log, Chain]:
        """Each log from where it is now; a store in memory is followed by its feed alone, from the beginning."""
        there = await store.checkpoints() if store is not None else {}
        chains = {}
        for partition in range(self._settings.partitions):
            log = Log(self._tenant, partition)
            now = there.get(log)
            chains[log] = Chain(log, now.next_position - 1, now.chain) if now else Chain(log, 0, genesis(log))
        return chains

    @asynccontextmanager
    async def _reply_consumer(self) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(**client_options(self._settings), enable_auto_commit=False, fetch_max_wait_ms=20)
        await consumer.start()
        try:
            places = [
                TopicPartition(topic, partition)
                for topic in (self._names.results, self._names.conflicts)
                for partition in range(self._settings.partitions)
            ]
            consumer.assign(places)
            for place, end in (await consumer.end_offsets(places)).items():
                consumer.seek(place, end)
            yield consumer
        finally:
            await consumer.stop()

    @asynccontextmanager
    async def _producer(self) -> AsyncIterator[AIOKafkaProducer]:
        producer = AIOKafkaProducer(**client_options(self._settings), enable_idempotence=True, acks="all")
        await producer.start()
        try:
            yield producer
        finally:
            await producer.stop()


def _memory_mb(pid: int) -> float:
    used: int = psutil.Process(pid).memory_info().rss
    return used / 1e6


def _percentiles(histogram: HdrHistogram) -> dict[str, float]:
    if not histogram.get_total_count():
        return {}
    found = {f"p{share:g}": histogram.get_value_at_percentile(share) / 1000 for share in _PERCENTILES}
    return {**found, "max": histogram.get_max_value() / 1000}


async def _until(holds: Callable[[], bool], longest_s: float) -> None:
    for _ in range(int(longest_s / _POLL_S)):
        if holds():
            return
        await asyncio.sleep(_POLL_S)


async def stopped_by_signals(stress: Stress) -> Report:
    """Run it; SIGINT and SIGTERM end it early."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stress.stop)
    try:
        return await stress.run()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
