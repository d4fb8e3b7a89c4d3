"""What has to hold after a run; each check returns what does not, or None.

What the commands come to is decided anew, by the decision alone, log by log: replies, feed and store have to say the
same.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from benchmarks.bed import LOGS, Site
from benchmarks.load import PARTITIONS, CommandRecord, by_partition
from benchmarks.ready import Start, empty, plan_of
from processor.codec import decode_outcome
from processor.kafka.feed import position_of
from processor.messages import Plan, RecordedEvent
from processor.names import DEFAULT_TENANT
from processor.store import Store
from processor.stores import open_store
from processor.verify import verify_store

_PAGE = 5_000
_POLL_MS = 5


class Checker:
    """Checks a site after each run on it: what has come since the last time is what the commands since then come to.

    A store in memory is gone with its worker; its replies and its feed are all there is.
    """

    def __init__(self, site: Site, starts: Sequence[Start] | None = None) -> None:
        self._site = site
        self._starts = list(starts or map(empty, LOGS))
        names = site.names
        self._read = {
            TopicPartition(topic, log.partition): 0
            for topic in (names.results, names.conflicts, names.events)
            for log in LOGS
        }

    async def check(self, records: Sequence[CommandRecord], *, bare: bool = False, crashed: bool = False) -> str | None:
        """Every command has its one reply, the feed has its events and, save for the bare path, so has the store.

        After a crash, replies may come again, even of commands before these; they have to be the same.
        """
        url = self._site.settings.store
        of_partition = by_partition(records)
        async with self._consumer() as consumer, _opened(None if bare else url) as store:
            for log, start in zip(LOGS, self._starts, strict=True):
                plan = plan_of(log, of_partition[log.partition], start)
                failure = await self._check_replies(consumer, plan, crashed) or await self._check_feed(consumer, plan)
                if failure is None and store is not None:
                    failure = await _check_log(store, plan)
                if failure is not None:
                    return failure
                self._starts[log.partition] = Start(plan.after, {**start.heads, **plan.heads})
        return None

    async def _check_replies(self, consumer: AIOKafkaConsumer, plan: Plan, crashed: bool) -> str | None:
        expected = {outcome.offset: outcome for _, outcome in plan.answers}
        seen: set[int] = set()
        names = self._site.names
        for topic in (names.results, names.conflicts):
            async for record in self._new(consumer, TopicPartition(topic, plan.log.partition)):
                outcome = decode_outcome(record.value)
                if crashed and outcome.offset < plan.before.next_offset:
                    continue
                if outcome != expected.get(outcome.offset):
                    return f"{plan.log}: a reply is not what the command comes to: {outcome}"
                if outcome.offset in seen and not crashed:
                    return f"{plan.log}: a reply comes twice: {outcome}"
                seen.add(outcome.offset)
        left = len(expected) - len(seen)
        return f"{plan.log}: {left} of {len(expected)} commands have no reply" if left else None

    async def _check_feed(self, consumer: AIOKafkaConsumer, plan: Plan) -> str | None:
        """First occurrences only."""
        position, index = plan.before.next_position - 1, 0
        async for record in self._new(consumer, TopicPartition(self._site.names.events, plan.log.partition)):
            found = position_of(record) or 0
            if found <= position:
                continue
            event_id = dict(record.headers)["ce_id"].decode()
            if index == len(plan.events) or (found, event_id, record.value) != _shown(plan.events[index]):
                return f"{plan.log}: position {found} of the feed is not what the commands come to"
            position, index = found, index + 1
        left = len(plan.events) - index
        return f"{plan.log}: {left} of {len(plan.events)} events are not on the feed" if left else None

    async def _new(self, consumer: AIOKafkaConsumer, of: TopicPartition) -> AsyncIterator[ConsumerRecord]:
        """What has come since the last time."""
        begin, end = self._read[of], (await consumer.end_offsets([of]))[of]
        while begin < end:
            for records in (await consumer.getmany(of, timeout_ms=1_000)).values():
                begin = records[-1].offset + 1
                for record in records:
                    yield record
        self._read[of] = end

    @asynccontextmanager
    async def _consumer(self) -> AsyncIterator[AIOKafkaConsumer]:
        # A short poll: what is read to its end is asked for along with the rest, and the answer would wait for more.
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._site.settings.brokers, enable_auto_commit=False, fetch_max_wait_ms=_POLL_MS
        )
        await consumer.start()
        try:
            consumer.assign(list(self._read))
            for of, begin in self._read.items():
                consumer.seek(of, begin)
            yield consumer
        finally:
            await consumer.stop()


async def check_run(site: Site, records: Sequence[CommandRecord], *, bare: bool = False) -> str | None:
    """After the one run on a site that was empty; all of a worker's store is verified, too."""
    failure = await Checker(site).check(records, bare=bare)
    return failure if failure is not None or bare else await check_store(site.settings.store)


async def check_store(url: str, records: Sequence[CommandRecord] | None = None) -> str | None:
    """All of the store is sound; with `records`, it holds what they come to."""
    async with _opened(url) as store:
        if store is None:
            return None
        report = await verify_store(store, [DEFAULT_TENANT], PARTITIONS)
        if not report.ok:
            return next(problem for of_log in report.partitions for problem in of_log.problems)
        if records is not None:
            of_partition: Mapping[int, Sequence[CommandRecord]] = by_partition(records)
            for log in LOGS:
                failure = await _check_log(store, plan_of(log, of_partition[log.partition]))
                if failure is not None:
                    return failure
    return None


def _shown(event: RecordedEvent) -> tuple[int, str, bytes]:
    return event.position, event.event_id, event.data


async def _check_log(store: Store, plan: Plan) -> str | None:
    now, after = (await store.checkpoints())[plan.log], plan.after
    if (now.next_offset, now.next_position, now.streams, now.chain) != (
        after.next_offset,
        after.next_position,
        after.streams,
        after.chain,
    ):
        return f"{plan.log}: the store is not where the commands lead: {now}"
    position = plan.before.next_position - 1
    for begin in range(0, len(plan.events), _PAGE):
        page = plan.events[begin : begin + _PAGE]
        if await store.read_log(plan.log, position + begin, len(page)) != page:
            return f"{plan.log}: the events behind position {position + begin} are not what the commands come to"
    return None


@asynccontextmanager
async def _opened(url: str | None) -> AsyncIterator[Store | None]:
    if url is None or url == "memory:":
        yield None
        return
    store = open_store(url, partitions=PARTITIONS, read_only=True)
    await store.open()
    try:
        yield store
    finally:
        await store.close()
