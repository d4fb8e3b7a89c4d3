"""The work of `tidemark stress`: producers by the clock, readers and checks beside them, and the report."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from itertools import count, cycle, islice
from uuid import uuid4

import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from hdrh.histogram import HdrHistogram
from msgspec import Struct, structs

from processor.chain import genesis
from processor.cli.frame import say
from processor.cli.stress_checks import CORRUPTIONS, Chain, Check, Checks, Replies, Usage, Versions, hole_in
from processor.cli.stress_load import Asked, Mix, Profile, Writer
from processor.cli.stress_report import Report, Sample, progress_line
from processor.cli.tuning import tune_interpreter
from processor.codec import decode_outcome
from processor.errors import FeedGap, SettingsError, TidemarkError
from processor.kafka.connection import client_options, reach_broker, stop_consumer
from processor.kafka.reading import read_feed
from processor.messages import Conflict, Log
from processor.names import TopicNames
from processor.partition import partition_of
from processor.settings import Settings
from processor.store import Store
from processor.stores import open_store

_HEADER = "correlation_id"
_MOST_WAITING = 200_000
_TICK_S, _LONGEST_SLEEP_S = 0.002, 0.2
_TURN = 64
_SAMPLE_S = 10.0
_CHECK_S = 2.0
_READS_A_SECOND = 10.0
_PAGE, _BACK = 500, 100
_SETTLE_S = 60.0
_POLL_S = 0.05
_PERCENTILES = (50.0, 90.0, 99.0, 99.9, 99.99)
_CURVE = [100 - 100 / 10 ** (step / 8) for step in range(41)]
"""Percentiles that are equally far from each other on an axis that shows how rare a wait is, to 99.999."""
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
        self._prefix = f"stress-{self._run}-"
        self._names = TopicNames.of(settings.topic_prefix, tenant)
        self._stop = asyncio.Event()
        self._interrupted = False
        self._replies = Replies()
        self._versions = Versions()
        self._checks = Checks()
        self._errors: Counter[str] = Counter()
        self._queried: Counter[str] = Counter()
        self._by_partition: Counter[int] = Counter()
        self._checking = asyncio.Lock()
        self._waits, self._lately, self._reads = (HdrHistogram(1, _HOUR_US, 3) for _ in range(3))
        self._numbers = count()
        self._sent = 0
        self._answered = 0
        self._fed = 0
        self._samples: list[Sample] = []
        self._watched = [
            ("worker" if len(plan.pids) == 1 else f"worker {pid}", _process(pid), Usage(plan.memory_limit_mb))
            for pid in plan.pids
        ]
        self._own = "tidemark stress", psutil.Process(), Usage(float("inf"))
        self._begin_s = 0.0
        share = plan.mix.streams // plan.profile.producers or 1
        self._writers = [
            Writer(f"{self._prefix}{number}", structs.replace(plan.mix, streams=share), number)
            for number in range(plan.profile.producers)
        ]

    def stop(self) -> None:
        """End early, with the full report."""
        self._interrupted = True
        self._stop.set()

    async def run(self) -> Report:
        """Raises `BrokerUnreachable`, and what opening the store does."""
        await reach_broker(self._settings)
        tune_interpreter()
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
                await self._guarded(tasks, self._produce_all(producers))
                seconds = self._now_s()
                await self._guarded(tasks, self._settle(store, chains))
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        self._take_sample()
        return self._report(seconds)

    async def _guarded(self, beside: Sequence[asyncio.Task[None]], work: Awaitable[None]) -> None:
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
            if number % _TURN == 0:
                await asyncio.sleep(0)  # whoever is behind the clock lets the others have their turn
            if not await self._due(due_s):
                return
            if self._replies.waiting >= _MOST_WAITING:
                self._errors["not sent: too many wait"] += 1
                continue
            await self._send(writer, producer, writer.next(), due_s)

    async def _due(self, at_s: float) -> bool:
        """Wait until then; whether the run goes on."""
        while (wait_s := at_s - self._now_s()) > 0:
            if self._stop.is_set():
                return False
            await asyncio.sleep(min(max(wait_s, _TICK_S), _LONGEST_SLEEP_S))
        return not self._stop.is_set()

    async def _send(self, writer: Writer, producer: AIOKafkaProducer, asked: Asked, due_s: float) -> None:
        number = next(self._numbers)
        key = asked.stream.encode()
        self._replies.sent(number, asked, due_s)
        self._sent += 1
        header = (_HEADER, f"{self._run}-{writer.number}-{number}".encode())
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
            self._lately.record_value(min(_HOUR_US, max(1, int((now_s - due_s) * 1e6))))
        if wrong is not None and isinstance(outcome, Conflict) and self._lost_commands:
            # What was sent behind a command that got lost meets a version that it did not reckon with.
            writer.set_version(str(outcome.stream), outcome.actual_version)
            self._errors["conflict behind a lost command"] += 1
            return
        self._checks.judge(Check.REPLIES, wrong)

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
                        self._see_fed(record)
        except FeedGap as gap:
            self._checks.failed(Check.FEED, str(gap))
            await asyncio.Event().wait()

    def _see_fed(self, record: ConsumerRecord) -> None:
        headers = dict(record.headers)
        stream = headers["ce_subject"].decode()
        if stream.startswith(self._prefix):
            self._fed += 1
            self._by_partition[record.partition] += 1
            self._checks.judge(Check.FEED, self._versions.seen(stream, int(headers["ce_streamversion"])))

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
                    wrong = list(chain.seen(events))
                    self._checks.passed(Check.STORE, len(events) - min(len(events), len(wrong)))
                    for text in wrong:
                        self._checks.failed(Check.STORE, text)
                    if len(events) < _PAGE:
                        break

    async def _read_streams(self, store: Store, writer: Writer) -> None:
        for number in count():
            await asyncio.sleep(max(0.0, (number + 1) / _READS_A_SECOND - self._now_s()))
            await self._tried("reading a stream", self._read_stream(store, *writer.some_stream()))

    async def _read_stream(self, store: Store, stream: str, version: int) -> None:
        after = max(0, version - _BACK)
        log = Log(self._tenant, partition_of(stream.encode(), self._settings.partitions))
        begin_s = time.perf_counter()
        events = await store.read_stream(log, stream, after, _PAGE)
        self._reads.record_value(max(1, int((time.perf_counter() - begin_s) * 1e6)))
        self._queried["from the store"] += len(events)
        self._checks.judge(Check.STREAMS, hole_in(stream, after, events))

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
            used_mb = max((usage.memory_mb[-1][1] for _, _, usage in self._watched if usage.memory_mb), default=0.0)
            say(progress_line(last, self._checks.violations, used_mb))

    def _take_sample(self) -> None:
        at_s, lately = self._now_s(), self._lately
        p50_ms, p99_ms = (lately.get_value_at_percentile(share) / 1000 for share in (50, 99))
        self._waits.add(lately)
        lately.reset()
        fed, stored = self._queried["from the feed"], self._queried["from the store"]
        sample = Sample(at_s, self._sent, self._answered, self._replies.waiting, p50_ms, p99_ms, fed, stored)
        self._samples.append(sample)
        _look(*self._own, at_s)
        for name, process, usage in self._watched:
            try:
                self._checks.judge(Check.MEMORY, _look(name, process, usage, at_s))
            except psutil.NoSuchProcess:
                self._errors[f"process {process.pid} is gone"] += 1

    async def _settle(self, store: Store | None, chains: Mapping[Log, Chain]) -> None:
        """Wait for what is on its way, and look at what should be there in the end."""
        await _while_it_moves(lambda: self._replies.waiting)
        waiting = self._replies.waiting
        late = f"{waiting} commands have no reply {_SETTLE_S:.0f} s after the last one" if waiting else None
        self._checks.judge(Check.END, late)
        await _while_it_moves(lambda: self._ingested - self._fed)
        accepted = self._ingested
        # A command that the producer gave up may have come through all the same.
        fits = self._fed >= accepted if self._lost_commands else self._fed == accepted
        wrong = None if fits else f"{accepted} events were accepted, {self._fed} are on the feed"
        self._checks.judge(Check.END, wrong)
        if store is not None:
            watermarks = await store.checkpoints()
            await self._check_chains_once(store, chains)
            for log, chain in chains.items():
                at = watermarks[log].next_position - 1 if log in watermarks else 0
                short = None if chain.position >= at else f"{log}: events end at {chain.position}, not at {at}"
                self._checks.judge(Check.END, short)

    @property
    def _ingested(self) -> int:
        """How many events the accepted commands have."""
        return self._replies.outcomes["accepted"] * self._plan.mix.events

    def _now_s(self) -> float:
        return time.perf_counter() - self._begin_s

    def _report(self, seconds: float) -> Report:
        plan, checks = self._plan, self._checks
        events = [self._by_partition[partition] for partition in range(self._settings.partitions)]
        usage = {name: one for name, _, one in (*self._watched, self._own)}
        return Report(
            settings={**plan.profile._asdict(), **structs.asdict(plan.mix), "readers": plan.readers},
            seconds=seconds,
            interrupted=self._interrupted,
            sent=self._sent,
            ingested=self._ingested,
            queried=dict(self._queried),
            outcomes=dict(self._replies.outcomes),
            checks_passed=sum(tally.passed for tally in checks.tallies.values()),
            violations=checks.violations,
            corruptions=sum(checks.tallies[check].failed for check in CORRUPTIONS),
            checks={check.value: tally for check, tally in checks.tallies.items()},
            first_violations=checks.first,
            errors=dict(self._errors),
            imbalance=max(events) * len(events) / sum(events) if any(events) else 0.0,
            events_by_partition=events,
            latency_ms=_percentiles(self._waits),
            latency_curve=_curve(self._waits),
            read_ms=_percentiles(self._reads),
            read_curve=_curve(self._reads),
            memory_mb={name: one.memory_mb for name, one in usage.items() if one.memory_mb},
            processors={name: one.processors for name, one in usage.items() if one.processors},
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
            await stop_consumer(consumer)

    @asynccontextmanager
    async def _producer(self) -> AsyncIterator[AIOKafkaProducer]:
        producer = AIOKafkaProducer(**client_options(self._settings), enable_idempotence=True, acks="all")
        await producer.start()
        try:
            yield producer
        finally:
            await producer.stop()


def _process(pid: int) -> psutil.Process:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        raise SettingsError(f"There is no process {pid} here to watch.") from None


def _look(name: str, process: psutil.Process, usage: Usage, at_s: float) -> str | None:
    with process.oneshot():
        times = process.cpu_times()
        wrong = usage.seen(at_s, process.memory_info().rss / 1e6, times.user + times.system)
    return None if wrong is None else f"{name}: {wrong}"


def _percentiles(histogram: HdrHistogram) -> dict[str, float]:
    if not histogram.get_total_count():
        return {}
    found = {f"p{share:g}": histogram.get_value_at_percentile(share) / 1000 for share in _PERCENTILES}
    return {**found, "max": histogram.get_max_value() / 1000}


def _curve(histogram: HdrHistogram) -> list[tuple[float, float]]:
    """Percentiles and their milliseconds, as far as there are waits that are so rare."""
    total = histogram.get_total_count()
    shares = [share for share in _CURVE if total * (100 - share) >= 100]
    return [(share, histogram.get_value_at_percentile(share) / 1000) for share in shares]


async def _while_it_moves(left: Callable[[], int]) -> None:
    """Wait until nothing is left, or what is left has not become less for `_SETTLE_S`."""
    least, since_s = left(), time.perf_counter()
    while least > 0 and time.perf_counter() - since_s < _SETTLE_S:
        await asyncio.sleep(_POLL_S)
        if (now := left()) < least:
            least, since_s = now, time.perf_counter()


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
